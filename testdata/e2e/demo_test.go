package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestDemo runs `make demo`, tries what it prints, and ends it in each way in which a person can.
func TestDemo(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	demo := p.make(t, "demo")
	demo.wait(t, invitation)
	t.Run("page", func(t *testing.T) {
		if got := p.fetch(t, "GET", "/", ""); !strings.Contains(got.body, "<h1>Fanout, live</h1>") {
			t.Errorf("the page is %+v", got)
		}
		for page, want := range map[string]int{p.base: 200, "http://localhost" + p.addr[len("127.0.0.1"):]: 200, "https://example.com": 403} {
			if got := p.fetch(t, "POST", "/publish", "hello", "Origin", page); got.status != want {
				t.Errorf("a page of %s published and got status %d, want %d", page, got.status, want)
			}
		}
	})
	t.Run("ports taken", func(t *testing.T) {
		out, err := exec.Command("make", "-C", p.dir, "demo", "ADDR="+p.addr).CombinedOutput()
		want := []string{"other demo", "sudo service pushpin stop", "ADDR=", "publish_port"}
		for _, addr := range p.addrs() {
			want = append(want, addr[len("127.0.0.1:"):])
		}
		for _, want := range want {
			if err == nil || !strings.Contains(string(out), want) {
				t.Errorf("a second demo does not say %q: %v\n%s", want, err, out)
			}
		}
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		p.checkEnd(t, demo, func() { syscall.Kill(-demo.Process.Pid, syscall.SIGINT) }) // to the group, as a terminal does
		if !strings.Contains(p.log.String(), "\ndemo: stopping\n") {
			t.Error("make demo does not say that it stops")
		}
	})
	t.Run("the terminal is closed", func(t *testing.T) {
		demo := p.make(t, "demo", "ARGS=--skip-build")
		demo.wait(t, invitation)
		p.checkEnd(t, demo, func() { syscall.Kill(-demo.Process.Pid, syscall.SIGHUP) })
	})
	t.Run("kill", func(t *testing.T) {
		demo := p.make(t, "demo", "ARGS=--skip-build")
		demo.wait(t, invitation)
		p.checkEnd(t, demo, func() { sh(t, ".", `pkill -TERM -g "$1" -x origin`, strconv.Itoa(demo.Process.Pid)) })
	})
	t.Run("serve", func(t *testing.T) {
		p.make(t, "serve", "ARGS=--skip-build").wait(t, "Listening on http://"+p.addr)
	})
	t.Run("Ctrl-C while it builds", func(t *testing.T) {
		p.write(t, "slow.go", "package main\n")
		demo := p.make(t, "demo")
		demo.wait(t, "Building package|Running .*build")
		p.checkEnd(t, demo, func() { syscall.Kill(-demo.Process.Pid, syscall.SIGINT) })
	})
}

// invitation is the last line that `make demo` prints when it is ready.
const invitation = "Press Ctrl-C here to stop everything"

// make runs make in the project until the test ends. All its programs have their temporary files in
// one directory, so that checkEnd can find them.
func (p *project) make(t *testing.T, args ...string) *program {
	t.Helper()
	cmd := exec.Command("make", append(args, "ADDR="+p.addr)...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "TMPDIR="+p.tempDir(t))
	return start(t, p.log, cmd)
}

func (p *project) tempDir(t *testing.T) string {
	dir := filepath.Join(os.TempDir(), strconv.Itoa(p.publishPort))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// addrs are all addresses at which the app, its origin and Pushpin listen.
func (p *project) addrs() []string {
	return slices.Concat([]string{p.addr, p.origin, loopback(p.proxyPort)}, addrs(p.publishPort, 4))
}

// checkEnd ends the demo, and checks that nothing is left of it.
func (p *project) checkEnd(t *testing.T, demo *program, end func()) {
	t.Helper()
	end()
	demo.end(t)
	eventually(t, "all ports are free", func() bool { return !slices.ContainsFunc(p.addrs(), taken) })
	eventually(t, "all programs have ended", func() bool {
		return exec.Command("pgrep", "-f", p.tempDir(t)).Run() != nil // it found none
	})
}
