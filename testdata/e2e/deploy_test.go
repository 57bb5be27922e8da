package e2e

import (
	"cmp"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// serviceCommands are the README's for an existing service.
const serviceCommands = `fastly service backend create --name=origin --address=example.com --port=443 --version=latest --autoclone
fastly service version activate --version=latest
fastly products --enable=fanout
`

// TestDeploy runs the commands of the README and the app's log that change a service. It shows what
// they ask of a stand-in for Fastly's API, and not what Fastly does.
func TestDeploy(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	versions := `[{"number": 1, "active": true}]`
	changes := make(chan string, 100)
	// The package itself is left out, and names for TLS, which are the host's.
	leftOut := regexp.MustCompile(`(?s) --.*|&ssl_.*| $`)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/service/ID")
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodGet {
			changes <- "\n" + leftOut.ReplaceAllString(call+" "+string(body), "")
		}
		io.WriteString(w, cmp.Or(map[string]string{
			"POST /service":         `{"id": "ID"}`,
			"GET /details":          `{"type": "wasm"}`,
			"GET /version":          versions,
			"PUT /version/1/clone":  `{"number": 2}`,
			"GET /version/2/domain": `[{"name": "my-app.example.com"}]`,
		}[call], "{}"))
	}))
	defer api.Close()

	// The command must ask for the changes that want lists. The dialogue is patterns of questions,
	// each with its answer.
	run := func(command, want string, dialogue ...string) {
		t.Helper()
		fastly := start(t, p.dir, []string{
			"FASTLY_API_TOKEN=TOKEN", "FASTLY_WASM_METADATA_DISABLE=true",
			"FASTLY_API_ENDPOINT=" + api.URL, "FASTLY_ACCOUNT_ENDPOINT=" + api.URL,
			// Otherwise the CLI reports what it does.
			"HTTPS_PROXY=http://127.0.0.1:1", "https_proxy=", "NO_PROXY=127.0.0.1", "no_proxy=",
		}, "sh", "-c", command)
		for turn := range slices.Chunk(dialogue, 2) {
			fastly.wait(t, turn[0])
			io.WriteString(fastly.in, turn[1]+"\n")
		}
		fastly.in.Close()
		if <-fastly.done; fastly.err != nil {
			t.Fatalf("%s: %v\n%s", command, fastly.err, fastly.tail())
		}
		got := ""
		for len(changes) > 0 {
			got += <-changes
		}
		if got != want {
			t.Errorf("%s asked for%s\nwant%s", command, got, want)
		}
	}
	run("fastly compute publish", `
POST /service name=my-app&type=wasm
POST /version/1/domain name=my-app.example.com
POST /version/1/backend address=localhost&name=origin&override_host=localhost&port=8443
PUT /enabled-products/v1/fanout/services/ID {}
PUT /version/1/package
PUT /version/1/activate`,
		`Create new service: \[y/N\] `, "y",
		`Service name: \[my-app\] `, "",
		"Domain: ", "my-app.example.com",
		// with the description in fastly.toml
		`(?s)'origin'\s+The\s+origin\s+server.*Hostname or IP address: \[127.0.0.1\] `, "localhost",
		`Port: \[443\] `, "8443")

	// The other commands of the README and the app's log, and the second publish.
	run("fastly compute publish", `
PUT /version/1/clone
PUT /version/2/package
PUT /version/2/activate`)
	commands := strings.Split(serviceCommands, "\n")
	run(commands[0], `
PUT /version/1/clone
POST /version/2/backend address=example.com&name=origin&override_host=example.com&port=443`)
	versions = `[{"number": 1, "active": true}, {"number": 2}]` // as after these changes
	run(commands[1], "\nPUT /version/2/activate")
	run(commands[2], "\nPUT /enabled-products/v1/fanout/services/ID {}")
	run("fastly products --enable=websockets", "\nPUT /enabled-products/v1/websockets/services/ID {}")
}
