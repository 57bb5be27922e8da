package e2e

import (
	"cmp"
	"io"
	"os"
	"path/filepath"
	"regexp"
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

// TestReadme does what the README says, in its order, as a newcomer would, and on the ports that it
// names. It takes each command and program of the documents, and says which of them it does not run.
func TestReadme(t *testing.T) {
	needsDefault(t)
	if !ownReadme() {
		t.Skip("README.md is this project's own: it has another title than the kit's")
	}
	t.Parallel()
	kit, _ := template(t)
	home := t.TempDir()
	clone := filepath.Join(home, "compute-starter-kit-go-fanout-forward")
	app, own := filepath.Join(home, "my-app"), filepath.Join(home, "my-origin")
	sh(t, home, `cp -R "$1" "$2"; cd "$2"; git init -q; git add --all`, kit, clone)
	n := &newcomer{t: t, dir: clone}
	for _, b := range blocks(t, documents()...) {
		if b.lang == "sh" || b.lang == "go" && b.path != "../recipes.md" {
			n.blocks = append(n.blocks, b)
		}
	}
	n.blocks = append(n.blocks, block{text: "the end"})

	demo := n.start(n.next("make demo"), invitation)
	publish := n.next("curl -d hello http://localhost:7676/publish")
	clients := n.connect(n.next("curl -N http://localhost:7676/events"))
	n.publish(publish, clients)
	io.WriteString(clients[1].in, "typed\n")
	clients[1].wait(t, "(?m)^(> )*typed$")
	demo.stop()
	if left := sh(t, clone, "git ls-files --others --exclude-standard"); left != "" {
		t.Errorf(".gitignore does not have what make demo leaves:\n%s", left)
	}

	// A newcomer presses Enter at each question. The project has the files of the clone, and no others.
	sh(t, clone, "yes '' | {\n"+n.next(`eval "$(testdata/tools.sh)"`)+"}")
	sh(t, app, `diff -r --exclude=.git --exclude=fastly.toml --exclude=go.mod "$1" .`, kit)
	source, _ := os.ReadFile("../origins/go/main.go")
	n.next(string(source))
	n.dir = app
	origin := n.serveOrigin(n.next("mkdir ../my-origin"))
	serve := n.start(n.next("make serve"), "Listening on http://127.0.0.1:7676")
	clients = n.connect(n.next("curl -N http://localhost:7676/events"))
	n.publish(n.next("curl http://localhost:5561/publish/"), clients)
	serve.stop()
	origin.stop()

	n.next("\t\tif r.Header")               // TestRecipes
	n.next("export FASTLY_API_TOKEN=")      // TestDeploy, with a stand-in for Fastly's API
	n.next("fastly service backend create") // TestDeploy
	keys := n.next("export GRIP_URL='https")
	n.next(`curl -H "Fastly-Key`) // needs an account at Fastly
	sh(t, app, n.next("rm -r testdata Makefile .ci .github")+"go test ./...; go vet ./...")

	n.next("make test")                                          // it is how this test runs
	n.next("eval \"$(testdata/tools.sh)\"\ngo -C testdata test") // it is how this test runs
	n.next("make bench")                                         // takes minutes
	n.next("go -C testdata tool benchstat")                      // compares two runs of make bench
	n.next("make load")                                          // TestLoad does the same with fewer connections

	n.next("go -C testdata run ./origin\n") // TestLive
	n.next(keys)
	send := n.next(`curl -H "Authorization`)
	const asAbove = "export GRIP_URL='…' GRIP_VERIFY_KEY='…'"
	values := strings.NewReplacer("{service-id}", "ID", "{api-token}", "TOKEN")
	public := strings.Replace(n.next(asAbove), asAbove, values.Replace(keys), 1)
	n.dir = clone
	origin = n.start(public, "^origin: listening on :8080, publishing to https://api.fastly.com/service/")
	send = strings.Replace(send, "https://www.example.com", "http://localhost:8080", 1)
	if got := sh(t, clone, "PUBLISH_TOKEN='…'\n"+send); !strings.Contains(got, "proxy did not accept") {
		t.Errorf("the demo's origin answers %s", got)
	}
	origin.stop()

	// The origin that copies the package grip runs behind the app alone, without testdata.
	n.dir = own
	copied := n.next("cp -r ")
	os.WriteFile(filepath.Join(own, "main.go"), []byte(n.next("package main\n")), 0o644)
	origin = n.serveOrigin(copied + "go get github.com/golang-jwt/jwt/v5; go vet ./...; go run .")
	n.dir = app
	n.start("fastly compute serve", "Listening on http://127.0.0.1:7676")
	clients = n.connect("curl -sN http://localhost:7676/events")
	n.publish("curl -sfX POST http://localhost:7676/publish", clients)
	if got := sh(t, app, "curl -s http://localhost:3000/events"); got != "Only through the app.\n" {
		t.Errorf("without the app, the origin answers %s", got)
	}

	n.next("curl -N http://localhost:7676/events") // the README has the same commands
	n.next("cd testdata/origins/node")             // TestOrigins
	n.next("cd testdata/origins/python")           // TestOrigins
	n.next("the end")
}

// newcomer is somebody who reads the documents and does what they say.
type newcomer struct {
	t      *testing.T
	dir    string  // where the commands run
	blocks []block // those that are still to come
}

// next returns the next block, which must begin with start.
func (n *newcomer) next(start string) string {
	n.t.Helper()
	b := n.blocks[0]
	if !strings.HasPrefix(b.text, start) {
		n.t.Fatalf("TestReadme expects the block %q of the documents here, and not, from %s,\n%s", start, b.path, b.text)
	}
	n.blocks = n.blocks[1:]
	return b.text
}

// start runs a script until the test ends at the latest. It waits until the script prints what
// matches the pattern.
func (n *newcomer) start(script, pattern string) *program {
	n.t.Helper()
	n.t.Log("$ " + strings.TrimSpace(script))
	running := start(n.t, &logBuffer{}, n.dir, nil, "sh", "-ec", script)
	running.wait(n.t, pattern)
	return running
}

// serveOrigin runs a script that ends with an origin, and waits until that listens.
func (n *newcomer) serveOrigin(script string) *program {
	n.t.Helper()
	origin := n.start(script, "")
	eventually(n.t, "the origin listens", func() bool { return listens("localhost:3000") })
	return origin
}

// connect runs each line of a block as a client.
func (n *newcomer) connect(block string) (clients []*program) {
	// The README has another command for those who have no websocat.
	const websocat = `command -v websocat >/dev/null || websocat() { npx --yes wscat@6.1.0 -c "$@"; }` + "\n"
	for command := range strings.Lines(block) {
		clients = append(clients, n.start(websocat+command, ""))
	}
	return clients
}

// publish runs a script that publishes "hello", until each client has printed that.
func (n *newcomer) publish(script string, clients []*program) {
	n.t.Helper()
	for _, client := range clients {
		eventually(n.t, client.String()+" prints hello", func() bool {
			sh(n.t, n.dir, script)
			return client.log.find(regexp.MustCompile("hello"))
		})
	}
}
