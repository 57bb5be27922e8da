package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// rawOrigin is an origin at the level of bytes. It shows each request just as it arrived, which
// net/http's server would not (it refuses /%zz, for one), and answers with just the bytes that the
// test wants, malformed ones too.
type rawOrigin struct {
	l net.Listener
	// began gets the X-Test of each request with a chunked body when the first of it has arrived.
	began chan string
	mu    sync.Mutex
	by    map[string]exchange // by the header X-Test
}

// exchange is what a test expects of the origin: one request, and what to answer.
type exchange struct {
	answer  func(net.Conn)
	arrived chan rawRequest
}

type rawRequest struct {
	method, target string
	header         textproto.MIMEHeader
	body           string
}

// localGrip has the key that the CLI has Pushpin sign with.
var localGrip = func() *grip.Config {
	c, err := grip.ParseURL(chain.Manifest{}.GripURL(), "")
	if err != nil {
		panic(err)
	}
	return c
}()

// viaFanout reports whether the request has Pushpin's signature, which the CLI has it make.
func (r rawRequest) viaFanout() bool {
	return localGrip.Verify(&http.Request{Header: http.Header(r.header)}) == nil
}

func startRawOrigin(t *testing.T, addr string) *rawOrigin {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	o := &rawOrigin{l: l, began: make(chan string, 100), by: map[string]exchange{}}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { o.serve(t, conn) })
		}
	})
	return o
}

// expect has the origin answer the one request with the header X-Test: id, with a response whose
// bytes are given, and returns where that request will arrive.
func (o *rawOrigin) expect(id, response string) <-chan rawRequest {
	return o.expectFunc(id, func(conn net.Conn) { io.WriteString(conn, response) })
}

func (o *rawOrigin) expectFunc(id string, answer func(net.Conn)) <-chan rawRequest {
	e := exchange{answer, make(chan rawRequest, 1)}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.by[id] = e
	return e.arrived
}

// serve answers one request and closes the connection.
func (o *rawOrigin) serve(t *testing.T, conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	req, err := readRequest(bufio.NewReader(conn), o.began)
	if err != nil {
		return // Viceroy's look at whether the backend is up, or a client that left
	}
	id := req.header.Get("X-Test")
	o.mu.Lock()
	e, ok := o.by[id]
	delete(o.by, id)
	o.mu.Unlock()
	if !ok {
		if id != "" && req.header.Get("Content-Type") != grip.EventsType { // what comes after an accepted OPEN
			t.Errorf("the origin got an unexpected request: %+v", req)
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	e.arrived <- req
	e.answer(conn)
}

func readRequest(r *bufio.Reader, began chan<- string) (rawRequest, error) {
	text := textproto.NewReader(r)
	line, err := text.ReadLine()
	if err != nil {
		return rawRequest{}, err
	}
	method, rest, _ := strings.Cut(line, " ")
	target, _, ok := strings.Cut(rest, " HTTP/1.")
	if !ok {
		return rawRequest{}, fmt.Errorf("request line %q", line)
	}
	header, err := text.ReadMIMEHeader()
	if err != nil {
		return rawRequest{}, err
	}
	var body io.Reader = strings.NewReader("")
	if header.Get("Transfer-Encoding") != "" {
		chunks := bufio.NewReader(httputil.NewChunkedReader(r))
		if _, err := chunks.Peek(1); err == nil {
			began <- header.Get("X-Test")
		}
		body = chunks
	} else if n, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64); err == nil {
		body = io.LimitReader(r, n)
	}
	content, err := io.ReadAll(body)
	return rawRequest{method, target, header, string(content)}, err
}

// await returns the request that arrives, or fails the test.
func await(t *testing.T, arrived <-chan rawRequest) rawRequest {
	t.Helper()
	select {
	case req := <-arrived:
		return req
	case <-time.After(patience):
		t.Fatal("no request arrived at the origin")
		return rawRequest{}
	}
}

// dial opens a connection to the app, for a request at the level of bytes.
func (p *project) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// roundTrip sends the bytes of a request, and returns the bytes of the response, until the app
// closes the connection.
func (p *project) roundTrip(t *testing.T, request string) string {
	t.Helper()
	conn := p.dial(t)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("read the response: %v; got %q", err, response)
	}
	return string(response)
}
