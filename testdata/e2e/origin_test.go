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

// rawOrigin is an origin that reads and writes bytes. It returns each request exactly as it arrived. The server of
// net/http cannot do that; for example, it refuses /%zz. It answers with exactly the bytes of the test, which may be
// malformed.
type rawOrigin struct {
	l net.Listener
	// began gets the X-Test of each request with a chunked body, when the first bytes of the body have arrived.
	began chan string
	mu    sync.Mutex
	by    map[string]exchange // by the header X-Test
}

// exchange is one request that a test expects at the origin, with the answer.
type exchange struct {
	answer  func(net.Conn)
	arrived chan rawRequest
}

type rawRequest struct {
	method, target string
	header         textproto.MIMEHeader
	body           string
}

// localGrip has the key of Pushpin's signatures. The CLI sets this key.
var localGrip = func() *grip.Config {
	c, err := grip.ParseURL(chain.Manifest{}.GripURL(), "")
	if err != nil {
		panic(err)
	}
	return c
}()

// viaFanout reports whether the request has a valid signature of Pushpin.
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

// expect tells the origin to answer one request, the one with the header X-Test: id, with these bytes. The channel gets
// the request when it arrives.
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
		return // Viceroy checks that the backend is up, or a client has disconnected
	}
	id := req.header.Get("X-Test")
	o.mu.Lock()
	e, ok := o.by[id]
	delete(o.by, id)
	o.mu.Unlock()
	if !ok {
		if id != "" && req.header.Get("Content-Type") != grip.EventsType { // these are the events after an accepted OPEN
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

// await returns the request when it arrives, or fails the test.
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

// dial opens a connection to the app, to send the bytes of a request.
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

// roundTrip sends the bytes of a request. It returns the bytes of the response, until the app closes the connection.
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
