package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/BurntSushi/toml"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// project is a new project, made from this one, with ports of its own.
type project struct {
	site         // the URL of the app
	dir          string
	addr, origin string       // where the app and its origin listen, host:port
	proxyPort    int          // where Pushpin gets what the app hands off
	publishPort  int          // where Pushpin publishes; it takes the three ports after it, too
	proxy        *grip.Config // publishes to Pushpin, and checks its signatures
	app          *program     // the Fastly CLI or Viceroy, if it runs
}

// newProject returns a new project, in a directory whose name has a space and a letter outside
// ASCII, as people's directories may have.
func newProject(t testing.TB) *project {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a pläce", "my-app")
	_, from := template(t)
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	first := freePorts(t, 7)
	p := &project{
		site{"http://" + loopback(first)}, dir, loopback(first), loopback(first + 1), first + 2, first + 3, nil, nil,
	}
	p.proxy, _ = grip.ParseURL(p.gripURL(), "") // cannot fail
	t.Cleanup(func() {
		if t.Failed() && p.app != nil {
			os.CopyFS(p.app.log+".pushpin", os.DirFS(filepath.Join(dir, "pushpin-logs"))) // if it has run
			t.Logf("the logs are in %s; the app's ends with\n%s", artifacts, p.app.tail())
		}
	})
	p.set(t, "service_id", "")
	p.set(t, "local_server.backends.origin.url", "http://"+p.origin+"/")
	p.set(t, "local_server.backends.origin.override_host", p.origin)
	p.set(t, "local_server.pushpin.proxy_port", p.proxyPort)
	p.set(t, "local_server.pushpin.publish_port", p.publishPort)
	return p
}

// TestInit changes a project as a user does: a condition with its table, the module's name, and a
// README. The tests pass there, and a table that does not fit the condition is reported.
func TestInit(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.edit(t, "main.go", "\t\"os\"\n", "\t\"os\"\n\t\"path\"\n")
	p.withCondition(t, `		useFanout = path.Dir(r.URL.Path) == "/live"
		if r.URL.Path == "/closed" {
			fail(w, 503)
			return
		}
`)
	const table = `origin  GET   /
fanout  GET   /live/
503     GET   /closed
fanout  GET   /  Upgrade: websocket
fanout  HEAD  /live/
origin  POST  /
`
	p.write(t, "testdata/handoffs.txt", table)
	p.write(t, "README.md", "[mine](nowhere)\n")
	sh(t, p.dir, `
		go mod edit -module=example.com/my-app
		go vet ./...; go test ./...; go -C testdata vet ./e2e`)

	// The project's tests are those of this program.
	out := sh(t, filepath.Join(p.dir, "testdata/e2e"),
		`"$1" -test.v -test.run="^Test(Table|Readme|Links)$"`, os.Args[0])
	if !strings.Contains(out, "--- PASS: TestTable ") {
		t.Errorf("TestTable did not run:\n%s", out)
	}
	// TestApp, which does not run here, puts a condition in the place of this one. The import must stay.
	p.withCondition(t, "\t\tuseFanout = false\n")
	sh(t, p.dir, "go vet .")

	// The message has the line's number, the line, and where the request went.
	p.write(t, "testdata/handoffs.txt", "fanout  POST  /\n")
	sh(t, p.dir, `go test . | grep 'handoffs.txt:1: "fanout  POST  /" went to origin'`)
}

// makeTemplate makes the directories of template once for all tests.
var makeTemplate sync.Once

// template copies this project, without the files in .gitignore. It makes another project from the
// copy with `fastly compute init`, builds it, and returns the directories of both.
func template(t testing.TB) (kit, dir string) {
	t.Helper()
	kit, dir = filepath.Join(os.TempDir(), "kit"), filepath.Join(os.TempDir(), "new", "my-app")
	makeTemplate.Do(func() {
		sh(t, "../..", `
			export GIT_DIR="$1.git" GIT_WORK_TREE=. GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
			git init -q; git add --all; git checkout-index --all --prefix="$1/"; unset GIT_DIR GIT_WORK_TREE
			mkdir -p "$2"; cd "$2"
			fastly compute init --from="$1" --non-interactive
			fastly compute build --metadata-disable --non-interactive`, kit, dir)
	})
	return kit, dir
}

