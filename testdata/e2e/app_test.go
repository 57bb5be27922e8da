package e2e

import (
	"os/exec"
	"strconv"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestApp tests at the level of bytes what this project's app does with requests and responses.
func TestApp(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.set(t, 5000, "local_server", "backends", "origin", "first_byte_timeout_ms")
	a := startApp(t, p)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *app)
	}{
		{"requests", testRequests}, {"handoffs", testHandoffs}, {"responses", testResponses},
		{"sandbox ends", testSandboxEnds}, {"cut upload", testCutUpload}, {"smuggling", testSmuggling},
		{"own answers", testOwnAnswers}, {"origin fails", testOriginFails},
	} {
		a.origin.drain()
		a.fanout.drain()
		t.Run(test.name, func(t *testing.T) { test.run(t, a) })
	}
}

// app is a project's app in Viceroy, without Pushpin and the Fastly CLI. It forwards to the
// server origin, and hands off to the server fanout, which stands where Pushpin would.
type app struct {
	*project
	origin, fanout *server
}

// startApp runs the project's app until the test ends. If the sources have changed, it builds
// the app first.
func startApp(t *testing.T, p *project) *app {
	t.Helper()
	if !p.built() {
		p.run(t, p.dir, tools.Fastly, "compute", "build", "--non-interactive", "--metadata-disable")
	}
	a := &app{p, startServer(t, p.Origin), startServer(t, loopback(p.ProxyPort))}
	p.startViceroy(t, "--local-pushpin-proxy-port", strconv.Itoa(p.ProxyPort))
	a.origin.drain() // Viceroy sends a request when it starts
	return a
}

// startViceroy runs the project's built app in Viceroy until the test ends.
func (p *project) startViceroy(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"-v", "-C", "fastly.toml", "--addr", p.addr, "bin/main.wasm"}, args...)
	cmd := exec.Command(tools.Viceroy, args...)
	cmd.Dir = p.dir
	viceroy, err := local.Start(cmd, p.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(viceroy.Stop)
	if _, err := viceroy.WaitForListener(t.Context(), p.addr); err != nil {
		t.Fatal(err)
	}
}
