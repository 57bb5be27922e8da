package e2e

import (
	"cmp"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

const readmePath = "../../README.md"

// ownReadme reports whether README.md is the kit's. In a user's project, it may be the project's.
func ownReadme() bool {
	readme, _ := os.ReadFile(readmePath)
	return strings.HasPrefix(string(readme), "# Fanout forward: ")
}

// documents are the kit's documents, first the README at the top.
func documents() (paths []string) {
	for _, pattern := range []string{readmePath, "../../SECURITY.md", "../*.md", "../*/README.md", "../origins/*/README.md"} {
		found, _ := filepath.Glob(pattern)
		paths = append(paths, found...)
	}
	if !ownReadme() {
		paths = slices.DeleteFunc(paths, func(path string) bool { return path == readmePath })
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
var fenced = regexp.MustCompile("(?m)^## (.*)$|(?:^(.*)\n+)?^( *)```(.*)\n((?:.*\n)*?) *```$")

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
				continue
			}
			text := strings.ReplaceAll("\n"+m[5], "\n"+m[3], "\n")[1:] // without the indent of a list
			blocks = append(blocks, block{path, m[4], section, strings.TrimSpace(m[2]), text})
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
	"export FASTLY_API_TOKEN=":      "TestDeploy publishes, with a stand-in for Fastly's API",
	"fastly service backend create": "TestDeploy",
	"curl -H \"Fastly-Key":          "needs an account at Fastly",
	"rm -r testdata":                "TestMinimal",
	"make test":                     "it is how this test runs",
	"eval \"$(testdata/tools.sh)\"\ngo -C testdata test": "it is how this test runs",
	"make live":                     "TestLive runs these tests locally",
	"make bench":                    "takes minutes",
	"go -C testdata tool benchstat": "compares two runs of make bench",
	"make load":                     "TestLoad does the same with fewer connections",
	"go -C testdata run ./origin\n": "TestLive runs the demo's origin",
	"../origins/README.md":          "the README has the same commands",
	"../origins/node/README.md":     "TestOrigins",
	"../origins/python/README.md":   "TestOrigins",
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
		if taken(addr) {
			t.Fatalf("the README's commands need %s, which is taken: stop what listens there", addr)
		}
	}
	if _, err := template(); err != nil {
		t.Fatal(err)
	}
	n := &newcomer{dir: filepath.Join(t.TempDir(), kitName)}
	sh(t, ".", `cp -R "$1" "$2"`, filepath.Join(os.TempDir(), "kit"), n.dir)
	for _, b := range blocks(t, documents()...) {
		if b.lang == "sh" {
			n.blocks = append(n.blocks, b)
		}
	}

	demo := n.start(t, n.next(t, "make demo"), invitation)
	publish := n.next(t, "curl -d hello http://localhost:7676/publish")
	n.run(t, publish, `"text": "hello"`)
	clients := commands(n.next(t, "curl -N http://localhost:7676/events"))
	events := n.start(t, clients[0], "(?m)^event: start$")
	socket := n.start(t, webSocketClient(clients[1]), "")
	eventually(t, "the WebSocket gets hello", func() bool {
		n.run(t, publish, `"text": "hello"`)
		return socket.log.find(regexp.MustCompile(`"text":"hello"`))
	})
	events.wait(t, `"text":"hello"`)
	io.WriteString(socket.in, "typed\n")
	socket.wait(t, `(?m)^(> )*typed$`)
	demo.stop()

	n.run(t, n.next(t, `eval "$(testdata/tools.sh)"`), "")
	n.dir = filepath.Join(filepath.Dir(n.dir), "my-app")
	for _, file := range []string{"main.go", "testdata/handoffs.txt", "testdata/page.png"} {
		if _, err := os.Stat(filepath.Join(n.dir, file)); err != nil {
			t.Fatal(err)
		}
	}

	programs := commands(n.next(t, "go -C testdata run ./origins/go"))
	origin := n.start(t, programs[0], "")
	serve := n.start(t, programs[1], "Listening on http://127.0.0.1:7676")
	eventually(t, "the origin listens", func() bool { return listens("localhost:3000") })
	var connected []*terminal
	for _, command := range commands(n.next(t, "curl -N http://localhost:7676/events")) {
		connected = append(connected, n.start(t, webSocketClient(command), ""))
	}
	publish = n.next(t, "curl http://localhost:5561/publish/")
	for _, client := range connected {
		eventually(t, client.String()+" prints hello", func() bool {
			n.run(t, publish, "Published")
			return client.log.find(regexp.MustCompile("hello"))
		})
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
	n.run(t, "mkdir ../copy; cd ../copy; go mod init example.com/copy\n"+n.next(t, "cp -r ")+
		"go get github.com/golang-jwt/jwt/v5; go vet ./grip", "")
	n.next(t, "")
	eventually(t, "all ports are free", func() bool { return !slices.ContainsFunc(ports, taken) })
}

// commands returns the commands in a block. A line that goes on with a command is indented, or begins
// with a brace.
func commands(block string) []string {
	return regexp.MustCompile(`.+\n([ }].*\n)*`).FindAllString(block, -1)
}

// kitName is the name of the kit's directory.
const kitName = "compute-starter-kit-go-fanout-forward"

// webSocketClient returns the command, or the README's other one if websocat is not installed.
func webSocketClient(command string) string {
	_, err := exec.LookPath("websocat")
	return regexp.MustCompile(`websocat( ws:\S+)`).ReplaceAllStringFunc(command, func(found string) string {
		if err == nil {
			return found
		}
		return "npx --yes wscat@6.1.0 -c" + strings.TrimPrefix(found, "websocat")
	})
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
		listed := notRun[b.path] != ""
		for beginning := range notRun {
			listed = listed || strings.HasPrefix(b.text, beginning)
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

func (n *newcomer) shell(t *testing.T, script string) *exec.Cmd {
	t.Log("$ " + strings.TrimSpace(script))
	values := strings.NewReplacer("{service-id}", "ID", "{api-token}", "TOKEN",
		"https://www.example.com/publish", "http://localhost:3000/publish")
	cmd := exec.Command("sh", "-ec", values.Replace(script))
	cmd.Dir = n.dir
	return cmd
}

// terminal is a terminal in which something runs.
type terminal struct {
	*program
	in io.Writer
}

// start runs a script until the test ends at the latest. It waits until the script prints what
// matches the pattern.
func (n *newcomer) start(t *testing.T, script, pattern string) *terminal {
	t.Helper()
	cmd := n.shell(t, script)
	in, _ := cmd.StdinPipe()
	running := &terminal{start(t, &logBuffer{}, cmd), in}
	running.wait(t, pattern)
	return running
}

// run runs a script to its end. It must print the text want. A newcomer presses Enter at each
// question.
func (n *newcomer) run(t *testing.T, script, want string) {
	t.Helper()
	cmd := n.shell(t, script)
	cmd.Stdin = strings.NewReader(strings.Repeat("\n", 10))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
		t.Fatalf("%v; want %q, got\n%s", err, want, out)
	}
}

// The README prints the origin in Go as it is, and the local key as grip has it.
func TestReadmePrograms(t *testing.T) {
	if !ownReadme() {
		t.Skip("README.md is this project's own")
	}
	program, err := os.ReadFile("../origins/go/main.go")
	if err != nil {
		t.Fatal(err)
	}
	printed := slices.ContainsFunc(blocks(t, readmePath), func(b block) bool { return b.text == string(program) })
	keys, err := os.ReadFile("../origin/README.md")
	if err != nil || !printed || !strings.Contains(string(keys), grip.LocalKey) {
		t.Errorf("README.md prints testdata/origins/go/main.go: %t; origin/README.md has the local key: %t",
			printed, strings.Contains(string(keys), grip.LocalKey))
	}
}
