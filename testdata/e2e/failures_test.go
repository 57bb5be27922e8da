package e2e

import (
	"strings"
	"testing"
)

// The origin fails in different ways. The client gets a plain status and learns nothing about the
// origin. The log has one line with the cause. Viceroy does not tell the app that an error was a
// timeout; TestFailures in main_test.go tests the 504.
func (a *app) testOriginFails(t *testing.T) {
	const otherProtocol = "HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
	for _, answer := range []string{"", otherProtocol} {
		a.origin.answer(answer)
		a.log.skip()
		a.checkFailure(t, "POST", "502 Bad Gateway")
		a.waitForLog(t, `POST "/": send to backend "origin": `)
	}
}

// There is no backend with this name, and Fanout is not enabled.
func TestNotConfigured(t *testing.T) {
	t.Parallel()
	needsDefault(t)
	p := newProject(t)
	p.edit(t, "fastly.toml", "[local_server.backends.origin]", "[local_server.backends.other]")
	p.serveAlone(t)
	p.checkFailure(t, "POST", "500 Internal Server Error")
	p.waitForLog(t, "FASTLY_SERVICE_VERSION: 0")
	p.waitForLog(t, "; to create the backend: fastly service backend create --name=origin ")

	resp := p.exchange(t, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if strings.HasPrefix(resp.line, "HTTP/1.1 500 ") {
		t.Skip("before version 0.21, Viceroy does not tell the app that Fanout is not enabled")
	}
	p.checkFailure(t, "GET", "503 Service Unavailable")
	p.waitForLog(t, "; to enable Fanout: fastly products --enable=fanout")
}

// checkFailure checks that a request gets only this status and its text.
func (p *project) checkFailure(t testing.TB, method, status string) {
	t.Helper()
	resp := p.exchange(t, method+" / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n")
	_, text, _ := strings.Cut(status, " ")
	if resp.line != "HTTP/1.1 "+status || resp.body != text+"\n" {
		t.Errorf("got %+v, want a plain %s", resp, status)
	}
}
