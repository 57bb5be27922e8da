package e2e

import (
	"bufio"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

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

const postHead = "POST / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n"

// A response streams: the client gets the first bytes before the origin sends the rest. It does
// not pass through the sandbox: the rest arrives although the sandbox has ended.
func testSandboxEnds(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for first, rest := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst":                  "later",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n": "5\r\nlater\r\n0\r\n\r\n",
	} {
		ended := make(chan struct{})
		a.origin.answers <- func(conn net.Conn) {
			io.WriteString(conn, first)
			<-ended
			io.WriteString(conn, rest)
		}
		a.log.skip()
		r := bufio.NewReader(a.send(t, postHead+"Content-Length: 0\r\n\r\n"))
		readUntil(t, r, "first")
		// Viceroy logs this when the sandbox ends, after it has waited for another request.
		a.waitForLog(t, "request completed using ")
		close(ended)
		readUntil(t, r, rest)
		a.origin.arrived(t)
	}
}

// An upload streams: the origin gets the first bytes before the client sends the rest. If the
// client then leaves, the upload never looks whole to the origin.
func testCutUpload(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for _, body := range []string{"5\r\nfirst\r\n", "ff\r\nfirst"} {
		conn := a.send(t, postHead+"Transfer-Encoding: chunked\r\n\r\n"+body)
		select {
		case <-a.origin.began:
		case <-time.After(patience):
			t.Fatal("no part of the body arrives before the client sends the rest")
		}
		conn.Close()
		if req := a.origin.arrived(t); req.err == nil {
			t.Errorf("to the origin, this upload looks whole: %+v", req)
		}
	}
	// Viceroy waits for the whole of a body with Content-Length, so nothing arrives.
	a.send(t, postHead+"Content-Length: 100\r\n\r\nfirst").Close()
	a.check(t, a.origin, request{sent: "POST /next HTTP/1.1\n\n"})
}

// readUntil reads up to the text.
func readUntil(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	var got strings.Builder
	for !strings.HasSuffix(got.String(), text) {
		b, err := r.ReadByte()
		if err != nil {
			t.Fatalf("after %q: %v; want %q", &got, err, text)
		}
		got.WriteByte(b)
	}
}
