package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strings"
	"testing"
	"time"
)

const postHead = "POST / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n"

// A body does not pass through the sandbox: its second half arrives although the sandbox has ended.
func testSandboxEnds(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for _, framing := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
		ended := make(chan struct{})
		a.origin.answers <- func(conn net.Conn) {
			var body io.WriteCloser = nopCloser{conn}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%s\r\n\r\n", framing)
			if strings.HasSuffix(framing, "chunked") {
				body = httputil.NewChunkedWriter(conn)
			}
			io.WriteString(body, "first")
			<-ended
			io.WriteString(body, "later")
			body.Close()
			io.WriteString(conn, "\r\n")
		}
		a.log.skip()
		conn := a.send(t, postHead+"Content-Length: 0\r\n\r\n")
		// Viceroy logs this when the sandbox ends, which waits for a second request at first.
		a.waitForLog(t, "request completed using ")
		close(ended)
		resp, err := readResponse(bufio.NewReader(conn), "POST")
		if err != nil || resp.err != nil || resp.body != "firstlater" {
			t.Errorf("%s: got %+v, %v", framing, resp, err)
		}
		a.origin.arrived(t)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Each side gets the first bytes of a body before the other side sends the rest.
func testStreaming(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	t.Run("response", func(t *testing.T) {
		clientHasFirst := make(chan struct{})
		a.origin.answers <- func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
			<-clientHasFirst
			io.WriteString(conn, "later")
		}
		r := bufio.NewReader(a.send(t, postHead+"Content-Length: 0\r\n\r\n"))
		readUntil(t, r, "\r\n\r\nfirst")
		close(clientHasFirst)
		readUntil(t, r, "later")
		a.origin.arrived(t)
	})
	t.Run("request", func(t *testing.T) {
		conn := a.sendUntilArrived(t, postHead+"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
		io.WriteString(conn, "5\r\nlater\r\n0\r\n\r\n")
		if req := a.origin.arrived(t); req.body != "firstlater" || req.err != nil {
			t.Errorf("%+v arrived", req)
		}
	})
}

// An upload that is cut short never looks whole to the origin.
func testCutUpload(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for name, leave := range map[string]func(net.Conn){
		"close": func(net.Conn) {},
		"reset": func(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, body := range []string{"5\r\nfirst\r\n", "ff\r\nfirst"} {
				conn := a.sendUntilArrived(t, postHead+"Transfer-Encoding: chunked\r\n\r\n"+body)
				leave(conn)
				conn.Close()
				if req := a.origin.arrived(t); req.err == nil {
					t.Errorf("to the origin, this upload looks whole: %+v", req)
				}
			}
			// Viceroy waits for the whole of a body with Content-Length, so nothing arrives.
			conn := a.send(t, postHead+"Content-Length: 100\r\n\r\nfirst")
			leave(conn)
			conn.Close()
			a.check(t, a.origin, request{sent: "POST /next HTTP/1.1\n\n"})
		})
	}
}

// sendUntilArrived sends the bytes of a request with an incomplete body, and waits until the body begins at the origin.
func (a *app) sendUntilArrived(t *testing.T, request string) net.Conn {
	t.Helper()
	for len(a.origin.began) > 0 {
		<-a.origin.began
	}
	conn := a.send(t, request)
	select {
	case <-a.origin.began:
	case <-time.After(patience):
		t.Fatal("no part of the body arrives before the client sends the rest")
	}
	return conn
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
