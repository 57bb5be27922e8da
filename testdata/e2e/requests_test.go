package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
	"compute-starter-kit-go-fanout-forward/testdata/handoffs"
)

// appAlone runs the app in Viceroy, without Pushpin and the Fastly CLI. The client writes bytes, and two servers
// read them. One server is the origin. The other is in the place of Pushpin, and gets what is handed off.
type appAlone struct {
	*project
	origin, fanout *byteServer
}

func newAppAlone(t *testing.T) *appAlone {
	t.Helper()
	return serveAppAlone(t, newProject(t))
}

func serveAppAlone(t *testing.T, p *project) *appAlone {
	t.Helper()
	app := &appAlone{project: p, origin: newByteServer(t, p.Origin), fanout: newByteServer(t, local(p.ProxyPort))}
	p.run(t, p.dir, tools.Fastly, "compute", "build", "--non-interactive", "--metadata-disable")
	cmd := exec.Command(tools.Viceroy, "-v", "-C", "fastly.toml", "--addr", p.addr,
		"--local-pushpin-proxy-port", strconv.Itoa(p.ProxyPort), "bin/main.wasm")
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.log, p.log
	viceroy, err := chain.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(viceroy.Stop)
	if _, err := viceroy.WaitForListener(t.Context(), p.addr); err != nil {
		t.Fatal(err)
	}
	for len(app.origin.requests) > 0 { // Viceroy sends these to check that the origin is up
		<-app.origin.requests
	}
	return app
}

// requestBytes has the bytes of a request, as they arrived.
type requestBytes struct {
	line    string   // the request line
	headers []string // the header lines
	body    string   // without the chunks
}

// byteServer reads requests, and answers each with the next bytes from answers.
type byteServer struct {
	requests chan requestBytes
	answers  chan string // the next answers; if there is none, the answer is a 200 with the body "ok"
}

func newByteServer(t *testing.T, addr string) *byteServer {
	t.Helper()
	s := &byteServer{requests: make(chan requestBytes, 100), answers: make(chan string, 100)}
	listen(t, addr, s.serve)
	return s
}

// listen accepts connections at addr until the test ends, and calls serve for each.
func listen(t *testing.T, addr string, serve func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
}

// resets, at the end of an answer, makes the server reset the connection after the answer.
const resets = "\x00RESET"

func (s *byteServer) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		req, err := readRequestBytes(r)
		if err != nil {
			return
		}
		s.requests <- req
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		select {
		case answer = <-s.answers:
		default:
		}
		answer, reset := strings.CutSuffix(answer, resets)
		if reset {
			conn.(*net.TCPConn).SetLinger(0)
		}
		if _, err := io.WriteString(conn, answer); err != nil || !strings.Contains(answer, "\r\nContent-Length: 2\r\n") {
			return // other answers end with the connection
		}
	}
}

func readRequestBytes(r *bufio.Reader) (req requestBytes, err error) {
	var chunked bool
	var length int64
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return req, err
		}
		line, ok := strings.CutSuffix(line, "\r\n")
		if !ok {
			return req, errors.New("a bare line feed")
		}
		if line == "" {
			break
		}
		if req.line == "" {
			req.line = line
			continue
		}
		req.headers = append(req.headers, line)
		name, value, _ := strings.Cut(line, ": ")
		switch strings.ToLower(name) {
		case "transfer-encoding":
			chunked = true
		case "content-length":
			if length, err = strconv.ParseInt(value, 10, 64); err != nil {
				return req, err
			}
		}
	}
	body := io.LimitReader(r, length)
	if chunked {
		body = httputil.NewChunkedReader(r)
	}
	content, err := io.ReadAll(body)
	if err == nil && chunked {
		_, err = r.Discard(len("\r\n")) // the line after the last chunk; there are no trailers
	}
	req.body = string(content)
	return req, err
}

// send writes the bytes to the app, on a new connection.
func (app *appAlone) send(t *testing.T, request string) net.Conn {
	t.Helper()
	conn := app.dial(t)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn
}

// arrived returns the next request that arrives, and whether it was handed off.
func (app *appAlone) arrived(t *testing.T) (req requestBytes, fanout bool) {
	t.Helper()
	select {
	case req = <-app.origin.requests:
		return req, false
	case req = <-app.fanout.requests:
		return req, true
	case <-time.After(patience):
		t.Fatal("no request arrived")
		return req, false
	}
}

