package e2e

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fastlyAPI replaces Fastly's API, which a test cannot use. It records the changes that the CLI
// makes, and gives the answers that the CLI needs to continue. It does not show what Fastly
// does with the changes.
type fastlyAPI struct {
	*httptest.Server
	logs chan string // the lines of the log stream

	sync.Mutex
	answers map[string]string // by "METHOD path"
	updated map[string]string // those that a version's activation adds or changes
	changes []string          // each is "METHOD path body"; for a package, the body is the list of its files
}

func startFastlyAPI(t *testing.T) *fastlyAPI {
	a := &fastlyAPI{logs: make(chan string, 500), answers: map[string]string{
		"POST /service":                         `{"id": "SERVICE"}`,
		"GET /service/SERVICE/details":          `{"type": "wasm"}`,
		"GET /service/SERVICE/version":          `[{"number": 1, "active": true}]`,
		"PUT /service/SERVICE/version/1/clone":  `{"number": 2}`,
		"GET /service/SERVICE/version/2/domain": `[{"name": "my-app.example.com"}]`,
	}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + r.URL.Path
		if call == "GET /service/SERVICE/log_stream/managed/instance_output" {
			a.streamLogs(w, r)
			return
		}
		a.Lock()
		defer a.Unlock()
		if r.Method != http.MethodGet {
			a.changes = append(a.changes, strings.TrimSpace(call+" "+readBody(t, r)))
		}
		if strings.HasSuffix(call, "/activate") {
			maps.Copy(a.answers, a.updated)
		}
		io.WriteString(w, cmp.Or(a.answers[call], "{}"))
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

// readBody returns the body of a request. For a package, it returns the sorted list of its
// files, without their common directory.
func readBody(t *testing.T, r *http.Request) string {
	upload, err := r.MultipartReader()
	if err != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		return string(body)
	}
	dir := t.TempDir()
	tar := exec.Command("tar", "-xzf", "-", "--strip-components=1", "-C", dir)
	if tar.Stdin, err = upload.NextPart(); err == nil {
		err = tar.Run()
	}
	if err != nil {
		t.Errorf("the package: %v", err)
	}
	return strings.Join(files(t, dir), " ")
}

// env returns the variables with which the CLI uses this API.
func (a *fastlyAPI) env() []string {
	return []string{
		"FASTLY_API_ENDPOINT=" + a.URL, "FASTLY_ACCOUNT_ENDPOINT=" + a.URL, "FASTLY_WASM_METADATA_DISABLE=true",
		// Otherwise the CLI would report the publish to Fastly.
		"HTTPS_PROXY=http://127.0.0.1:1", "https_proxy=", "NO_PROXY=127.0.0.1", "no_proxy=",
	}
}

// run runs a command of the CLI and answers its prompts. The command must make these changes, and no
// others.
func (a *fastlyAPI) run(t *testing.T, p *project, command string, dialogue [][2]string, changes ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tools.Fastly, strings.Fields(command)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.log, p.log
	cmd.Env = slices.Concat(os.Environ(), a.env(), []string{"FASTLY_API_TOKEN=TOKEN"})
	in, _ := cmd.StdinPipe()
	if err := cmd.Start(); err != nil {
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
	a.check(t, changes...)
}

// check checks which changes were made since the last check.
func (a *fastlyAPI) check(t *testing.T, want ...string) {
	t.Helper()
	a.Lock()
	defer a.Unlock()
	if !slices.Equal(a.changes, want) {
		t.Errorf("the CLI asked for\n%s\nwant\n%s", strings.Join(a.changes, "\n"), strings.Join(want, "\n"))
	}
	a.changes = nil
}

// TestDeploy publishes a project. It also runs the other commands that the README and the app's log
// mention. The commands make the right changes in Fastly's API, and no others.
func TestDeploy(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	source := slices.DeleteFunc(files(t, p.dir), regexp.MustCompile(`^(testdata|\.ci|\.github|pkg)/`).MatchString)
	api := startFastlyAPI(t)
	first := func(backend string) []string {
		return []string{
			"POST /service name=my-app&type=wasm",
			"POST /service/SERVICE/version/1/domain name=my-app.example.com",
			"POST /service/SERVICE/version/1/backend " + backend,
			"PUT /enabled-products/v1/fanout/services/SERVICE {}",
			"PUT /service/SERVICE/version/1/package bin/main.wasm fastly.toml",
			"PUT /service/SERVICE/version/1/activate",
		}
	}

	t.Run("without prompts", func(t *testing.T) {
		p.set(t, "example.com", "setup", "backends", "origin", "address")
		api.run(t, p, "compute publish --non-interactive --domain=my-app.example.com", nil,
			first("address=example.com&name=origin&override_host=example.com&port=443&ssl_cert_hostname=example.com&ssl_sni_hostname=example.com")...)
		p.set(t, nil, "setup", "backends", "origin", "address")
		p.set(t, nil, "service_id")
	})

	t.Run("first", func(t *testing.T) {
		api.run(t, p, "compute publish", [][2]string{
			{"Create new service: [y/N] ", "y"},
			{"Service name: [my-app] ", ""},
			{"Domain: ", "my-app.example.com"},
			{"Hostname or IP address: [127.0.0.1] ", "https://localhost"},
			{"must be a valid hostname", "localhost"},
			{"Port: [443] ", "8443"},
		}, first("address=localhost&name=origin&override_host=localhost&port=8443&ssl_cert_hostname=localhost&ssl_sni_hostname=localhost")...)
		shown := strings.Join(strings.Fields(p.log.String()), " ") // the CLI wraps lines
		if strings.Contains(shown, "Configure a backend called 'origin' Hostname") {
			t.Errorf("the CLI does not show the description of the backend in fastly.toml:\n%s", shown)
		}
	})

	t.Run("second", func(t *testing.T) {
		p.run(t, p.dir, "sh", "-ec", `
			mkdir -p guest-profiles pushpin-logs testdata/origins/python/.venv/lib/python3/site-packages/a/b/c/d/e
			find guest-profiles pushpin-logs testdata -type d -exec touch {}/one ';'
			touch .env go.work.sum
			git init -q; git add --all; git commit -qm 'My app'`)
		api.run(t, p, "compute publish --include-source", nil,
			"PUT /service/SERVICE/version/1/clone",
			"PUT /service/SERVICE/version/2/package "+strings.Join(source, " "),
			"PUT /service/SERVICE/version/2/activate")
	})

	// The other commands of the README and the app's log. TestNotConfigured tests
	// that the log has them.
	t.Run("other commands", func(t *testing.T) {
		api.run(t, p, "products --enable=fanout", nil,
			"PUT /enabled-products/v1/fanout/services/SERVICE {}")
		api.run(t, p, "products --disable=fanout", nil, "DELETE /enabled-products/v1/fanout/services/SERVICE")
		api.run(t, p, "backend create --name=origin --address=HOST --port=443 --version=latest --autoclone", nil,
			"PUT /service/SERVICE/version/1/clone",
			"POST /service/SERVICE/version/2/backend address=HOST&name=origin&override_host=HOST&port=443&ssl_cert_hostname=HOST&ssl_sni_hostname=HOST")
		api.logs <- "what the app logs"
		api.run(t, p, "log-tail", [][2]string{{"what the app logs", "Ctrl-C"}},
			"POST /service/SERVICE/log_stream/managed/instance_output")
	})
}
