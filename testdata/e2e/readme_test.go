package e2e

import (
	"cmp"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// notRun says which of the READMEs' shell commands TestReadme does not run, and why. A key is the
// beginning of the command, or its section.
var notRun = map[string]string{
	"Deploy":              "needs an account at Fastly; TestDeploy runs the commands with a stand-in for the API",
	"go -C testdata test": "it is how this test runs",
	"go -C testdata run":  "the demo runs the same origin",
	"make demo ORIGIN=":   "TestLive runs it",
	"export GRIP_URL=":    "that of another origin: TestLive has such a value",
	"make bench":          "TestBench runs it, for less time",
	"make load":           "takes minutes; TestFaults does the same with fewer connections",
}

const readmePath = "../../README.md"

// ownReadme reports whether README.md is the kit's. In a user's project, it may be the project's.
func ownReadme() bool {
	readme, _ := os.ReadFile(readmePath)
	return strings.HasPrefix(string(readme), "# Fanout forward: ")
}

// readmes are the kit's READMEs, first the one at the top.
func readmes() (paths []string) {
	for _, pattern := range []string{readmePath, "../../SECURITY.md", "../*.md", "../*/README.md", "../origins/*/README.md"} {
		found, _ := filepath.Glob(pattern) // the patterns are not malformed
		paths = append(paths, found...)
	}
	return paths
}

// TestLinks checks that what the READMEs link to in the project is there, the headings too.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s#:]*)(?:#([^)\s]*))?\)`) // without those to other sites, which have a colon
	punctuation := regexp.MustCompile(`[^\p{L}\p{N}\n# _-]`)
	for _, path := range readmes() {
		if path == readmePath && !ownReadme() {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(content), -1) {
			linked, err := os.ReadFile(filepath.Join(filepath.Dir(path), cmp.Or(match[1], filepath.Base(path))))
			anchors := strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(string(linked)), ""), " ", "-")
			if err != nil || match[2] != "" && !strings.Contains(anchors, "#-"+match[2]+"\n") {
				t.Errorf("%s links to %s: there is no such file or heading; %v", path, match[0], err)
			}
		}
	}
}

// TestReadme does what the READMEs say, in the order of the one at the top, as a newcomer would, and
// on the ports that it names. It runs every shell command that notRun does not list.
func TestReadme(t *testing.T) {
	needsDefault(t)
	if !ownReadme() {
		t.Skip("README.md is this project's own: it has another title than the kit's")
	}
	t.Parallel()
	m, err := local.ReadManifest("../..")
	if err != nil {
		t.Fatal(err)
	}
	ports := append(m.Addresses(), local.DefaultAddr, m.Origin)
	if err := local.CheckFree(t.Context(), ports...); err != nil {
		skipOrFail(t, "the README's commands are NOT TESTED, as they need ports that are in use: %v", err)
	}
	n := &newcomer{dir: t.TempDir()}
	// A line that goes on with a command is indented, or begins with a brace.
	command := regexp.MustCompile(`.+\n([ }].*\n)*`)
	for _, b := range blocks(t, readmes()...) {
		for _, b.text = range command.FindAllString(b.text, -1) {
			if b.lang == "sh" { // TestRecipes tests the Go blocks; the others are not commands
				n.commands = append(n.commands, b)
			}
		}
	}
	n.commands = append(n.commands, block{text: "(end)"})

	// Whoever has the tools starts here.
	kit, _ := filepath.Abs("../..")
	tools := `eval "$(make -s -C ` + local.ShellQuote(kit) + " env)\"\n"
	n.run(t, "", tools+n.next(t, "mkdir ")+n.next(t, "fastly compute init"))
	n.dir = filepath.Join(n.dir, "my-app")
	origin := n.start(t, "listening on", n.next(t, "go -C testdata run ./origin"))
	serve := n.start(t, "Listening on http://"+local.DefaultAddr, tools+n.next(t, "fastly compute serve"))
	n.run(t, `"text": "hello"`, n.next(t, "curl -d hello http://localhost:7676/publish"))
	serve.Stop()
	origin.Stop()

	n.dir = filepath.Dir(n.dir)
	n.run(t, "", n.next(t, "git clone ")+n.next(t, "cd "))
	n.dir = filepath.Join(n.dir, kitName)
	demo := n.start(t, invitation, n.next(t, "make demo"))
	events := n.start(t, "(?m)^event: start$", n.next(t, "curl -N http://localhost:7676/events"))
	websocket := n.next(t, "websocat ")
	if _, err := exec.LookPath("websocat"); err != nil { // the README gives another command for this case
		readme, _ := os.ReadFile(readmePath)
		websocket = string(regexp.MustCompile("npx [^`]*").Find(readme))
	}
	socket, publish := n.start(t, "", websocket), n.next(t, "curl -d hello ")
	for try := 0; try < 100 && !strings.Contains(socket.String(), `"text":"hello"`); try++ {
		n.run(t, `"text": "hello"`, publish) // again, until the WebSocket is there to get it
		time.Sleep(300 * time.Millisecond)
	}
	socket.wait(t, `"text":"hello"`)
	events.wait(t, `"text":"hello"`)
	io.WriteString(socket.in, "typed\n")
	socket.wait(t, `(?m)^(> )*typed$`)
	n.run(t, "Fastly CLI version", n.next(t, `eval "$(make -s env)"`)+"fastly version\n")
	n.run(t, "Published", n.next(t, "curl http://localhost:5561/publish/ -d '{"))
	events.wait(t, "(?m)data: hello$")
	socket.wait(t, `(?m)^(> )*hello$`)
	n.run(t, `"viaFanout": true`, "curl http://localhost:7676/echo")
	n.run(t, `"viaFanout": false`, "curl -X POST http://localhost:7676/echo")
	demo.Stop()

	origin = n.start(t, `listening on .*, publishing to https://api\.fastly\.com/service/`,
		n.next(t, "export GRIP_URL=")+n.next(t, "export GRIP_VERIFY_KEY=")+"exec testdata/bin/origin\n")
	if strings.Contains(origin.String(), "WARNING") {
		t.Errorf("with these variables the demo's origin says\n%s", origin)
	}
	origin.Stop()
	n.next(t, "(end)")
	waitFree(t, ports...)
}