// TestRequests tests that requests arrive as the client sent them. The platform makes only these changes:
//
//   - Header names are in lower case; they are case-insensitive (RFC 9110 section 5.1). The order of names may change.
//     The lines with the same name keep their order; only this order has a meaning (section 5.3).
//   - Host is the backend's override_host. On a local handoff it is the address of Pushpin.
//   - A handoff has the header Pushpin-Route with the backend's name. A client's Pushpin-Route does not arrive.
//   - A request without a body has Content-Length: 0, because the SDK always sends a length.
//   - A target arrives in origin-form, and * arrives as /. A fragment is removed (RFC 9112 section 3.2).
//   - The sizes of chunks change. Trailers are removed, which is allowed (RFC 9110 section 6.5.1).
//   - Upgrade is removed, unless the request is handed off: it is only for one hop (RFC 9110 section 7.8). Connection may
//     still name it, which has no meaning without it (section 7.6.1).
//   - If there are both Transfer-Encoding and Content-Length, Content-Length is removed (RFC 9112 section 6.3).
func TestRequests(t *testing.T) {
	t.Parallel()
	app := newAppAlone(t)
	long := strings.Repeat("x", 6000)
	binary := make([]byte, 1<<20)
	for i := range binary {
		binary[i] = byte(i * 7)
	}
	type test struct {
		name, line string
		headers    string // without Host
		body       string // as the client sends it
		target     string // the target that arrives, if it is different
		less       string // the header line that does not arrive
		arrives    string // the body that arrives, if it is different
	}
	var tests []test
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE", "QUERY", "M-SEARCH", "BREW", "get", "Post"} {
		tests = append(tests, test{name: "method " + method, line: method + " /"})
	}
	for _, target := range []string{
		"/a%2Fb", "/a%2fb", "//double//slashes", "/dot/./segments/../x", "/?", "/empty?query=", "/a+b?c+d", "/a;b=c?d;e", "/*",
		"/50%off", "/%", "/%zz?%zz", "/caf%C3%A9", "/caf%E9", "/" + long, "/?" + long, "/[x]{y}|'!$&()*,=:@~",
	} {
		for _, method := range []string{"GET", "POST"} {
			tests = append(tests, test{name: fmt.Sprintf("%s %.30s", method, target), line: method + " " + target})
		}
	}
	for _, method := range []string{"GET", "POST"} {
		for name, headers := range map[string]string{
			"repeated":        "X-A: 1\r\nX-B: 2\r\nX-A: 3\r\nX-A: 1\r\n",
			"empty":           "X-Empty:\r\n",
			"bytes":           "X-Latin-1: caf\xe9\r\nX-UTF-8: caf\xc3\xa9\r\n",
			"eighty":          eightyHeaders(),
			"long":            "X-Long: " + long + "\r\n",
			"cookies":         "Cookie: a=1\r\nCookie: b=2; c=3\r\n",
			"connection":      "Connection: X-Named\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\n",
			"te":              "TE: trailers\r\n",
			"range":           "Range: bytes=0-9\r\nIf-Range: \"x\"\r\n",
			"expect":          "Expect: 100-continue\r\n",
			"conditional":     "If-None-Match: \"x\", W/\"y\"\r\nIf-Modified-Since: Mon, 23 Nov 2026 12:00:00 GMT\r\n",
			"forwarded":       "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4;proto=https\r\nX-Forwarded-Proto: https\r\nVia: 1.1 x\r\n",
			"accept-encoding": "Accept-Encoding: gzip, br\r\n",
			"of a proxy":      "Grip-Sig: forged\r\nFastly-FF: x\r\nCDN-Loop: y\r\n",
		} {
			tests = append(tests, test{name: method + " headers: " + name, line: method + " /", headers: headers})
		}
	}
	const upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
	tests = append(tests,
		test{name: "Upgrade with a GET", line: "GET /", headers: upgrade},
		test{name: "Upgrade with a POST", line: "POST /", headers: upgrade},
		test{name: "GET with the client's route", line: "GET /", headers: "Pushpin-Route: other\r\n", less: "pushpin-route: other"},
		test{name: "absolute form", line: "POST http://other.example/x", target: "/x"},
		test{name: "asterisk", line: "OPTIONS *", target: "/"},
		test{name: "fragment", line: "POST /x?y#z", target: "/x?y"},
		test{name: "body of fixed length", line: "POST /", headers: "Content-Length: 5\r\n", body: "hello"},
		test{name: "empty body", line: "POST /", headers: "Content-Length: 0\r\n"},
		test{name: "body of a GET", line: "GET /", headers: "Content-Length: 5\r\n", body: "hello"},
		test{name: "body of a DELETE", line: "DELETE /", headers: "Content-Length: 5\r\n", body: "hello"},
		test{name: "chunked body", line: "POST /", headers: "Transfer-Encoding: chunked\r\n", body: "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", arrives: "abcde"},
		test{name: "chunked body with trailers", line: "POST /", headers: "Trailer: X-T\r\nTransfer-Encoding: chunked\r\n", body: "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", arrives: "abc"},
		test{name: "1 MiB of binary", line: "POST /", headers: "Content-Length: 1048576\r\n", body: string(binary)},
		test{name: "both lengths", line: "POST /", headers: "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", body: "5\r\nabcde\r\n0\r\n\r\n", arrives: "abcde", less: "content-length: 3"},
		test{name: "the same length twice", line: "POST /", headers: "Content-Length: 3\r\nContent-Length: 3\r\n", body: "abc", less: "content-length: 3"},
	)
	for _, tt := range tests {
		method, target, _ := strings.Cut(tt.line, " ")
		row, ok := carrier(method)
		if !ok {
			without(t, method)
			continue
		}
		if slices.ContainsFunc(table, func(row handoffs.Row) bool { return row.Method == method && row.Answered() }) {
			continue // the app answers this method itself
		}
		if method == "POST" {
			method = row.Method
		}
		arrives := cmp.Or(tt.target, target)
		if strings.HasPrefix(target, "/") {
			target, arrives = below(row, target), below(row, arrives)
		} else if row.Target != "/" {
			continue // the changed target would not be the table's request
		}
		t.Run(tt.name, func(t *testing.T) {
			conn := app.send(t, method+" "+target+" HTTP/1.1\r\nHost: example.com\r\n"+headOf(row)+tt.headers+"\r\n"+tt.body)
			defer conn.Close()
			got, fanout := app.arrived(t)

			if want := method + " " + arrives + " HTTP/1.1"; got.line != want {
				t.Errorf("the request line is %.200q, want %.200q", got.line, want)
			}
			less := tt.less
			if strings.Contains(tt.headers, "Upgrade: h2c") && !fanout {
				less = "upgrade: h2c"
			}
			if want := expectedHeaders(headOf(row)+tt.headers, less, fanout, app); !slices.Equal(byName(got.headers), want) {
				t.Errorf("the headers are\n%.3000q, want\n%.3000q", byName(got.headers), want)
			}
			want := tt.body
			if tt.arrives != "" {
				want = tt.arrives
			}
			if got.body != want {
				t.Errorf("the body has %d bytes, %.50q; want %d, %.50q", len(got.body), got.body, len(want), want)
			}
			r := bufio.NewReader(conn)
			response, err := receive(r, method)
			if err == nil && response.status == "100" { // the answer to Expect
				response, err = receive(r, method)
			}
			if err != nil || response.status != "200" {
				t.Errorf("the response is %+v, %v", response, err)
			}
		})
	}
}

