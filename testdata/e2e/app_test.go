package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// app is a project's app. It forwards to the server origin, and hands off to the server fanout, or
// to the real Pushpin if that is nil.
type app struct {
	*project
	origin, fanout *server
}

// TestApp tests at the level of bytes what the app does with requests and responses. The function
// condition takes the place of the condition in main.go, so that GET and HEAD can go both ways.
func TestApp(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write(t, "condition.go", conditionGo)
	p.withCondition(t, "\t\tuseFanout = condition(r)\n")
	a := &app{p, startServer(t, p.origin), startServer(t, loopback(p.proxyPort))}
	p.serveAlone(t, "--local-pushpin-proxy-port", strconv.Itoa(p.proxyPort))

	t.Run("sandbox ends", a.testSandboxEnds) // first: it waits for the end of the only sandbox
	t.Run("requests", a.testRequests)
	t.Run("smuggling", a.testSmuggling)
	t.Run("responses", a.testResponses)
	t.Run("own answers", a.testOwnAnswers)
	t.Run("CPU time", a.testCPUTime)
}

// With this condition, the app hands off what is for fanout.example, and forwards the rest. The
// answers for a WebSocket and for the method get are wrong: the app must not ask about these.
const conditionGo = `package main

import (
	"crypto/rand"
	"time"

	"github.com/fastly/compute-sdk-go/compute"
	"github.com/fastly/compute-sdk-go/fsthttp"
)

var sandbox = rand.Text() // the sandbox's name

func condition(r *fsthttp.Request) bool {
	if limit, err := time.ParseDuration(r.Header.Get("Use")); err == nil {
		for used := time.Duration(0); used < limit; {
			used, _ = compute.GetVCPUTime()
		}
		r.Header.Set("Sandbox", sandbox)
	}
	isWebSocket := r.Header.Get("Sec-WebSocket-Key") != ""
	return (r.Host == "fanout.example" || r.Method == "get") && !isWebSocket
}
`

// A response streams: the client gets the first bytes before the origin sends the rest. It does
// not pass through the sandbox: the rest arrives although the sandbox has ended.
func (a *app) testSandboxEnds(t *testing.T) {
	ended := make(chan struct{})
	a.origin.answers <- func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
		<-ended
		io.WriteString(conn, "later")
	}
	r := bufio.NewReader(a.send(t, "GET / HTTP/1.1\r\nHost: origin.example\r\n\r\n"))
	readHead(r)
	body := make([]byte, 10)
	io.ReadFull(r, body[:5])
	// Viceroy logs this when a sandbox ends, after it has waited for another request.
	a.app.wait(t, "request completed using ")
	close(ended)
	if io.ReadFull(r, body[5:]); string(body) != "firstlater" {
		t.Errorf("the client got %q", body)
	}
}

// Several clients send many requests at the same time. Each gets the answers to its own requests. A
// sandbox must not mix two requests.
func (a *app) testOwnAnswers(t *testing.T) {
	for client := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for i := range 25 {
				own := fmt.Sprintf("%d-%d", client, i)
				if status, got := a.fetch(t, "POST", "/", "", "X-Own", own); status != 200 || got != own {
					t.Errorf("%s got %d, %q", own, status, got)
				}
			}
		})
	}
}

// A sandbox that has used more than 20 ms of CPU time gets no further request. One that has used
// less does.
func (a *app) testCPUTime(t *testing.T) {
	last := ""
	again := func(use string) bool {
		a.origin.drain()
		a.exchange(t, "GET / HTTP/1.1\r\nHost: origin.example\r\nUse: "+use+"\r\n\r\n")
		before := last
		last = a.origin.arrived(t).header.Get("Sandbox")
		return last == before
	}
	for range 10 {
		if again("25ms") {
			t.Fatal("a sandbox that has used 25 ms of CPU time served another request")
		}
	}
	eventually(t, "a sandbox that has used 10 ms of CPU time serves another request",
		func() bool { return again("10ms") })
}

// There is no backend with this name, and Fanout is not enabled.
func TestNotConfigured(t *testing.T) {
	t.Parallel()
	needsDefault(t)
	p := newProject(t)
	p.edit(t, "fastly.toml", "[local_server.backends.origin]", "[local_server.backends.other]")
	p.serveAlone(t)
	p.checkFailure(t, "POST", "500 Internal Server Error", `FASTLY_SERVICE_VERSION: 0\n(?s:.*)`+
		`POST "/": .*; to create the backend: fastly service backend create --name=origin `)
	resp := p.exchange(t, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if strings.HasPrefix(resp.line, "HTTP/1.1 500 ") {
		t.Skip("before version 0.21, Viceroy does not tell the app that Fanout is not enabled")
	}
	p.checkFailure(t, "GET", "503 Service Unavailable",
		`GET "/": .*; to enable Fanout: fastly products --enable=fanout`)
}

// checkFailure checks that a request gets only this status and its text, and that the app logs what
// matches the pattern.
func (p *project) checkFailure(t testing.TB, method, status, logged string) {
	t.Helper()
	resp := p.exchange(t, method+" / HTTP/1.1\r\nHost: origin.example\r\nContent-Length: 0\r\n\r\n")
	_, text, _ := strings.Cut(status, " ")
	if resp.line != "HTTP/1.1 "+status || resp.body != text+"\n" {
		t.Errorf("got %+v, want a plain %s", resp, status)
	}
	p.app.wait(t, logged)
}
