package e2e

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

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
