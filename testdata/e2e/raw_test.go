package e2e

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rawMessage is a request or a response.
type rawMessage struct {
	line   string // the request line or the status line
	header textproto.MIMEHeader
	body   string // without the framing of chunks
	err    error  // why the body is incomplete, or nil
}

// parse parses a message that is written with bare line feeds in the head, and without the framing
// of chunks.
func parse(text string) rawMessage {
	head, body, _ := strings.Cut(text, "\n\n")
	m, _ := readHead(bufio.NewReader(strings.NewReader(head + "\n\n")))
	m.body = body
	return m
}

// withCRLF returns the message with the line feeds in its head as CRLF.
func withCRLF(message string) string {
	head, body, _ := strings.Cut(message, "\n\n")
	return strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body
}

// readHead reads the first line and the header.
func readHead(r *bufio.Reader) (m rawMessage, err error) {
	text := textproto.NewReader(r)
	if m.line, err = text.ReadLine(); err == nil {
		m.header, err = text.ReadMIMEHeader()
	}
	return m, err
}

// readBody reads the body that the header announces, or to the end of the connection.
func (m *rawMessage) readBody(r *bufio.Reader) {
	var body strings.Builder
	size, err := strconv.ParseInt(m.header.Get("Content-Length"), 10, 64)
	if m.header.Get("Transfer-Encoding") != "" {
		_, m.err = io.Copy(&body, httputil.NewChunkedReader(r))
		r.Discard(len("\r\n")) // after the last chunk; there are no trailers
	} else if err == nil {
		_, m.err = io.CopyN(&body, r, size)
	} else {
		_, m.err = io.Copy(&body, r)
	}
	m.body = body.String()
}

// readResponse reads the response to a request with this method.
func readResponse(r *bufio.Reader, method string) (rawMessage, error) {
	m, err := readHead(r)
	if method != "HEAD" && !regexp.MustCompile(`^HTTP/1\.1 (1..|204|304) `).MatchString(m.line) {
		m.readBody(r)
	}
	return m, err
}

// server is an origin that reads and writes bytes. The server of net/http cannot do that: it
// refuses a target such as /%zz, and answers nothing malformed.
type server struct {
	net.Listener
	requests chan rawMessage     // gets the requests that have arrived
	answers  chan func(net.Conn) // for the next requests; without one the answer is a 200, with an echo
}

// startServer runs a server at addr until the test ends.
func startServer(t testing.TB, addr string) *server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{Listener: l}
	s.requests, s.answers = make(chan rawMessage, 1000), make(chan func(net.Conn), 100)
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			go s.serve(conn)
		}
	}()
	return s
}

// serve reads one request of a connection and answers it.
func (s *server) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	req, err := readHead(r)
	if err != nil {
		return
	}
	if req.header.Get("Content-Length")+req.header.Get("Transfer-Encoding") != "" {
		req.readBody(r)
	}
	s.requests <- req
	if req.err != nil {
		return
	}
	select {
	case answer := <-s.answers:
		answer(conn)
	default: // to a WebSocket's OPEN, this means that it is accepted
		body := cmp.Or(req.body, req.header.Get("X-Own"))
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %s\r\n"+
			"Content-Length: %d\r\n\r\n%s", req.header.Get("Content-Type"), len(body), body)
	}
}

// drain forgets the requests that have arrived, and returns their first lines.
func (s *server) drain() (lines []string) {
	for len(s.requests) > 0 {
		lines = append(lines, (<-s.requests).line)
	}
	return lines
}

// answer makes the server answer the next request with these bytes and close the connection.
func (s *server) answer(response string) {
	s.answers <- func(conn net.Conn) { io.WriteString(conn, response) }
}

// arrived returns the next request that arrives.
func (s *server) arrived(t testing.TB) rawMessage {
	t.Helper()
	eventually(t, "a request arrives", func() bool { return len(s.requests) > 0 })
	return <-s.requests
}

// send writes the bytes of a request to a new connection.
func (p *project) send(t testing.TB, request string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn
}

// exchange sends the bytes of a request to the app on a new connection, and returns the response.
func (p *project) exchange(t testing.TB, request string) rawMessage {
	t.Helper()
	conn := p.send(t, request)
	defer conn.Close()
	method, _, _ := strings.Cut(request, " ")
	resp, err := readResponse(bufio.NewReader(conn), method)
	if err != nil {
		t.Fatalf("%.80q: %v", request, err)
	}
	return resp
}
