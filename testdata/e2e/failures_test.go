package e2e

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/mod/semver"

	"compute-starter-kit-go-fanout-forward/testdata/handoffs"
)

// TestFailures makes the origin fail in different ways, for requests that are forwarded. The client gets the right
// status, and learns nothing about the origin's address. The log has the cause. Viceroy does not tell the app that an
// error was a timeout, so a timeout here gives a 502. TestSendFailed tests the 504, which production gives.
func TestFailures(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	setBackend(t, p, "first_byte_timeout_ms", 500)
	origin := startRawOrigin(t, p.Origin)
	p.serve(t)

	never := func(conn net.Conn) { io.Copy(io.Discard, conn) } // until Viceroy gives up
	tests := []struct {
		name   string
		answer func(net.Conn)
		status string
	}{
		{"no response", func(net.Conn) {}, "502 Bad Gateway"},
		{"reset", func(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0) }, "502 Bad Gateway"},
		{"nonsense", func(conn net.Conn) { io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n") }, "502 Bad Gateway"},
		{"half a status line", func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 20") }, "502 Bad Gateway"},
		{"no response in time", never, "502 Bad Gateway"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			origin.expectFunc(t.Name(), tt.answer)
			checkFailure(t, p, t.Name(), tt.status)
			p.waitForLog(t, `send to backend "origin"`)
		})
	}
	t.Run("then a response", func(t *testing.T) {
		origin.expect(t.Name(), "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		if got := p.roundTrip(t, postFor(t, t.Name())); !strings.HasPrefix(got, "HTTP/1.1 204 ") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("refused", func(t *testing.T) {
		origin.l.Close()
		checkFailure(t, p, "refused", "502 Bad Gateway")
	})
}

// TestNoBackend runs the app with a service that has no backend with this name.
func TestNoBackend(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.edit(t, "fastly.toml", "[local_server.backends.origin]", "[local_server.backends.other]")
	p.serve(t)
	checkFailure(t, p, "none", "500 Internal Server Error")
	p.waitForLog(t, `send to backend "origin": backend not found; if there is none, to make it: fastly backend create --name=origin `)
}

// TestNoFanout runs the app with a service on which Fanout is not enabled.
func TestNoFanout(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	setLocalServer(t, p, func(server map[string]any) { server["pushpin"].(map[string]any)["enable"] = false })
	p.serve(t)
	row := find(t, handoffs.Fanout, func(handoffs.Row) bool { return true })
	got := p.roundTrip(t, row.Method+" "+row.Target+" HTTP/1.1\r\nHost: example.com\r\n"+headOf(row)+"Connection: Upgrade, close\r\n\r\n")
	if version, err := exec.Command(tools.Viceroy, "--version").Output(); strings.HasPrefix(got, "HTTP/1.1 500 ") &&
		semver.Compare("v"+strings.TrimPrefix(strings.TrimSpace(string(version)), "viceroy "), "v0.21.0") < 0 {
		t.Skipf("%s (%v) does not tell the app that Fanout is not enabled, but answers by itself", version, err)
	}
	if !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "Service Unavailable\n") {
		t.Errorf("got %q, want a plain 503", got)
	}
	p.waitForLog(t, "; to enable Fanout: fastly products --enable=fanout")
}

func checkFailure(t *testing.T, p *project, id, status string) {
	t.Helper()
	got := strings.ToLower(p.roundTrip(t, postFor(t, id)))
	_, text, _ := strings.Cut(status, " ")
	for _, want := range []string{"http/1.1 " + status + "\r\n", "\r\ncache-control: no-store\r\n", "\r\ncontent-type: text/plain", "\r\n" + text + "\n\r\n"} {
		if !strings.Contains(got, strings.ToLower(want)) {
			t.Errorf("got %q, want it to have %q", got, want)
		}
	}
	for _, internal := range []string{"localhost", "127.0.0.1", "origin", "goroutine", "sdk"} {
		if strings.Contains(got, internal) {
			t.Errorf("got %q, which has the internal word %q", got, internal)
		}
	}
}
