package e2e

import (
	"cmp"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// fastlyAPI is a stand-in for Fastly's API, which a test cannot use. It notes the changes that the CLI
// makes, and gives the answers that the CLI needs to continue. It does not show what Fastly does with
// the changes.
type fastlyAPI struct {
	*httptest.Server
	versions string      // of the service
	changes  chan string // gets "METHOD path body", without the body of a package
}

func startFastlyAPI(t *testing.T) *fastlyAPI {
	a := &fastlyAPI{versions: `[{"number": 1, "active": true}]`, changes: make(chan string, 100)}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + r.URL.Path
		body, _ := io.ReadAll(r.Body)
		if strings.HasSuffix(call, "/package") {
			body = nil
		}
		if r.Method != http.MethodGet {
			a.changes <- strings.TrimSpace(call + " " + string(body))
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

// check runs a command of the CLI and answers its questions, which are patterns with answers. The
// command must make these changes, and no others.
func (a *fastlyAPI) check(t *testing.T, p *project, command string, dialogue [][2]string, changes ...string) {
	t.Helper()
	fastly := start(t, p.log, p.dir, []string{
		"FASTLY_API_TOKEN=TOKEN", "FASTLY_WASM_METADATA_DISABLE=true",
		"FASTLY_API_ENDPOINT=" + a.URL, "FASTLY_ACCOUNT_ENDPOINT=" + a.URL,
		// Otherwise the CLI would report the publish to Fastly.
		"HTTPS_PROXY=http://127.0.0.1:1", "https_proxy=", "NO_PROXY=127.0.0.1", "no_proxy=",
	}, append([]string{"fastly"}, strings.Fields(command)...)...)
	for _, turn := range dialogue {
		fastly.wait(t, turn[0])
		io.WriteString(fastly.in, turn[1]+"\n")
	}
	fastly.in.Close()
	if err := fastly.end(t); err != nil {
		t.Fatalf("fastly %s: %v", command, err)
	}
	var got []string
	for len(a.changes) > 0 {
		got = append(got, <-a.changes)
	}
	if !slices.Equal(got, changes) {
		t.Errorf("fastly %s asked for\n%s\nwant\n%s", command, strings.Join(got, "\n"), strings.Join(changes, "\n"))
	}
}

// TestDeploy publishes a project for the first and for the second time, and runs the other commands
// that the README and the app's log mention.
func TestDeploy(t *testing.T) {
	t.Parallel()
	p, api := newProject(t), startFastlyAPI(t)
	checkPackage := func(files string) { // each with ./ before it, sorted
		t.Helper()
		packaged := sh(t, p.dir, `tar -tvzf pkg/my-app.tar.gz | sed -n 's|^-.* my-app/|./|p' | sort`)
		if packaged != files {
			t.Errorf("the package has\n%s\nwant\n%s", packaged, files)
		}
	}
	source := sh(t, p.dir, `find . -type f | grep -Ev '^./(testdata|\.ci|\.github|pkg)/' | sort`)
	api.check(t, p, "compute publish", [][2]string{
		{`Create new service: \[y/N\] `, "y"},
		{`Service name: \[my-app\] `, ""},
		{"Domain: ", "my-app.example.com"},
		// with the description in fastly.toml
		{`(?s)'origin'\s+The\s+origin\s+server.*Hostname or IP address: \[127.0.0.1\] `, "localhost"},
		{`Port: \[443\] `, "8443"},
	},
		"POST /service name=my-app&type=wasm",
		"POST /service/SERVICE/version/1/domain name=my-app.example.com",
		"POST /service/SERVICE/version/1/backend address=localhost&name=origin&override_host=localhost&port=8443&"+
			"ssl_cert_hostname=localhost&ssl_sni_hostname=localhost",
		"PUT /enabled-products/v1/fanout/services/SERVICE {}",
		"PUT /service/SERVICE/version/1/package",
		"PUT /service/SERVICE/version/1/activate")
	checkPackage("./bin/main.wasm\n./fastly.toml\n")

	// What the tools leave behind is not published.
	sh(t, p.dir, `
		mkdir -p guest-profiles pushpin-logs testdata/origins/python/.venv/lib/python3/site-packages/a/b/c/d/e
		find guest-profiles pushpin-logs testdata -type d -exec touch {}/one ';'
		touch .env go.work.sum
		git init -q; git add --all`)
	api.check(t, p, "compute publish --include-source", nil,
		"PUT /service/SERVICE/version/1/clone",
		"PUT /service/SERVICE/version/2/package",
		"PUT /service/SERVICE/version/2/activate")
	checkPackage(source)

	// The other commands of the README and the app's log.
	for command, change := range map[string]string{
		"products --enable=fanout":     "PUT /enabled-products/v1/fanout/services/SERVICE {}",
		"products --disable=fanout":    "DELETE /enabled-products/v1/fanout/services/SERVICE",
		"products --enable=websockets": "PUT /enabled-products/v1/websockets/services/SERVICE {}",
	} {
		api.check(t, p, command, nil, change)
	}
	api.check(t, p, "service backend create --name=origin --address=HOST --port=443 --version=latest --autoclone", nil,
		"PUT /service/SERVICE/version/1/clone",
		"POST /service/SERVICE/version/2/backend address=HOST&name=origin&override_host=HOST&port=443&"+
			"ssl_cert_hostname=HOST&ssl_sni_hostname=HOST")
	api.versions = `[{"number": 1, "active": true}, {"number": 2}]` // as after these changes
	api.check(t, p, "service version activate --version=latest", nil, "PUT /service/SERVICE/version/2/activate")
}
