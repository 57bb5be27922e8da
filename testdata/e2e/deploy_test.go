package e2e

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/BurntSushi/toml"
)

// fastlyAPI replaces Fastly's API, which a test cannot use. It records the changes that the CLI makes, and gives the
// answers that the CLI needs to continue. It does not show what Fastly does with the changes.
type fastlyAPI struct {
	*httptest.Server
	logs chan string // the lines of the log stream
	// onChange, if not nil, is called for each change, with "METHOD path". Then mu is locked.
	onChange func(call string)

	mu      sync.Mutex
	answers map[string]string // by "METHOD path"
	changes []string          // each is "METHOD path body"; for a package, the body is the list of its files
}

func startFastlyAPI(t *testing.T) *fastlyAPI {
	a := &fastlyAPI{logs: make(chan string, 1), answers: map[string]string{
		"POST /service":                         `{"id": "SERVICE"}`,
		"GET /service/SERVICE/details":          `{"type": "wasm"}`,
		"GET /service/SERVICE/version":          `[{"number": 1, "active": true}]`,
		"PUT /service/SERVICE/version/1/clone":  `{"number": 2}`,
		"GET /service/SERVICE/version/1/domain": `[]`,
		"GET /service/SERVICE/version/2/domain": `[{"name": "my-app.example.com"}]`,
	}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + r.URL.Path
		if r.Method != http.MethodGet {
			a.mu.Lock()
			a.changes = append(a.changes, strings.TrimSpace(call+" "+readBody(t, r)))
			if a.onChange != nil {
				a.onChange(call)
			}
			a.mu.Unlock()
		}
		if call == "GET /service/SERVICE/log_stream/managed/instance_output" {
			a.streamLogs(w, r)
			return
		}
		a.mu.Lock()
		answer, ok := a.answers[call]
		a.mu.Unlock()
		if !ok {
			answer = "{}"
		}
		io.WriteString(w, answer)
	}))
	t.Cleanup(a.Close)
	return a
}

