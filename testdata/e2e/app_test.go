package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// app is a project's app in Viceroy, without Pushpin and the Fastly CLI. It forwards to the server origin, and hands
// off to the server fanout, which stands where Pushpin would.
type app struct {
	*project
	origin, fanout *server
}

// serveAlone runs the app of a project that the test has changed.
func serveAlone(t *testing.T, p *project) *app {
	t.Helper()
	p.run(t, p.dir, tools.Fastly, "compute", "build", "--non-interactive", "--metadata-disable")
	a, stop := startApp(t, p)
	t.Cleanup(stop)
	return a
}

// startApp runs the project's built app until stop is called.
func startApp(t *testing.T, p *project) (a *app, stop func()) {
	t.Helper()
	a = &app{p, startServer(t, p.Origin), startServer(t, loopback(p.ProxyPort))}
	viceroy := p.startViceroy(t, "--local-pushpin-proxy-port", strconv.Itoa(p.ProxyPort))
	a.origin.drain()
	return a, func() {
		viceroy.Stop()
		a.origin.Close()
		a.fanout.Close()
	}
}

// startViceroy runs the project's built app in Viceroy.
func (p *project) startViceroy(t *testing.T, args ...string) *local.Process {
	t.Helper()
	args = append([]string{"-v", "-C", "fastly.toml", "--addr", p.addr, "bin/main.wasm"}, args...)
	cmd := exec.Command(tools.Viceroy, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.log, p.log
	viceroy, err := local.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := viceroy.WaitForListener(t.Context(), p.addr); err != nil {
		viceroy.Stop()
		t.Fatal(err)
	}
	return viceroy
}

// drain forgets the requests that have arrived. Viceroy sends one when it starts.
func (s *server) drain() {
	for len(s.requests) > 0 {
		<-s.requests
	}
}

// shared is this project's app, unchanged. It runs until all tests have ended.
var shared struct {
	sync.Mutex // the test that uses the app holds it
	*app
}

// sharedApp returns the unchanged app, which many tests use, one after another.
func sharedApp(t *testing.T) *app {
	t.Helper()
	shared.Lock()
	t.Cleanup(shared.Unlock)
	if shared.app == nil {
		dir, err := os.MkdirTemp("", "shared")
		if err != nil {
			t.Fatal(err)
		}
		p := newProjectIn(t, dir)
		setBackend(t, p, "first_byte_timeout_ms", 5000)
		shared.app, _ = startApp(t, p) // TestMain stops it
	}
	t.Cleanup(func() { shared.report(t) })
	shared.origin.drain()
	shared.fanout.drain()
	return shared.app
}
