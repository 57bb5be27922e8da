package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
)

// notRun says why TestReadme does not run some of the README's shell commands, by how the command
// begins or by the section.
var notRun = map[string]string{
	"make test":           "it would run this test",
	"fastly compute init": "newProject runs it, for most of the other tests",
	"git clone ":          "TestInit runs it",
	"## Deploy":           "needs an account at Fastly",
	"fastly log-tail":     "needs an account at Fastly",
	"go -C testdata test": "it is how this test runs",
}

// TestReadme does what the README says, in its order, as a newcomer would: in a clone, and on the ports
// that it names. It runs every shell command that notRun does not list.
func TestReadme(t *testing.T) {
	needsDefault(t)
	if readme, _ := os.ReadFile(readmePath); !strings.HasPrefix(string(readme), "# Fanout forward: ") {
		t.Skip("README.md is this project's own: it has another title than the kit's")
	}
	t.Parallel()
	n := &newcomer{dir: filepath.Join(t.TempDir(), "compute-starter-kit-go-fanout-forward")}
	for _, b := range blocks(t, readmePath) {
		if slices.Contains([]string{"go", "http", ""}, b.lang) {
			continue // TestRecipes has Go; the others show what is no command
		}
		for i, command := range strings.Split(strings.TrimSuffix(b.text, "\n"), "\n") {
			n.commands = append(n.commands, block{section: b.section, line: b.line + 1 + i, text: command + "\n"})
		}
	}
	if out, err := exec.Command("git", "clone", "--quiet", kitURL, n.dir).CombinedOutput(); err != nil {
		t.Fatalf("clone the kit: %v\n%s", err, out)
	}
	m, err := chain.ReadManifest(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	ports := append(m.Addresses(), chain.DefaultAddr, m.Origin)
	if err := chain.CheckFree(t.Context(), ports...); err != nil {
		skipOrFail(t, "the README's commands are NOT TESTED, as they need ports that are in use: %v", err)
	}

	demo := n.start(t, n.next(t, "make demo"))
	demo.out.wait(t, invitation, demo.Process, 8*patience)
	events := n.start(t, n.next(t, "curl -N http://localhost:7676/events"))
	events.out.wait(t, "(?m)^event: start$", events.Process, patience)
	socket := n.start(t, websocketClient(t, n.next(t, "websocat ")))
	publish := n.next(t, "curl -d hello ")
	const live = `"text":"hello"`
	for deadline := time.Now().Add(4 * patience); !strings.Contains(socket.out.String(), live); time.Sleep(300 * time.Millisecond) {
		n.run(t, publish) // again, until the WebSocket is there to get it
		if socket.ended() || time.Now().After(deadline) {
			t.Fatalf("the WebSocket gets nothing of what is published, but\n%s", socket.out)
		}
	}
	events.out.wait(t, live, events.Process, patience)
	io.WriteString(socket.in, "typed\n")
	socket.out.wait(t, `(?m)^(> )*typed$`, socket.Process, patience)
	n.run(t, n.next(t, `curl -d '{"items":`))
	events.out.wait(t, "(?m)data: hello$", events.Process, patience)
	socket.out.wait(t, `(?m)^(> )*hello$`, socket.Process, patience)
	n.echo(t, n.next(t, "curl http://localhost:7676/echo"), true)
	n.echo(t, n.next(t, "curl -X POST http://localhost:7676/echo"), false)
	demo.ctrlC(t)

	origin := n.start(t, "exec testdata/bin/origin\n")
	origin.out.wait(t, "listening on", origin.Process, patience)
	serve := n.start(t, n.next(t, `eval "$(make -s env)"`)+n.next(t, "fastly compute serve"))
	if _, err := serve.WaitForListener(t.Context(), chain.DefaultAddr); err != nil {
		t.Fatalf("%v\n%s", err, serve.out)
	}
	n.echo(t, "curl http://localhost:7676/echo", true)
	serve.Stop()
	origin.Stop()

	filledIn := strings.NewReplacer("{service-id}", "ID", "{api-token}", "TOKEN").Replace(n.next(t, "export GRIP_URL="))
	origin = n.start(t, filledIn+n.next(t, "export GRIP_VERIFY_KEY=")+"exec testdata/bin/origin\n")
	origin.out.wait(t, `listening on .*, publishing to https://api\.fastly\.com/service/`, origin.Process, patience)
	if strings.Contains(origin.out.String(), "WARNING") {
		t.Errorf("with these variables the demo's origin says\n%s", origin.out)
	}
	origin.Stop()

	n.next(t, "") // all that is left is in notRun
	waitFree(t, ports...)
}

// newcomer is who reads the README, and does what it says.
type newcomer struct {
	dir      string  // the clone
	commands []block // each of one line; those that are still to come
}

// next returns the next command of the README that begins so, or that is the last for "". The ones
// before it must be in notRun.
func (n *newcomer) next(t *testing.T, start string) string {
	t.Helper()
	i := len(n.commands)
	if start != "" {
		if i = slices.IndexFunc(n.commands, func(c block) bool { return strings.HasPrefix(c.text, start) }); i < 0 {
			t.Fatalf("README.md has no command %q, or has it before one that this test runs first", start)
		}
	}
	for _, c := range n.commands[:i] {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(notRun)), func(listed string) bool {
			return strings.HasPrefix(c.text, listed) || "## "+c.section == listed
		}) {
			t.Errorf("README.md:%d: nothing runs this command: run it in TestReadme, or list it in notRun, with the reason:\n%s", c.line, c.text)
		}
	}
	if start == "" {
		return ""
	}
	command := n.commands[i].text
	n.commands = n.commands[i+1:]
	return command
}

