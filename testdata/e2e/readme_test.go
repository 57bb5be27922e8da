package e2e

import (
	"cmp"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const readmePath = "../../README.md"

// ownReadme reports whether README.md is the kit's. In a user's project, it may be the project's.
func ownReadme() bool {
	readme, _ := os.ReadFile(readmePath)
	return strings.HasPrefix(string(readme), "# Fanout forward: ")
}

// documents returns the paths of the kit's documents, first the README at the top.
func documents() (paths []string) {
	patterns := []string{"../../SECURITY.md", "../*.md", "../*/README.md", "../origins/*/README.md"}
	if ownReadme() {
		paths = append(paths, readmePath)
	}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern)
		paths = append(paths, found...)
	}
	return paths
}

// block is a fenced block of a document.
type block struct {
	path, lang string
	section    string // the heading of level two that it is under
	intro      string // the line before it that is not empty
	text       string
}

// fenced matches a heading of level two, or the line before a fenced block and the block.
var fenced = regexp.MustCompile("(?m)^## (.*)$|(?:^(.*)\n+)?^ *```(.*)\n((?:.*\n)*?) *```$")

// blocks returns the blocks of these documents.
func blocks(t testing.TB, paths ...string) (blocks []block) {
	t.Helper()
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		section := ""
		for _, m := range fenced.FindAllStringSubmatch(string(content), -1) {
			if m[1] != "" {
				section = m[1]
			} else {
				blocks = append(blocks, block{path, m[3], section, m[2], m[4]})
			}
		}
	}
	return blocks
}

// TestLinks checks that what the documents link to in the project is there, the headings too.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s#:]*)(#[^)\s]*)?\)`) // without those to other sites, which have a colon
	punctuation := regexp.MustCompile(`[^\p{L}\p{N}\n# _-]`)
	for _, path := range documents() {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			target := filepath.Join(filepath.Dir(path), cmp.Or(m[1], filepath.Base(path)))
			_, err := os.Stat(target)
			linked, _ := os.ReadFile(target) // fails for a directory
			headings := strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(string(linked)), ""), " ", "-")
			anchor := strings.Replace(m[2], "#", "#-", 1)
			if err != nil || anchor != "" && !strings.Contains(headings, anchor+"\n") {
				t.Errorf("%s links to %s: there is no such file or heading", path, m[0])
			}
		}
	}
}

// notRun says which of the documents' shell commands TestReadme does not run, and why. A key is the
// beginning of the command, or the path of its document.
var notRun = map[string]string{
	"export FASTLY_API_TOKEN=":                           "TestDeploy publishes, with a stand-in for Fastly's API",
	"fastly service backend create":                      "TestDeploy",
	"curl -H \"Fastly-Key":                               "needs an account at Fastly",
	"rm -r testdata Makefile .ci .github\n":              "TestMinimal",
	"make test":                                          "it is how this test runs",
	"eval \"$(testdata/tools.sh)\"\ngo -C testdata test": "it is how this test runs",
	"make live":                                          "TestLive runs these tests locally",
	"make bench":                                         "takes minutes",
	"go -C testdata tool benchstat":                      "compares two runs of make bench",
	"make load":                                          "TestLoad does the same with fewer connections",
	"go -C testdata run ./origin\n":                      "TestLive runs the demo's origin",
	"../origins/README.md":                               "the README has the same commands",
	"../origins/node/README.md":                          "TestOrigins",
	"../origins/python/README.md":                        "TestOrigins",
}

