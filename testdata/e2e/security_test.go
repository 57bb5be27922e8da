package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/handoffs"
)

// TestSmuggling sends requests that a proxy and an origin could read differently, with another request hidden in them.
// Then it sends a normal request on the same connection. The app must refuse the first request, or send it on in a form
// with only one meaning. The normal request gets its own answer, or the connection is closed. The hidden request never
// arrives.
// Source: RFC 9112 section 11.2
func TestSmuggling(t *testing.T) {
	t.Parallel()
	app := newAppAlone(t)
	post := forwarded(t)
	const length = "Content-Length: 0\r\n\r\n"
	hidden := headTo(post, "/hidden") + length
	chunkOf := func(body string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body) }
	tests := []struct {
		name, request string
		// twice: by the client's framing, the second request is not hidden, so it may arrive.
		twice bool
	}{
		{name: "length and chunks, the length shorter", request: "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunkOf(hidden)},
		{name: "length and chunks, the length longer", request: fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", len("0\r\n\r\n"+hidden)) + hidden, twice: true},
		{name: "two lengths", request: "Content-Length: 0\r\nContent-Length: 70\r\n\r\n" + hidden},
		{name: "two lengths in one line", request: "Content-Length: 0, 70\r\n\r\n" + hidden},
		{name: "a length with a sign", request: "Content-Length: +0\r\n\r\n" + hidden},
		{name: "a length with a space in it", request: "Content-Length: 0 0\r\n\r\n" + hidden},
		{name: "a length in hexadecimal", request: "Content-Length: 0x0\r\n\r\n" + hidden},
		{name: "a space before the colon", request: "Content-Length : 70\r\n\r\n" + hidden},
		{name: "another coding", request: "Transfer-Encoding: xchunked\r\n\r\n" + chunkOf(hidden)},
		{name: "chunked, and then another coding", request: "Transfer-Encoding: chunked, identity\r\n\r\n" + chunkOf(hidden)},
		{name: "two codings", request: "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunkOf(hidden)},
		{name: "a coding on a folded line", request: "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunkOf(hidden)},
		{name: "a vertical tab before the coding", request: "Transfer-Encoding: \vchunked\r\n\r\n" + chunkOf(hidden)},
		{name: "a chunk size that is none", request: "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + hidden + "\r\n0\r\n\r\n"},
		{name: "a chunk size that overflows", request: "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + hidden + "\r\n0\r\n\r\n"},
		{name: "a negative chunk size", request: "Transfer-Encoding: chunked\r\n\r\n-1\r\n" + hidden + "\r\n0\r\n\r\n"},
		{name: "a chunk that is longer than its size", request: "Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n" + hidden},
		{name: "bare line feeds", request: "Content-Length: 0\n\n" + hidden, twice: true},
		{name: "a bare carriage return in a value", request: "X-A: b\rContent-Length: 70\r\n\r\n" + hidden},
		{name: "a line feed in a value", request: "X-A: b\nContent-Length: 70\r\n\r\n" + hidden},
		{name: "a null byte in a value", request: "X-A: b\x00\r\nContent-Length: 70\r\n\r\n" + hidden},
		{name: "a header line without a name", request: ": x\r\nContent-Length: 70\r\n\r\n" + hidden},
		{name: "a body that a GET does not have", request: fmt.Sprintf("Content-Length: %d\r\n\r\n", len(hidden)) + hidden},
	}
	for _, method := range []string{"POST", "GET"} {
		row, ok := carrier(method)
		if !ok {
			without(t, method)
			continue
		}
		for _, tt := range tests {
			t.Run(method+" "+tt.name, func(t *testing.T) {
				// The origin reads the body that the headers announce. The bytes after it are the next request.
				conn := app.send(t, headTo(row, "/first")+tt.request+headTo(post, "/honest")+"Connection: close\r\n"+length)
				defer conn.Close()
				r := bufio.NewReader(conn)
				var answers []string
				for {
					resp, err := receive(r, "POST")
					if err != nil || resp.err != nil {
						break
					}
					answers = append(answers, resp.status)
				}
				var lines []string
				for done := false; !done; {
					select {
					case req := <-app.origin.requests:
						lines = append(lines, req.line)
					case req := <-app.fanout.requests:
						lines = append(lines, req.line)
					default:
						done = true
					}
				}
				for _, line := range lines {
					if strings.Contains(line, "/hidden") && !tt.twice {
						t.Errorf("the hidden request arrived: %q", lines)
					}
				}
				// 400: the app refused the request. 502: the body was incomplete, and the request to the origin ended too.
				refused := len(answers) > 0 && slices.Contains([]string{"400", "502"}, answers[len(answers)-1])
				if !refused && len(answers) != len(lines) {
					t.Errorf("%d requests arrived, %q, and there were the answers %q", len(lines), lines, answers)
				}
			})
		}
	}
}

// headTo returns the first lines of a request, made from the row, for a target below the row's target.
func headTo(row handoffs.Row, target string) string {
	return row.Method + " " + below(row, target) + " HTTP/1.1\r\nHost: example.com\r\n" + headOf(row)
}

// TestInjection sends targets and values that try to become header lines.
func TestInjection(t *testing.T) {
	t.Parallel()
	app := newAppAlone(t)
	for _, method := range []string{"GET", "POST"} {
		row, ok := carrier(method)
		if !ok {
			without(t, method)
			continue
		}
		for _, target := range []string{"/%0d%0aX-Injected:%201", "/?%0aX-Injected:%201", "/%E5%98%8D%E5%98%8AX-Injected:%201", "/%00"} {
			conn := app.send(t, headTo(row, target)+"X-A: %0d%0aX-Injected: 1\r\nConnection: close\r\n\r\n")
			got, _ := app.arrived(t)
			if got.line != row.Method+" "+below(row, target)+" HTTP/1.1" || strings.Contains(strings.Join(got.headers, "\n"), "\nx-injected:") {
				t.Errorf("%s %s arrived as %+v", method, target, got)
			}
			conn.Close()
		}
	}
	// A response of the origin tries the same with the client.
	app.origin.answers <- "HTTP/1.1 302 Found\r\nLocation: /x%0d%0aSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
	conn := app.send(t, postFor(t, "none"))
	got, err := receive(bufio.NewReader(conn), "POST")
	if err != nil || strings.Contains(strings.Join(got.headers, "\n"), "\nset-cookie:") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestOwnAnswers has many clients at the same time. Each must get the answer to its own request. A sandbox must not mix
// the data of two requests.
func TestOwnAnswers(t *testing.T) {
	t.Parallel()
	row := forwarded(t)
	p := newProject(t)
	listen(t, p.Origin, echoHeaders)
	p.serve(t)

	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			for i := range 25 {
				own := fmt.Sprintf("X-Own-%d: %d-%d", client, client, i)
				conn, err := net.Dial("tcp", p.addr)
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Fprintf(conn, "%s%s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", headTo(row, "/"), own)
				resp, err := receive(bufio.NewReader(conn), "POST")
				conn.Close()
				if err != nil || resp.status != "200" || resp.body != strings.ToLower(own)+"\n" {
					t.Errorf("%s got %+v, %v", own, resp, err)
				}
			}
		})
	}
	clients.Wait()
}

// echoHeaders answers each request with those of its headers whose names begin with X-Own.
func echoHeaders(conn net.Conn) {
	for r := bufio.NewReader(conn); ; {
		req, err := readRequestBytes(r)
		if err != nil {
			return
		}
		var own strings.Builder
		for _, line := range req.headers {
			if strings.HasPrefix(line, "x-own") {
				own.WriteString(line + "\n")
			}
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", own.Len(), &own)
	}
}

// TestDisturbed has clients that disconnect during a request or a response, and an app that panics. Later requests are
// still served, in the same sandboxes or in new ones.
func TestDisturbed(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	withCondition(t, p, "\t\tpanic(\"as asked\")\n")
	origin := startRawOrigin(t, p.Origin)
	p.serve(t)

	served := 0
	serves := func(t *testing.T) {
		t.Helper()
		for range 8 { // more requests than one sandbox serves locally
			served++
			id := fmt.Sprint("served ", served)
			origin.expect(id, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
			if got := p.roundTrip(t, postFor(t, id)); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.HasSuffix(got, "\r\n\r\nok") {
				t.Errorf("got %q", got)
			}
		}
	}
	t.Run("gone before the response", func(t *testing.T) {
		gone := make(chan struct{})
		leave := sync.OnceFunc(func() { close(gone) })
		defer leave() // if the test fails earlier, the origin must not wait forever
		arrived := origin.expectFunc(t.Name(), func(conn net.Conn) {
			<-gone
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		})
		conn := p.dial(t)
		io.WriteString(conn, postFor(t, t.Name()))
		await(t, arrived)
		conn.Close()
		leave()
		serves(t)
	})
	t.Run("gone in the middle of the response", func(t *testing.T) {
		gone := make(chan struct{})
		leave := sync.OnceFunc(func() { close(gone) })
		defer leave() // if the test fails earlier, the origin must not wait forever
		origin.expectFunc(t.Name(), func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\nConnection: close\r\n\r\nbegins")
			<-gone
			conn.Write(make([]byte, 1_000_000))
		})
		conn := p.dial(t)
		io.WriteString(conn, postFor(t, t.Name()))
		if status, err := bufio.NewReader(conn).ReadString('\n'); status != "HTTP/1.1 200 OK\r\n" {
			t.Fatalf("got %q, %v", status, err)
		}
		conn.Close()
		leave()
		serves(t)
	})
	t.Run("gone in the middle of the request", func(t *testing.T) {
		conn := p.dial(t)
		io.WriteString(conn, headTo(forwarded(t), "/")+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		conn.Close()
		serves(t)
	})
	t.Run("panic", func(t *testing.T) {
		if got := p.roundTrip(t, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 500 ") {
			t.Errorf("got %.200q", got)
		}
		p.waitForLog(t, "as asked")
		serves(t)
	})
}
