package e2e

import (
	"io"
	"net"
	"strings"
	"testing"
)

// The origin fails in different ways, for requests that are forwarded. The client gets a plain
// status and learns nothing about the origin. The log has one line with the cause. Viceroy does
// not tell the app that an error was a timeout, so a timeout gives a 502 here; TestFailures in
// main_test.go tests the 504.
func testOriginFails(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for name, response := range map[string]string{
		"no response":         "",
		"nonsense":            "SSH-2.0-OpenSSH_9.2\r\n",
		"half a status line":  "HTTP/1.1 20",
		"no response in time": "wait",
		"another protocol":    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			a.origin.answers <- func(conn net.Conn) {
				if response == "wait" {
					io.Copy(io.Discard, conn) // until Viceroy gives up
				}
				io.WriteString(conn, response)
			}
			a.log.skip()
			a.checkFailure(t, "502 Bad Gateway")
			a.origin.arrived(t)
			a.waitForLog(t, `POST "/": send to backend "origin": `)
		})
	}
	a.checkResponse(t, "POST", response{sent: "HTTP/1.1 204 No Content\n\n"}) // and then it works
}

// There is no backend with this name, and Fanout is not enabled.
func TestNotConfigured(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.edit(t, "fastly.toml", "[local_server.backends.origin]", "[local_server.backends.other]")
	p.serveAlone(t)
	t.Run("backend", func(t *testing.T) {
		needs(t, "origin", "POST")
		p.checkFailure(t, "500 Internal Server Error")
		p.waitForLog(t, "FASTLY_SERVICE_VERSION: 0")
		p.waitForLog(t, `POST "/": send to backend "origin": backend not found; `+
			"to create the backend: fastly service backend create --name=origin ")
	})
	t.Run("Fanout", func(t *testing.T) {
		needs(t, "fanout", "GET")
		resp := p.exchange(t, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if strings.HasPrefix(resp.line, "HTTP/1.1 500 ") {
			t.Skip("before version 0.21, Viceroy does not tell the app that Fanout is not enabled")
		}
		if resp.line != "HTTP/1.1 503 Service Unavailable" || resp.body != "Service Unavailable\n" {
			t.Errorf("got %+v, want a plain 503", resp)
		}
		p.waitForLog(t, `GET "/": handoff to Fanout, backend "origin": `)
		p.waitForLog(t, "; to enable Fanout: fastly products --enable=fanout")
	})
}

// checkFailure checks that a POST gets only this status, as plain text that is not cached.
func (p *project) checkFailure(t testing.TB, status string) {
	t.Helper()
	resp := p.exchange(t, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n")
	_, text, _ := strings.Cut(status, " ")
	if resp.line != "HTTP/1.1 "+status || resp.body != text+"\n" ||
		resp.header.Get("Cache-Control") != "no-store" ||
		!strings.HasPrefix(resp.header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %+v, want a plain %s", resp, status)
	}
}