// session is a terminal in which something runs.
type session struct {
	*chain.Process
	in  io.Writer
	out *logBuffer
}

// shell returns a command that runs the script in the clone, with nothing of the make or the variables
// that this test may run under.
func (n *newcomer) shell(t *testing.T, script string) *exec.Cmd {
	t.Log("$ " + strings.TrimSpace(script))
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = n.dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"ADDR", "ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "GRIP_URL", "GRIP_VERIFY_KEY"}, name)
	})
	return cmd
}

// start runs the script until the test ends at the latest.
func (n *newcomer) start(t *testing.T, script string) *session {
	t.Helper()
	cmd := n.shell(t, script)
	s := &session{out: &logBuffer{}}
	cmd.Stdout, cmd.Stderr = s.out, s.out
	var err error
	if s.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if s.Process, err = chain.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func (s *session) ended() bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

// ctrlC ends what runs as a person does.
func (s *session) ctrlC(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-s.Pid(), syscall.SIGINT); err != nil { // to the group, as a terminal does
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatalf("it goes on after a Ctrl-C:\n%s", s.out)
	}
}

// run runs the script to its end, and returns what it prints.
func (n *newcomer) run(t *testing.T, script string) string {
	t.Helper()
	cmd := n.shell(t, script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, &stderr)
	}
	return string(out)
}

// echo runs a request to /echo, and checks which door it took.
func (n *newcomer) echo(t *testing.T, script string, viaFanout bool) {
	t.Helper()
	var arrived struct{ ViaFanout *bool }
	out := n.run(t, script)
	if err := json.Unmarshal([]byte(out), &arrived); err != nil || arrived.ViaFanout == nil || *arrived.ViaFanout != viaFanout {
		t.Errorf("%v; want viaFanout %t, got\n%s", err, viaFanout, out)
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
	match := regexp.MustCompile("Without \\[websocat\\]\\(.*?\\): `(.*?)`").FindSubmatch(content)
	if match == nil {
		t.Fatal("README.md no longer says what to use without websocat")
	}
	program, _, _ := strings.Cut(string(match[1]), " ")
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("there is no websocat, and no %s either (https://nodejs.org/): install one of them", program)
	}
	return string(match[1]) + "\n"
}

// block is a fenced block of a README.
type block struct {
	lang    string
	section string // the heading of level two that it is below
	heading string // the heading that it is below, of whatever level
	intro   string // the line before it that is not empty
	line    int
	text    string
}

const readmePath = "../../README.md"

// blocks returns the blocks of a README.
func blocks(t *testing.T, path string) (blocks []block) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b block
	inside := false
	for i, line := range strings.SplitAfter(string(content), "\n") {
		lang, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		level, heading, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case fence && inside:
			blocks = append(blocks, b)
			inside = false
		case fence:
			b.lang, b.line, b.text, inside = lang, i+1, "", true
		case inside:
			b.text += line
		case strings.Trim(level, "#") == "" && level != "":
			b.heading = heading
			if level == "##" {
				b.section = heading
			}
		case strings.TrimSpace(line) != "":
			b.intro = strings.TrimSpace(line)
		}
	}
	return blocks
}
