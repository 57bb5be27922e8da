package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// notRun says why TestReadme does not run some of the READMEs' shell commands, by how the command begins or
// by the section.
var notRun = map[string]string{
	"## Deploy":           "needs an account at Fastly; TestDeploy runs the commands with a stand-in for the API",
	"go -C testdata test": "it is how this test runs",
	"go -C testdata run":  "the demo runs the same origin",
	"make demo ORIGIN=":   "TestLive runs it",
	"export GRIP_URL='https://api.fastly.com/service/{service-id}?key={api-token}&verify-iss=fastly:{service-id}&verify-key=": "TestLive has such a value",
	"make bench": "TestBench runs it, for less time",
	"make load":  "takes minutes; TestFaults does the same with fewer connections",
}

const readmePath = "../../README.md"

// ownReadme reports whether README.md is the kit's. In a project that was made from the kit, it may be the project's.
func ownReadme() bool {
	readme, _ := os.ReadFile(readmePath)
	return strings.HasPrefix(string(readme), "# Fanout forward: ")
}

// readmes are the kit's READMEs but for the one at the top.
func readmes(t *testing.T) (found []string) {
	t.Helper()
	for _, pattern := range []string{"../*.md", "../*/README.md", "../origins/*/README.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	return found
}

// TestLinks checks that what the READMEs link to in the project is there, the headings too.
func TestLinks(t *testing.T) {
	paths := readmes(t)
	if ownReadme() {
		paths = append(paths, readmePath)
	}
	link := regexp.MustCompile(`\]\(([^)\s#:]*)(?:#([^)\s]*))?\)`) // without those to other sites, which have a colon
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	punctuation := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(content), -1) {
			to := filepath.Join(filepath.Dir(path), match[1])
			if match[1] == "" {
				to = path
			}
			linked, err := os.ReadFile(to)
			if err != nil {
				t.Errorf("%s links to %s: %v", path, match[0], err)
			}
			anchors := []string{""}
			for _, h := range heading.FindAllStringSubmatch(string(linked), -1) {
				anchors = append(anchors, strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
			}
			if !slices.Contains(anchors, match[2]) {
				t.Errorf("%s links to %s: there is no such heading", path, match[0])
			}
		}
	}
}

// TestReadme does what the READMEs say, in the order of the one at the top, as a newcomer would, and on the ports
// that it names. It runs every shell command that notRun does not list.
func TestReadme(t *testing.T) {
	needsDefault(t)
	if !ownReadme() {
		t.Skip("README.md is this project's own: it has another title than the kit's")
	}
	t.Parallel()
	n := &newcomer{dir: t.TempDir(), commands: commands(t, readmePath)}
	m, err := local.ReadManifest("../..")
	if err != nil {
		t.Fatal(err)
	}
	ports := append(m.Addresses(), local.DefaultAddr, m.Origin)
	if err := local.CheckFree(t.Context(), ports...); err != nil {
		skipOrFail(t, "the README's commands are NOT TESTED, as they need ports that are in use: %v", err)
	}

	// Whoever has the tools starts here.
	env, err := exec.Command("make", "-s", "-C", "../..", "env").Output()
	if err != nil {
		t.Fatal(err)
	}
	create := n.next(t, "mkdir ") + n.next(t, "fastly compute init")
	n.typed = strings.Repeat("\n", 10) // whoever creates a project may press Enter at each question
	n.run(t, string(env)+create)
	n.dir = filepath.Join(n.dir, "my-app")
	origin := n.start(t, n.next(t, "go -C testdata run ./origin"))
	origin.out.wait(t, "listening on", origin.Process, 4*patience)
	serve := n.start(t, string(env)+n.next(t, "fastly compute serve"))
	if _, err := serve.WaitForListener(t.Context(), local.DefaultAddr); err != nil {
		t.Fatalf("%v\n%s", err, tail(serve.out.String(), 20))
	}
	n.run(t, n.next(t, "curl -d hello http://localhost:7676/publish"))
	serve.Stop()
	origin.Stop()

	n.dir = filepath.Dir(n.dir)
	n.run(t, n.next(t, "git clone ")+n.next(t, "cd "))
	n.dir = filepath.Join(n.dir, kitName)
	demo := n.start(t, n.next(t, "make demo"))
	demo.out.wait(t, invitation, demo.Process, 8*patience)
	events := n.start(t, n.next(t, "curl -N http://localhost:7676/events"))
	events.out.wait(t, "(?m)^event: start$", events.Process, patience)
	socket := n.start(t, websocketClient(t, n.next(t, "websocat ")))
	publish := n.next(t, "curl -d hello ")
	const live = `"text":"hello"`
	for limit := time.After(4 * patience); !strings.Contains(socket.out.String(), live); {
		n.run(t, publish) // again, until the WebSocket is there to get it
		select {
		case <-socket.Done():
			t.Fatalf("the WebSocket ended: %v\n%s", socket.Err(), socket.out)
		case <-limit:
			t.Fatalf("the WebSocket gets nothing of what is published, but\n%s", socket.out)
		case <-time.After(300 * time.Millisecond):
		}
	}
	events.out.wait(t, live, events.Process, patience)
	io.WriteString(socket.in, "typed\n")
	socket.out.wait(t, `(?m)^(> )*typed$`, socket.Process, patience)
	n.run(t, n.next(t, `eval "$(make -s env)"`)+"fastly version\n")
	publish = n.next(t, "curl http://localhost:5561/publish/ -d '{")
	for !strings.Contains(publish, "}'\n") { // the command has several lines
		publish, n.commands = publish+n.commands[0].text, n.commands[1:]
	}
	n.run(t, publish)
	events.out.wait(t, "(?m)data: hello$", events.Process, patience)
	socket.out.wait(t, `(?m)^(> )*hello$`, socket.Process, patience)
	n.echo(t, "curl http://localhost:7676/echo", true)
	n.echo(t, "curl -X POST http://localhost:7676/echo", false)
	demo.Stop()
	clone := n.dir
	n.next(t, "") // all that is left is in notRun

	n.commands = nil
	for _, path := range readmes(t) {
		n.commands = append(n.commands, commands(t, path)...)
	}
	origin = n.start(t, n.next(t, "export GRIP_URL='https://api.fastly.com/service/{service-id}?key={api-token}&verify-iss=fastly:{service-id}'")+
		n.next(t, "export GRIP_VERIFY_KEY=")+"exec "+clone+"/testdata/bin/origin\n")
	origin.out.wait(t, `listening on .*, publishing to https://api\.fastly\.com/service/`, origin.Process, patience)
	if strings.Contains(origin.out.String(), "WARNING") {
		t.Errorf("with these variables the demo's origin says\n%s", origin.out)
	}
	origin.Stop()
	n.next(t, "")
	waitFree(t, ports...)
}

