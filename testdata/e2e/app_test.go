package e2e

import (
	"strconv"
	"testing"
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
		{"requests", testRequests}, {"handoffs", testHandoffs}, {"cut upload", testCutUpload},
		{"smuggling", testSmuggling}, {"own answers", testOwnAnswers},
		{"responses", testResponses}, {"sandbox ends", testSandboxEnds}, {"origin fails", testOriginFails},
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

// startApp runs the project's app until the test ends.
func startApp(t testing.TB, p *project) *app {
	t.Helper()
	a := &app{p, startServer(t, p.origin), startServer(t, loopback(p.proxyPort))}
	p.serveAlone(t, "--local-pushpin-proxy-port", strconv.Itoa(p.proxyPort))
	a.origin.drain() // Viceroy sends a request when it starts
	return a
}