// newcomer is somebody who reads the READMEs and does what they say.
type newcomer struct {
	dir      string  // where the commands run
	commands []block // those that are still to come
}

// next returns the next command of the READMEs that begins with start. The commands before it must be in
// notRun.
func (n *newcomer) next(t *testing.T, start string) string {
	t.Helper()
	for i, c := range n.commands {
		if strings.HasPrefix(c.text, start) {
			n.commands = n.commands[i+1:]
			return c.text
		}
		listed := false
		for beginning := range notRun {
			listed = listed || c.section == beginning || strings.HasPrefix(c.text, beginning)
		}
		if !listed {
			t.Errorf("%s:%d: nothing runs this command: run it here, or list it in notRun, with the reason:\n%s", c.path, c.line, c.text)
		}
	}
	t.Fatalf("the READMEs have no command %q, or have it before one that this test runs first", start)
	return ""
}

// session is a terminal in which something runs.
type session struct {
	*local.Process
	logBuffer
	in io.Writer
}

func (s *session) wait(t *testing.T, pattern string) {
	t.Helper()
	s.logBuffer.wait(t, pattern, s.Process, 4*patience)
}

// shell returns a command that runs the script.
func (n *newcomer) shell(t *testing.T, script string) *exec.Cmd {
	t.Log("$ " + strings.TrimSpace(script))
	values := strings.NewReplacer("https://github.com/{owner}/"+kitName, kitURL, "{service-id}", "ID", "{api-token}", "TOKEN")
	cmd := exec.Command("sh", "-ec", values.Replace(script))
	cmd.Dir = n.dir
	return cmd
}

// start runs the script until the test ends at the latest. It waits until the script prints what
// matches the pattern.
func (n *newcomer) start(t *testing.T, pattern, script string) *session {
	t.Helper()
	cmd, s := n.shell(t, script), &session{}
	s.in, _ = cmd.StdinPipe()
	var err error
	if s.Process, err = local.Start(cmd, &s.logBuffer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	s.wait(t, pattern)
	return s
}

// run runs the script to its end. It must print the text want. A newcomer presses Enter at each
// question.
func (n *newcomer) run(t *testing.T, want, script string) {
	t.Helper()
	cmd := n.shell(t, script)
	cmd.Stdin = strings.NewReader(strings.Repeat("\n", 10))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
		t.Fatalf("%v; want %q, got\n%s", err, want, out)
	}
}

// block is a fenced block of a README.
type block struct {
	path    string // of the README
	lang    string
	section string // the heading of level two that it is under
	intro   string // the line before it that is not empty
	line    int
	text    string
}

// fenced matches a heading of level two, or the line before a fenced block and the block.
var fenced = regexp.MustCompile("(?m)^## (.*)$|(?:^(.*)\n+)?^ *```(.*)\n((?:.*\n)*?) *```$")

// blocks returns the blocks of these READMEs.
func blocks(t *testing.T, paths ...string) (blocks []block) {
	t.Helper()
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		section := ""
		for _, at := range fenced.FindAllSubmatchIndex(content, -1) {
			group := func(n int) string { return string(content[max(0, at[2*n]):max(0, at[2*n+1])]) }
			if at[2] >= 0 {
				section = group(1)
				continue
			}
			line := strings.Count(string(content[:at[8]]), "\n")
			blocks = append(blocks, block{path, group(3), section, strings.TrimSpace(group(2)), line, group(4)})
		}
	}
	return blocks
}