// TestReadme does what the README says, in its order, as a newcomer would, and on the ports that it
// names. It runs every shell command of the documents that notRun does not list.
func TestReadme(t *testing.T) {
	needsDefault(t)
	if !ownReadme() {
		t.Skip("README.md is this project's own: it has another title than the kit's")
	}
	t.Parallel()
	ports := append(addrs(5561, 4), "localhost:8080", "localhost:3000", "localhost:7676", "localhost:7677")
	for _, addr := range ports {
		if listens(addr) {
			t.Fatalf("the README's commands need %s, which is taken: stop what listens there", addr)
		}
	}
	kit, _ := template(t)
	n := &newcomer{dir: filepath.Join(t.TempDir(), "compute-starter-kit-go-fanout-forward")}
	if err := os.CopyFS(n.dir, os.DirFS(kit)); err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks(t, documents()...) {
		if b.lang == "sh" {
			n.blocks = append(n.blocks, b)
		}
	}
	source, _ := os.ReadFile("../origins/go/main.go")
	if !slices.ContainsFunc(blocks(t, readmePath), func(b block) bool { return b.text == string(source) }) {
		t.Error("README.md does not print testdata/origins/go/main.go as it is")
	}

	demo := n.start(t, n.next(t, "make demo"), invitation)
	publish := n.next(t, "curl -d hello http://localhost:7676/publish")
	clients := commands(n.next(t, "curl -N http://localhost:7676/events"))
	events := n.start(t, clients[0], "(?m)^event: start$")
	socket := n.start(t, clients[1], "")
	n.publishUntil(t, publish, `"text": "hello"`, socket, `"text":"hello"`)
	events.wait(t, `"text":"hello"`)
	io.WriteString(socket.in, "typed\n")
	socket.wait(t, `(?m)^(> )*typed$`)
	demo.stop()

	n.run(t, n.next(t, `eval "$(testdata/tools.sh)"`), "")
	n.dir = filepath.Join(filepath.Dir(n.dir), "my-app")
	origin := n.start(t, n.next(t, "mkdir ../my-origin"), "")
	serve := n.start(t, n.next(t, "make serve"), "Listening on http://127.0.0.1:7676")
	eventually(t, "the origin listens", func() bool { return listens("localhost:3000") })
	var connected []*program
	for _, command := range commands(n.next(t, "curl -N http://localhost:7676/events")) {
		connected = append(connected, n.start(t, command, ""))
	}
	publish = n.next(t, "curl http://localhost:5561/publish/")
	for _, client := range connected {
		n.publishUntil(t, publish, "Published", client, "hello")
	}
	serve.stop()
	origin.stop()

	keys := n.next(t, "export GRIP_URL=")
	n.next(t, "export GRIP_URL='https") // origin/README.md has the same
	origin = n.start(t, keys+"export PUBLISH_TOKEN=token\ngo -C testdata run ./origin",
		"publishing to https://api.fastly.com/service/")
	n.run(t, "PUBLISH_TOKEN=token\n"+n.next(t, `curl -H "Authorization`), "proxy did not accept")
	origin.stop()
	public := strings.Replace(n.next(t, "export GRIP_URL='…'"), "GRIP_URL='…' GRIP_VERIFY_KEY='…'", "A=", 1)
	origin = n.start(t, keys+public, "listening on :8080")
	if strings.Contains(origin.log.String(), "WARNING") {
		t.Errorf("with these variables the demo's origin says\n%s", origin.log)
	}
	origin.stop()

	// The other program that the documents print, which copies the package grip.
	n.dir = filepath.Join(filepath.Dir(n.dir), "my-origin")
	for _, b := range blocks(t, "../origin/README.md") {
		if b.lang == "go" {
			os.WriteFile(filepath.Join(n.dir, "main.go"), []byte(b.text), 0o644)
		}
	}
	n.run(t, n.next(t, "cp -r ")+"go get github.com/golang-jwt/jwt/v5; go vet ./...", "")
	origin = n.start(t, "go run .", "")
	serve = n.start(t, "make -C ../my-app serve ARGS=--skip-build", "Listening on http://127.0.0.1:7676")
	eventually(t, "the origin listens", func() bool { return listens("localhost:3000") })
	events = n.start(t, "curl -sN http://localhost:7676/events", "")
	n.publishUntil(t, "curl -sfX POST http://localhost:7676/publish && echo published", "published", events, "hello")
	n.run(t, "curl -s http://localhost:3000/events", "Only through the app.")
	serve.stop()
	origin.stop()
	n.next(t, "")
	eventually(t, "all ports are free", func() bool { return !slices.ContainsFunc(ports, listens) })
}

// commands returns the commands in a block. A line that goes on with a command is indented, or begins
// with a brace.
func commands(block string) []string {
	return regexp.MustCompile(`.+\n([ }].*\n)*`).FindAllString(block, -1)
}

// newcomer is somebody who reads the documents and does what they say.
type newcomer struct {
	dir    string  // where the commands run
	blocks []block // those that are still to come
}

// next returns the next block that begins with start. notRun must have the blocks before it.
func (n *newcomer) next(t *testing.T, start string) string {
	t.Helper()
	for i, b := range n.blocks {
		if start != "" && strings.HasPrefix(b.text, start) {
			n.blocks = n.blocks[i+1:]
			return b.text
		}
		listed := false
		for key := range notRun {
			listed = listed || key == b.path || strings.HasPrefix(b.text, key)
		}
		if !listed {
			t.Errorf("%s: nothing runs this: run it here, or list it in notRun, with the reason:\n%s", b.path, b.text)
		}
	}
	if start != "" {
		t.Fatalf("the documents have no block %q, or have it before one that this test runs first", start)
	}
	return ""
}

// start runs a script until the test ends at the latest. It waits until the script prints what
// matches the pattern.
func (n *newcomer) start(t *testing.T, script, pattern string) *program {
	t.Helper()
	t.Log("$ " + strings.TrimSpace(script))
	// The README has another command for those who have no websocat.
	const websocat = `command -v websocat >/dev/null || websocat() { npx --yes wscat@6.1.0 -c "$@"; }` + "\n"
	values := strings.NewReplacer("{service-id}", "ID", "{api-token}", "TOKEN",
		"https://www.example.com/publish", "http://localhost:3000/publish")
	running := start(t, &logBuffer{}, n.dir, nil, "sh", "-ec", websocat+values.Replace(script))
	running.wait(t, pattern)
	return running
}

// run runs a script to its end. It must print what matches the pattern. A newcomer presses Enter at
// each question.
func (n *newcomer) run(t *testing.T, script, pattern string) {
	t.Helper()
	running := n.start(t, script, pattern)
	io.WriteString(running.in, strings.Repeat("\n", 10))
	running.in.Close()
	if err := running.end(t); err != nil {
		t.Fatalf("%v:\n%s", err, running.log)
	}
}

// publishUntil runs a script that publishes, and that prints what matches answer, until the client
// has printed what matches the pattern.
func (n *newcomer) publishUntil(t *testing.T, script, answer string, client *program, pattern string) {
	t.Helper()
	eventually(t, client.String()+" prints "+pattern, func() bool {
		n.run(t, script, answer)
		return client.log.find(regexp.MustCompile(pattern))
	})
}
