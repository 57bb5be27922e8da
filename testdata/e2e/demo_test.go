package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// invitation is the last line that `make demo` prints when it is ready.
const invitation = "Press Ctrl-C here to stop everything"

// TestDemo runs `make demo`, tries what it prints, and ends it in each way in which a person can.
func TestDemo(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	demo := p.startDemo(t)
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
		for _, addr := range p.addrs() {
			if _, port, _ := strings.Cut(addr, ":"); !strings.Contains(out, port) {
				t.Errorf("a second demo does not say that port %s is taken:\n%s", port, out)
			}
		}
	})
	t.Run("Ctrl-C", func(t *testing.T) { p.checkEnd(t, demo, "-INT") })

	// While it builds: a Ctrl-C, the end of the terminal, and kill.
	p.set(t, "scripts.build", p.slowBuild())
	for _, signal := range []string{"-INT", "-HUP", "-TERM -x origin"} {
		t.Run(signal, func(t *testing.T) {
			demo := p.startDemo(t)
			eventually(t, "it builds", func() bool { return runs(p.slowBuild()) })
			p.checkEnd(t, demo, signal)
		})
	}
}

func (p *project) startDemo(t *testing.T) *program {
	t.Helper()
	return start(t, p.log, p.dir, nil, "make", "demo", "ADDR="+p.addr)
}

// slowBuild is a command of this project alone that takes hours.
func (p *project) slowBuild() string { return fmt.Sprint("sleep ", p.publishPort) }

// runs reports whether a program runs that has the text in its command.
func runs(text string) bool { return exec.Command("pgrep", "-f", text).Run() == nil }

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
	eventually(t, "all programs have ended", func() bool { return !runs(p.addr) && !runs(p.slowBuild()) })
}