// read returns a file of the project.
func (p *project) read(t testing.TB, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// edit replaces old, which must be there, in a file of the project.
func (p *project) edit(t testing.TB, file, old, new string) {
	t.Helper()
	content := p.read(t, file)
	if !strings.Contains(content, old) {
		t.Fatalf("%s has no %q:\n%s", file, old, content)
	}
	p.write(t, file, strings.ReplaceAll(content, old, new))
}

// write writes a file of the project. After a change of its sources, the project is built again.
func (p *project) write(t testing.TB, file, content string) {
	t.Helper()
	if strings.HasSuffix(file, ".go") {
		os.Remove(filepath.Join(p.dir, "bin/main.wasm"))
	}
	if err := os.WriteFile(filepath.Join(p.dir, file), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// condition matches the TODO in main.go, the lines after it, and the end of the block.
var condition = regexp.MustCompile(`(\n\t\t// TODO: .*\n)((?:.*\n)*?)(\t}\n\n\tif useFanout {\n)`)

// withCondition puts lines of Go in the place of the lines after the TODO in the project's main.go. It
// skips the test if the project has no TODO, or has code after that block.
func (p *project) withCondition(t testing.TB, goCode string) {
	t.Helper()
	todo := condition.FindStringSubmatch(p.read(t, "main.go"))
	if todo == nil {
		t.Skip("this test puts a condition at the TODO, as the last thing in main.go before `if useFanout {`")
	}
	if todo[2] != "\t\tuseFanout = true\n" { // a condition of the user's, which may need an import
		goCode = "\t\tif false {\n" + todo[2] + "\t\t}\n" + goCode
	}
	p.edit(t, "main.go", todo[0], todo[1]+goCode+todo[3])
}

// set sets the value with a name, such as local_server.pushpin.enable, in the project's fastly.toml.
// It keeps everything else that the project's owner has set.
func (p *project) set(t testing.TB, name string, value any) {
	t.Helper()
	var manifest map[string]any
	if _, err := toml.Decode(p.read(t, "fastly.toml"), &manifest); err != nil {
		t.Fatal(err)
	}
	table := manifest
	key, rest, more := strings.Cut(name, ".")
	for ; more; key, rest, more = strings.Cut(rest, ".") {
		if table[key] == nil {
			table[key] = map[string]any{}
		}
		table = table[key].(map[string]any)
	}
	table[key] = value
	content, err := toml.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	// A backend may be the app itself.
	p.write(t, "fastly.toml", strings.ReplaceAll(string(content), "localhost:7676", p.addr))
}

// serve runs the app with `fastly compute serve` until the test ends.
func (p *project) serve(t testing.TB, args ...string) {
	t.Helper()
	p.run(t, append([]string{"fastly", "compute", "serve", "--skip-build",
		"--non-interactive", "--metadata-disable", "--addr", p.addr}, args...)...)
}

// serveAlone runs the app in Viceroy, without the Fastly CLI and Pushpin, until the test ends.
func (p *project) serveAlone(t testing.TB, args ...string) {
	t.Helper()
	p.run(t, append([]string{"viceroy", "-v", "-C", "fastly.toml", "--addr", p.addr, "bin/main.wasm"}, args...)...)
}

// run builds the app if its sources have changed, runs it with a command until the test ends, and
// waits until it listens.
func (p *project) run(t testing.TB, command ...string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(p.dir, "bin/main.wasm")); err != nil {
		sh(t, p.dir, "fastly compute build --non-interactive --metadata-disable")
	}
	p.app = start(t, p.dir, nil, command...)
	p.app.wait(t, "Listening on http://"+p.addr)
}

// gripURL returns the GRIP_URL of the project's Pushpin.
func (p *project) gripURL() string {
	return strings.Replace(grip.LocalURL, "5561", strconv.Itoa(p.publishPort), 1)
}

// publish publishes a message to a channel, directly to Pushpin.
func (p *project) publish(t testing.TB, channel string, formats grip.Formats) {
	t.Helper()
	item := grip.Item{Channel: channel, Formats: formats}
	if err := p.proxy.Publish(withPatience(t), item); err != nil {
		t.Fatalf("publish to %s: %v", channel, err)
	}
}

func withPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