// newcomer is who reads the README, and does what it says.
type newcomer struct {
	dir      string  // where the commands run
	typed    string  // what is typed while they do
	commands []block // each of one line; those that are still to come
}

// commands returns the lines of a README's shell blocks.
func commands(t *testing.T, path string) (commands []block) {
	t.Helper()
	for _, b := range blocks(t, path) {
		if b.lang != "sh" {
			continue // TestRecipes has Go; the others show what is no command
		}
		for command := range strings.Lines(b.text) {
			b.line++
			b.text = strings.ReplaceAll(command, "https://github.com/{owner}/"+kitName, kitURL)
			commands = append(commands, b)
		}
	}
	return commands
}

// next returns the next command of the README that begins so. With "" it goes to the end. The commands before it must
// be in notRun.
func (n *newcomer) next(t *testing.T, start string) string {
	t.Helper()
	for i, c := range n.commands {
		if start != "" && strings.HasPrefix(c.text, start) {
			n.commands = n.commands[i+1:]
			return c.text
		}
		listed := notRun["## "+c.section] != ""
		for beginning := range notRun {
			listed = listed || strings.HasPrefix(c.text, beginning)
		}
		if !listed {
			t.Errorf("%s:%d: nothing runs this command: run it in TestReadme, or list it in notRun, with the reason:\n%s", c.path, c.line, c.text)
		}
	}
	if start != "" {
		t.Fatalf("the READMEs have no command %q, or have it before one that this test runs first", start)
	}
	return ""
}

// session is a terminal in which something runs.
type session struct {
	*local.Process
	in  io.Writer
	out *logBuffer
}

// shell returns a command that runs the script.
func (n *newcomer) shell(t *testing.T, script string) *exec.Cmd {
	t.Log("$ " + strings.TrimSpace(script))
	cmd := exec.Command("sh", "-ec", strings.NewReplacer("{service-id}", "ID", "{api-token}", "TOKEN").Replace(script))
	cmd.Dir = n.dir
	return cmd
}

// start runs the script until the test ends at the latest.
func (n *newcomer) start(t *testing.T, script string) *session {
	t.Helper()
	cmd := n.shell(t, script)
	s := &session{out: &logBuffer{}}
	cmd.Stdout, cmd.Stderr = s.out, s.out
	var err error
	if s.in, err = cmd.StdinPipe(); err == nil {
		s.Process, err = local.Start(cmd)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// run runs the script to its end, and returns what it prints.
func (n *newcomer) run(t *testing.T, script string) string {
	t.Helper()
	cmd := n.shell(t, script)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(n.typed), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, &stderr)
	}
	return string(out)
}

// echo runs a request to /echo, and checks whether it was handed off.
func (n *newcomer) echo(t *testing.T, script string, viaFanout bool) {
	t.Helper()
	if out := n.run(t, script); !strings.Contains(out, fmt.Sprintf(`"viaFanout": %t`, viaFanout)) {
		t.Errorf("want viaFanout %t, got\n%s", viaFanout, out)
	}
}

// websocketClient returns the command, or where there is no websocat the one that the README gives instead.
func websocketClient(t *testing.T, command string) string {
	t.Helper()
	if _, err := exec.LookPath("websocat"); err == nil {
		return command
	}
	content, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile("`(npx .*?)`").FindSubmatch(content)
	if match == nil {
		t.Fatal("README.md no longer says what to use without websocat")
	}
	if _, err := exec.LookPath("npx"); err != nil {
		t.Fatal("there is neither websocat nor npx (https://nodejs.org/): install one of them")
	}
	return string(match[1]) + "\n"
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

// blocks returns the blocks of a README.
func blocks(t *testing.T, path string) (blocks []block) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b := block{path: path}
	inside, number := false, 0
	for line := range strings.Lines(string(content)) {
		number++
		trimmed := strings.TrimSpace(line)
		lang, fence := strings.CutPrefix(trimmed, "```")
		level, heading, _ := strings.Cut(trimmed, " ")
		switch {
		case fence && inside:
			blocks = append(blocks, b)
			inside = false
		case fence:
			b.lang, b.line, b.text, inside = lang, number, "", true
		case inside:
			b.text += line
		case level == "##":
			b.section = heading
		case trimmed != "":
			b.intro = trimmed
		}
	}
	return blocks
}
