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

// TestDemo runs `make demo`, and ends it in each way in which a person can. Nothing is left behind.
func TestDemo(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	ports := append(addrs(p.publishPort, 4), p.addr, p.origin, loopback(p.proxyPort))
	slowBuild := fmt.Sprint("sleep ", p.publishPort) // takes hours
	runs := func(command string) bool { return exec.Command("pgrep", "-f", command).Run() == nil }
	run := func() *program {
		return start(t, p.log, p.dir, nil, "make", "demo", "ADDR="+p.addr)
	}
	// end sends a signal to the process group, as a terminal does, or to a program in it.
	end := func(demo *program, signal string) {
		t.Helper()
		sh(t, ".", `pkill -g "$1" `+signal, strconv.Itoa(demo.Process.Pid))
		demo.end(t)
		eventually(t, signal+" ends all programs", func() bool {
			return !runs(p.addr) && !runs(slowBuild) && !slices.ContainsFunc(ports, listens)
		})
	}

	demo := run()
	demo.wait(t, invitation)
	page := strings.Replace(p.base, "127.0.0.1", "localhost", 1)
	if got := p.fetch(t, "POST", "/publish", "hello", "Origin", page); got.status != 200 {
		t.Errorf("the page cannot publish: %+v", got)
	}
	second := sh(t, p.dir, `! make demo ADDR="$1"`, p.addr)
	for _, addr := range ports {
		if _, port, _ := strings.Cut(addr, ":"); !strings.Contains(second, port) {
			t.Errorf("a second demo does not name port %s:\n%s", port, second)
		}
	}
	end(demo, "-INT")

	// While it builds: a Ctrl-C, the end of the terminal, and kill.
	p.set(t, "scripts.build", slowBuild)
	for _, signal := range []string{"-INT", "-HUP", "-TERM -x origin"} {
		demo := run()
		eventually(t, "it builds", func() bool { return runs(slowBuild) })
		end(demo, signal)
	}
}
