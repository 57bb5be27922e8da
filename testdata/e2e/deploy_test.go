package e2e

import (
	"cmp"
	"io"
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

// fastlyAPI is a stand-in for Fastly's API, which a test cannot use. It records the changes that the
// CLI makes, and gives the answers that the CLI needs to continue. It does not show what Fastly does
// with the changes.
type fastlyAPI struct {
	*httptest.Server
	versions string // of the service
	sync.Mutex
	changes []string // each is "METHOD path body"; for a package, the body is the list of its files
}

func startFastlyAPI(t *testing.T) *fastlyAPI {
	a := &fastlyAPI{versions: `[{"number": 1, "active": true}]`}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + r.URL.Path
		if r.Method != http.MethodGet {
			a.Lock()
			a.changes = append(a.changes, strings.TrimSpace(call+" "+readBody(t, r)))
			a.Unlock()
		}
		io.WriteString(w, cmp.Or(map[string]string{
			"POST /service":                         `{"id": "SERVICE"}`,
			"GET /service/SERVICE/details":          `{"type": "wasm"}`,
			"GET /service/SERVICE/version":          a.versions,
			"PUT /service/SERVICE/version/1/clone":  `{"number": 2}`,
			"GET /service/SERVICE/version/2/domain": `[{"name": "my-app.example.com"}]`,
		}[call], "{}"))
	}))
	t.Cleanup(a.Close)
	return a
}

// readBody returns the body of a request. For a package, it returns the sorted list of its files,
// without their common directory.
func readBody(t *testing.T, r *http.Request) string {
	upload, err := r.MultipartReader()
	if err != nil {
		body, _ := io.ReadAll(r.Body)
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

// check runs a command of the CLI and answers its questions, which are patterns with answers. The
// command must make these changes, and no others.
func (a *fastlyAPI) check(t *testing.T, p *project, command string, dialogue [][2]string, changes ...string) {
	t.Helper()
	cmd := exec.Command("fastly", strings.Fields(command)...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "FASTLY_API_TOKEN=TOKEN", "FASTLY_WASM_METADATA_DISABLE=true",
		"FASTLY_API_ENDPOINT="+a.URL, "FASTLY_ACCOUNT_ENDPOINT="+a.URL,
		// Otherwise the CLI would report the publish to Fastly.
		"HTTPS_PROXY=http://127.0.0.1:1", "https_proxy=", "NO_PROXY=127.0.0.1", "no_proxy=")
	in, _ := cmd.StdinPipe()
	fastly := start(t, p.log, cmd)
	for _, turn := range dialogue {
		fastly.wait(t, turn[0])
		io.WriteString(in, turn[1]+"\n")
	}
	in.Close()
	if fastly.end(t); fastly.err != nil {
		t.Fatalf("fastly %s: %v", command, fastly.err)
	}
	a.Lock()
	defer a.Unlock()
	if !slices.Equal(a.changes, changes) {
		t.Errorf("fastly %s asked for\n%s\nwant\n%s", command, strings.Join(a.changes, "\n"), strings.Join(changes, "\n"))
	}
	a.changes = nil
}

// TestDeploy publishes a project for the first and for the second time, and runs the other commands
// that the README and the app's log mention.
func TestDeploy(t *testing.T) {
	t.Parallel()
	p, api := newProject(t), startFastlyAPI(t)
	source := slices.DeleteFunc(files(t, p.dir), regexp.MustCompile(`^(testdata|\.ci|\.github|pkg)/`).MatchString)
	api.check(t, p, "compute publish", [][2]string{
		{`Create new service: \[y/N\] `, "y"},
		{`Service name: \[my-app\] `, ""},
		{"Domain: ", "my-app.example.com"},
		{`Hostname or IP address: \[127.0.0.1\] `, "localhost"},
		{`Port: \[443\] `, "8443"},
	},
		"POST /service name=my-app&type=wasm",
		"POST /service/SERVICE/version/1/domain name=my-app.example.com",
		"POST /service/SERVICE/version/1/backend address=localhost&name=origin&override_host=localhost&port=8443&"+
			"ssl_cert_hostname=localhost&ssl_sni_hostname=localhost",
		"PUT /enabled-products/v1/fanout/services/SERVICE {}",
		"PUT /service/SERVICE/version/1/package bin/main.wasm fastly.toml",
		"PUT /service/SERVICE/version/1/activate")
	shown := strings.Join(strings.Fields(p.log.String()), " ") // the CLI wraps lines
	if strings.Contains(shown, "Configure a backend called 'origin' Hostname") {
		t.Errorf("the CLI does not show the description of the backend in fastly.toml:\n%s", shown)
	}

	// What the tools leave behind is not published.
	sh(t, p.dir, `
		mkdir -p guest-profiles pushpin-logs testdata/origins/python/.venv/lib/python3/site-packages/a/b/c/d/e
		find guest-profiles pushpin-logs testdata -type d -exec touch {}/one ';'
		touch .env go.work.sum
		git init -q; git add --all`)
	api.check(t, p, "compute publish --include-source", nil,
		"PUT /service/SERVICE/version/1/clone",
		"PUT /service/SERVICE/version/2/package "+strings.Join(source, " "),
		"PUT /service/SERVICE/version/2/activate")

	// The other commands of the README and the app's log.
	api.check(t, p, "products --enable=fanout", nil, "PUT /enabled-products/v1/fanout/services/SERVICE {}")
	api.check(t, p, "products --disable=fanout", nil, "DELETE /enabled-products/v1/fanout/services/SERVICE")
	api.check(t, p, "products --enable=websockets", nil, "PUT /enabled-products/v1/websockets/services/SERVICE {}")
	api.check(t, p, "service backend create --name=origin --address=HOST --port=443 --version=latest --autoclone", nil,
		"PUT /service/SERVICE/version/1/clone",
		"POST /service/SERVICE/version/2/backend address=HOST&name=origin&override_host=HOST&port=443&"+
			"ssl_cert_hostname=HOST&ssl_sni_hostname=HOST")
	api.versions = `[{"number": 1, "active": true}, {"number": 2}]` // as after these changes
	api.check(t, p, "service version activate --version=latest", nil, "PUT /service/SERVICE/version/2/activate")
}