// carrier returns a request from the table, from which a test makes its own request. For GET it is handed off. For HEAD
// it may go to either place. For other methods the app forwards it to the origin.
func carrier(method string) (row handoffs.Row, ok bool) {
	switch method {
	case "GET":
		return table.Find(handoffs.Fanout, plain)
	case "HEAD":
		head := func(row handoffs.Row) bool { return row.Method == "HEAD" && !row.Upgrades() }
		if row, ok := table.Find(handoffs.Fanout, head); ok {
			return row, true
		}
		return table.Find(handoffs.Origin, head)
	}
	return table.Find(handoffs.Origin, withBody)
}

// withoutOnce has the tests and methods for which without has reported.
var withoutOnce sync.Map

// without reports that no request with this method is tested. It reports once for each test and method.
func without(t *testing.T, method string) {
	if _, said := withoutOnce.LoadOrStore(t.Name()+method, true); !said {
		t.Run("requests with "+method, func(t *testing.T) {
			t.Skip("testdata/handoffs.txt has no such request that goes to Fanout or the origin")
		})
	}
}

// server returns the server that gets the row's request.
func (app *appAlone) server(row handoffs.Row) *byteServer {
	if row.To == handoffs.Fanout {
		return app.fanout
	}
	return app.origin
}

// CONNECT is for a proxy that the client chooses. The app is no such proxy, so a CONNECT must not arrive anywhere.
func TestConnect(t *testing.T) {
	t.Parallel()
	app := newAppAlone(t)
	conn := app.send(t, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
	if response, _ := io.ReadAll(conn); strings.HasPrefix(string(response), "HTTP/1.1 2") {
		t.Errorf("got %q", response)
	}
	if n := len(app.origin.requests) + len(app.fanout.requests); n > 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// expectedHeaders returns the headers that must arrive, with the platform's changes. less is the line that must not.
func expectedHeaders(sent, less string, fanout bool, app *appAlone) []string {
	headers := []string{"host: " + app.Origin}
	if fanout {
		headers = []string{"host: " + local(app.ProxyPort), "pushpin-route: origin"}
	}
	framed := fanout
	for _, line := range lowerCase(sent) {
		if line == less {
			less = ""
			continue
		}
		framed = framed || strings.HasPrefix(line, "content-length:") || strings.HasPrefix(line, "transfer-encoding:")
		headers = append(headers, line)
	}
	if !framed {
		headers = append(headers, "content-length: 0")
	}
	return byName(headers)
}

// lowerCase returns the header lines with their names in lower case.
func lowerCase(headers string) (lines []string) {
	for line := range strings.SplitSeq(headers, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			lines = append(lines, strings.ToLower(name)+": "+strings.TrimPrefix(value, " "))
		}
	}
	return lines
}

func eightyHeaders() string {
	var headers strings.Builder
	for i := range 80 {
		fmt.Fprintf(&headers, "X-%d: %d\r\n", i, i)
	}
	return headers.String()
}

// byName sorts header lines by name. Lines with the same name keep their order.
func byName(headers []string) []string {
	sorted := slices.Clone(headers)
	slices.SortStableFunc(sorted, func(a, b string) int {
		nameA, _, _ := strings.Cut(a, ":")
		nameB, _, _ := strings.Cut(b, ":")
		return strings.Compare(nameA, nameB)
	})
	return sorted
}
