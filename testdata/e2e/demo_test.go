package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestDemo runs `make demo`, tries what it prints, and ends it in each way in which a person can.
func TestDemo(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	demo := p.make(t, "demo")
	demo.wait(t, invitation)
	t.Run("page", func(t *testing.T) { // at each name of this machine, it may publish
		for _, page := range []string{p.base, strings.Replace(p.base, "127.0.0.1", "localhost", 1)} {
			if got := p.fetch(t, "POST", "/publish", "hello", "Origin", page); got.status != 200 {
				t.Errorf("for a page of %s, publishing is answered with %+v", page, got)
			}
		}
	})
	t.Run("ports taken", func(t *testing.T) {
		out := sh(t, p.dir, `! make demo ADDR="$1"`, p.addr)
		wants := []string{"other demo", "sudo service pushpin stop", "ADDR=", "publish_port"}
		for _, want := range append(wants, p.addrs()...) {
			if want = strings.TrimPrefix(want, "127.0.0.1:"); !strings.Contains(out, want) {
				t.Errorf("a second demo does not say %q:\n%s", want, out)
			}
		}
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		p.checkEnd(t, demo, "-INT")
		if !strings.Contains(p.log.String(), "\ndemo: stopping\n") {
			t.Error("make demo does not say that it stops")
		}
	})
	for name, signal := range map[string]string{
		"the terminal is closed": "-HUP",
		"kill":                   "-TERM -x origin",
	} {
		t.Run(name, func(t *testing.T) {
			demo := p.make(t, "demo", "ARGS=--skip-build")
			demo.wait(t, invitation)
			p.checkEnd(t, demo, signal)
		})
	}
	t.Run("Ctrl-C while it builds", func(t *testing.T) {
		p.write(t, "slow.go", "package main\n")
		demo := p.make(t, "demo")
		demo.wait(t, "Building package|Running .*build")
		p.checkEnd(t, demo, "-INT")
	})
}

// invitation is the last line that `make demo` prints when it is ready.
const invitation = "Press Ctrl-C here to stop everything"

// make runs make in the project until the test ends. All its programs have their temporary files in
// one directory, so that checkEnd can find them.
func (p *project) make(t *testing.T, args ...string) *program {
	t.Helper()
	os.Mkdir(p.tempDir(), 0o755) // it may be there
	command := append([]string{"make", "ADDR=" + p.addr}, args...)
	return start(t, p.log, p.dir, []string{"TMPDIR=" + p.tempDir()}, command...)
}

func (p *project) tempDir() string {
	return filepath.Join(os.TempDir(), strconv.Itoa(p.publishPort))
}

// addrs are all addresses at which the app, its origin and Pushpin listen.
func (p *project) addrs() []string {
	return append(addrs(p.publishPort, 4), p.addr, p.origin, loopback(p.proxyPort))
}

// checkEnd sends a signal to all of the demo's process group, as a terminal does, or to the programs
// in it that pkill selects. It checks that nothing is left of the demo.
func (p *project) checkEnd(t *testing.T, demo *program, signal string) {
	t.Helper()
	sh(t, ".", `pkill -g "$1" `+signal, strconv.Itoa(demo.Process.Pid))
	demo.end(t)
	eventually(t, "all ports are free", func() bool { return !slices.ContainsFunc(p.addrs(), listens) })
	eventually(t, "all programs have ended", func() bool {
		return exec.Command("pgrep", "-f", p.tempDir()).Run() != nil // it found none
	})
}