// streamLogs writes the lines of the log stream, until the CLI closes it.
func (a *fastlyAPI) streamLogs(w http.ResponseWriter, r *http.Request) {
	for id := 1; ; id++ {
		select {
		case line := <-a.logs:
			fmt.Fprintf(w, `{"batch_id": "%d", "logs": [{"id": "1", "stream": "stdout", "message": %q}]}`+"\n", id, line)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// readBody returns the body of a request. Of a package, it returns the list of its files.
func readBody(t *testing.T, r *http.Request) string {
	if upload, err := r.MultipartReader(); err == nil {
		part, err := upload.NextPart()
		if err != nil {
			t.Error(err)
			return ""
		}
		return strings.Join(packaged(t, part), " ")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

// env returns the environment in which the CLI uses this API.
func (a *fastlyAPI) env() []string {
	own := func(variable string) bool { return strings.HasPrefix(variable, "FASTLY_") }
	return append(slices.DeleteFunc(os.Environ(), own),
		"FASTLY_API_ENDPOINT="+a.URL, "FASTLY_ACCOUNT_ENDPOINT="+a.URL, "FASTLY_WASM_METADATA_DISABLE=true",
		"HTTPS_PROXY=http://127.0.0.1:1", "https_proxy=", "NO_PROXY=127.0.0.1", "no_proxy=") // otherwise the CLI would report the publish to Fastly
}

// run runs a command of the CLI, answers its prompts, and returns the changes that it made.
func (a *fastlyAPI) run(t *testing.T, p *project, dialogue [][2]string, args ...string) (changes []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, tools.Fastly, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.log, p.log
	cmd.Env = append(a.env(), "FASTLY_API_TOKEN=TOKEN")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, turn := range dialogue {
		p.waitForLog(t, turn[0])
		if turn[1] == "Ctrl-C" {
			cmd.Process.Signal(os.Interrupt)
		} else {
			io.WriteString(in, turn[1]+"\n")
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return a.changed()
}

func (a *fastlyAPI) changed() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	changes := a.changes
	a.changes = nil
	return changes
}

// TestDeploy publishes a project two times. It also runs the other commands that the README and the app's log mention.
// The commands make the right changes in Fastly's API, and no others.
func TestDeploy(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	source := slices.DeleteFunc(files(t, p.dir), func(file string) bool {
		dir, _, _ := strings.Cut(file, "/")
		return slices.Contains([]string{"testdata", ".ci", ".github", "pkg"}, dir)
	})
	api := startFastlyAPI(t)

	t.Run("first", func(t *testing.T) {
		checkChanges(t, api.run(t, p, [][2]string{
			{"Create new service: [y/N] ", "y"},
			{"Service name: [my-app] ", ""},
			{"Domain: ", "my-app.example.com"},
			{"Hostname or IP address: [127.0.0.1] ", "https://localhost"},
			{"must be a valid hostname", "localhost"},
			{"Port: [443] ", "8443"},
		}, "compute", "publish"),
			"POST /service name=my-app&type=wasm",
			"POST /service/SERVICE/version/1/domain name=my-app.example.com",
			"POST /service/SERVICE/version/1/backend address=localhost&name=origin&override_host=localhost&port=8443&ssl_cert_hostname=localhost&ssl_sni_hostname=localhost",
			"PUT /enabled-products/v1/fanout/services/SERVICE {}",
			"PUT /service/SERVICE/version/1/package bin/main.wasm fastly.toml",
			"PUT /service/SERVICE/version/1/activate")
		var manifest struct {
			ServiceID string `toml:"service_id"`
			Setup     struct {
				Backends struct {
					Origin struct{ Description string }
				}
			}
		}
		if _, err := toml.DecodeFile(filepath.Join(p.dir, "fastly.toml"), &manifest); err != nil || manifest.ServiceID != "SERVICE" {
			t.Errorf("%v; fastly.toml has the service id %q", err, manifest.ServiceID)
		}
		asked := strings.Join(strings.Fields(p.log.String()), " ") // the CLI wraps lines
		want := "Configure a backend called 'origin' " + manifest.Setup.Backends.Origin.Description + " Hostname or IP address: "
		if !strings.Contains(asked, want) {
			t.Errorf("the CLI does not ask this:\n%s", want)
		}
	})

	t.Run("second", func(t *testing.T) {
		for _, file := range []string{".env", "go.work.sum",
			"testdata/origins/node/node_modules/a/b/c/d/e/f/one", "testdata/origins/python/.venv/lib/python3/site-packages/a/b/c/d/e/one",
			"guest-profiles/one", "pushpin-logs/one"} {
			p.run(t, p.dir, "mkdir", "-p", filepath.Dir(file))
			p.write(t, file, "")
		}
		for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message=My app"}} {
			p.run(t, p.dir, "git", args...)
		}
		checkChanges(t, api.run(t, p, nil, "compute", "publish", "--include-source"),
			"PUT /service/SERVICE/version/1/clone",
			"PUT /service/SERVICE/version/2/package "+strings.Join(source, " "),
			"PUT /service/SERVICE/version/2/activate")
	})

	t.Run("without prompts", func(t *testing.T) {
		p, api := newProject(t), startFastlyAPI(t)
		p.edit(t, "fastly.toml", "[setup.backends.origin]\n", "[setup.backends.origin]\naddress = \"www.example.com\"\n")
		changes := api.run(t, p, nil, "compute", "publish", "--non-interactive")
		want := "POST /service/SERVICE/version/1/backend address=www.example.com&name=origin&override_host=www.example.com&port=443&ssl_cert_hostname=www.example.com&ssl_sni_hostname=www.example.com"
		if !slices.Contains(changes, want) {
			t.Errorf("got\n%s\nwant this in it\n%s", strings.Join(changes, "\n"), want)
		}
	})

	// The other commands that the README and the app's log mention. TestNotConfigured tests that the log has
	// them.
	t.Run("other commands", func(t *testing.T) {
		checkChanges(t, api.run(t, p, nil, "products", "--enable=fanout"),
			"PUT /enabled-products/v1/fanout/services/SERVICE {}")
		checkChanges(t, api.run(t, p, nil, "products", "--enable=fanout", "--service-id=OTHER"),
			"PUT /enabled-products/v1/fanout/services/OTHER {}")
		checkChanges(t, api.run(t, p, nil, "backend", "create", "--name=origin", "--address=HOST", "--port=443", "--version=latest", "--autoclone"),
			"PUT /service/SERVICE/version/1/clone",
			"POST /service/SERVICE/version/2/backend address=HOST&name=origin&override_host=HOST&port=443&ssl_cert_hostname=HOST&ssl_sni_hostname=HOST")
		api.logs <- "what the app logs"
		checkChanges(t, api.run(t, p, [][2]string{{"what the app logs", "Ctrl-C"}}, "log-tail"),
			"POST /service/SERVICE/log_stream/managed/instance_output")
	})
}

func checkChanges(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the CLI asked for\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// packaged returns the sorted list of the files in a package, without their common directory.
func packaged(t *testing.T, r io.Reader) (files []string) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		t.Error(err)
		return nil
	}
	archive := tar.NewReader(unzipped)
	header, err := archive.Next()
	for ; err == nil; header, err = archive.Next() {
		if header.Typeflag == tar.TypeReg {
			_, file, _ := strings.Cut(header.Name, "/")
			files = append(files, file)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	slices.Sort(files)
	return files
}
