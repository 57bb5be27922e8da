package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
)

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
	readUntil(t, r, "first")
	// Viceroy logs this when a sandbox ends, after it has waited for another request.
	a.waitForLog(t, "request completed using ")
	close(ended)
	readUntil(t, r, "later")
}

// Several clients send many requests at the same time, each on its own connection, which stays
// open. Each gets the answers to its own requests. A sandbox must not mix two requests.
func (a *app) testOwnAnswers(t *testing.T) {
	var clients []*bufio.Reader
	for client := range 8 {
		requests := ""
		for i := range 25 {
			requests += fmt.Sprintf("POST / HTTP/1.1\r\nHost: origin.example\r\n"+
				"X-Own: %d-%d\r\nContent-Length: 0\r\n\r\n", client, i)
		}
		clients = append(clients, bufio.NewReader(a.send(t, requests)))
	}
	for client, r := range clients {
		for i := range 25 {
			own := fmt.Sprintf("%d-%d", client, i)
			resp, err := readResponse(r, "POST")
			if err != nil || resp.line != "HTTP/1.1 200 OK" || resp.body != own {
				t.Fatalf("%s got %+v, %v", own, resp, err)
			}
		}
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
