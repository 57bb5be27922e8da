package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// responseBytes has the bytes of a response, as they arrived.
type responseBytes struct {
	status  string // the status code
	headers []string
	body    string
	err     error // why the body is incomplete; nil if it is complete
}

// receive reads one response to a request with this method.
func receive(r *bufio.Reader, method string) (resp responseBytes, err error) {
	for first := true; ; first = false {
		line, err := r.ReadString('\n')
		if err != nil {
			return resp, fmt.Errorf("the head is incomplete: %w", err)
		}
		line = strings.TrimSuffix(line, "\r\n")
		if first && !strings.HasPrefix(line, "HTTP/1.") {
			return resp, fmt.Errorf("%.50q is not a status line", line)
		}
		if line == "" {
			break
		}
		if first {
			_, resp.status, _ = strings.Cut(line, " ")
			resp.status, _, _ = strings.Cut(resp.status, " ")
			continue
		}
		resp.headers = append(resp.headers, line)
	}
	var body io.Reader = r // until the connection closes
	for _, line := range resp.headers {
		if length, ok := strings.CutPrefix(line, "content-length: "); ok {
			n, err := strconv.ParseInt(length, 10, 64)
			if err != nil {
				return resp, err
			}
			body = exactly{r, &n}
		} else if line == "transfer-encoding: chunked" {
			body = httputil.NewChunkedReader(r)
		}
	}
	if method == "HEAD" || resp.status[0] == '1' || resp.status == "204" || resp.status == "304" {
		return resp, nil
	}
	content, err := io.ReadAll(body)
	resp.body, resp.err = string(content), err
	return resp, nil
}

// exactly reads n bytes, and returns an error if there are fewer.
type exactly struct {
	r io.Reader
	n *int64
}

func (e exactly) Read(p []byte) (int, error) {
	if *e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), *e.n)])
	*e.n -= int64(n)
	if errors.Is(err, io.EOF) && *e.n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// TestResponses tests that a response arrives at the client as the origin sent it. The platform makes only these changes:
//
//   - Header names are in lower case, and their order may change, as in requests.
//   - The reason phrase is the standard one for the status. A client should ignore it (RFC 9112 section 4).
//   - A response without Date gets a Date. A recipient with a clock must add it (RFC 9110 section 6.6.1).
//   - If the origin ends a body by closing the connection, the client gets it in chunks. The sizes of chunks change.
//   - Trailers are removed, which is allowed (RFC 9110 section 6.5.1).
//   - Interim responses (103) are not forwarded, because the SDK does not get them.
func TestResponses(t *testing.T) {
	t.Parallel()
	app := newAppAlone(t)
	long := strings.Repeat("x", 9000)
	large := strings.Repeat("0123456789abcdef", 1<<16)
	type test struct {
		name, method string
		status       int
		headers      string // as the origin sends them, with the framing headers
		body         string // as the origin sends it
		arrives      string // the body that arrives, if it is different
		framing      string // the framing header that arrives, if it is different
		cut          bool   // the client must see that the body is incomplete
		reset        bool   // the origin resets the connection after the body
		before       string // interim responses
	}
	var tests []test
	for _, status := range []int{
		200, 201, 202, 203, 206, 207, 208, 226, 300, 301, 302, 303, 305, 307, 308,
		400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451,
		500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 599,
	} {
		tests = append(tests, test{name: fmt.Sprint("status ", status), status: status, headers: "Content-Length: 2\r\n", body: "ok"})
	}
	tests = append(tests,
		test{name: "204", status: 204},
		test{name: "205", status: 205, headers: "Content-Length: 0\r\n"},
		test{name: "304", status: 304, headers: "ETag: \"x\"\r\n"},
		test{name: "HEAD", method: "HEAD", status: 200, headers: "Content-Length: 12345\r\n"},
		test{name: "early hints", status: 200, before: "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n", headers: "Content-Length: 2\r\n", body: "ok"},
		test{name: "fixed length", status: 200, headers: "Content-Length: 5\r\n", body: "hello"},
		test{name: "zero length", status: 200, headers: "Content-Length: 0\r\n"},
		test{name: "chunked", status: 200, headers: "Transfer-Encoding: chunked\r\n", body: "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", arrives: "abcde"},
		test{name: "until close", status: 200, body: "hello", framing: "transfer-encoding: chunked"},
		test{name: "1 MiB", status: 200, headers: "Content-Length: 1048576\r\n", body: large},
		test{name: "trailers", status: 200, headers: "Transfer-Encoding: chunked\r\n", body: "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", arrives: "abc"},
		test{name: "compressed", status: 200, headers: "Content-Encoding: gzip\r\nContent-Length: 4\r\n", body: "\x1f\x8b\x08\x00"},
		test{name: "repeated header", status: 200, headers: "X-A: 1\r\nX-B: 2\r\nX-A: 3\r\nX-A: 1\r\nContent-Length: 2\r\n", body: "ok"},
		test{name: "cookies", status: 200, headers: "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2, c\r\nContent-Length: 2\r\n", body: "ok"},
		test{name: "empty header", status: 200, headers: "X-Empty:\r\nContent-Length: 2\r\n", body: "ok"},
		test{name: "bytes in a header", status: 200, headers: "X-Latin-1: caf\xe9\r\nX-UTF-8: caf\xc3\xa9\r\nContent-Length: 2\r\n", body: "ok"},
		test{name: "eighty headers", status: 200, headers: eightyHeaders() + "Content-Length: 2\r\n", body: "ok"},
		test{name: "9,000 bytes of header", status: 200, headers: "X-Long: " + long + "\r\nContent-Length: 2\r\n", body: "ok"},
		test{name: "its own date", status: 200, headers: "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\n", body: "ok"},
		test{name: "what looks like the platform's", status: 200, headers: "Server: x\r\nVia: 1.1 y\r\nX-Served-By: z\r\nAge: 1\r\nSurrogate-Key: k\r\nContent-Length: 2\r\n", body: "ok"},
		test{name: "cut short of its length", status: 200, headers: "Content-Length: 100\r\n", body: "hello", cut: true},
		test{name: "cut short between chunks", status: 200, headers: "Transfer-Encoding: chunked\r\n", body: "5\r\nhello\r\n", arrives: "hello", cut: true},
		test{name: "cut short within a chunk", status: 200, headers: "Transfer-Encoding: chunked\r\n", body: "5\r\nhello\r\nff\r\nhel", arrives: "hellohel", cut: true},
		test{name: "reset within its length", status: 200, headers: "Content-Length: 2000000\r\n", body: large, cut: true, reset: true},
		test{name: "reset within chunks", status: 200, headers: "Transfer-Encoding: chunked\r\n", body: "5\r\nhello\r\nfffff\r\n" + large[:1000], arrives: "hello" + large[:1000], cut: true, reset: true},
		test{name: "chunks that are none", status: 200, headers: "Transfer-Encoding: chunked\r\n", body: "5\r\nhello\r\nnonsense\r\n", arrives: "hello", cut: true},
	)
	for _, tt := range tests {
		row, ok := carrier(tt.method)
		if !ok {
			without(t, cmp.Or(tt.method, "POST"))
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			app.server(row).answers <- fmt.Sprintf("%sHTTP/1.1 %d A Reason\r\n%s\r\n%s", tt.before, tt.status, tt.headers, tt.body) + map[bool]string{true: resets}[tt.reset]
			conn := app.send(t, row.Method+" "+row.Target+" HTTP/1.1\r\nHost: example.com\r\n"+headOf(row)+"Content-Length: 0\r\n\r\n")
			defer conn.Close()
			got, err := receive(bufio.NewReader(conn), row.Method)
			if err != nil {
				t.Fatal(err)
			}
			app.arrived(t)
			if got.status != fmt.Sprint(tt.status) {
				t.Errorf("the status is %s, want %d", got.status, tt.status)
			}
			want := lowerCase(tt.headers)
			if tt.framing != "" {
				want = append(want, tt.framing)
			}
			headers := byName(got.headers)
			if !strings.Contains(tt.headers, "Date: ") {
				headers = slices.DeleteFunc(headers, func(line string) bool { return strings.HasPrefix(line, "date: ") })
				if len(headers) != len(got.headers)-1 {
					t.Error("the response has no Date")
				}
			}
			if !slices.Equal(headers, byName(want)) {
				t.Errorf("the headers are\n%.3000q, want\n%.3000q", headers, byName(want))
			}
			body := tt.body
			if tt.arrives != "" {
				body = tt.arrives
			}
			if tt.cut && strings.HasPrefix(body, got.body) {
				body = got.body // the error may arrive before the last data
			}
			if got.body != body || (got.err != nil) != tt.cut {
				t.Errorf("the body is %.50q (%d bytes), %v; want %.50q, and an error for a cut body: %t", got.body, len(got.body), got.err, body, tt.cut)
			}
		})
	}
}

var heap = regexp.MustCompile(`using ([0-9.]+) Mi?B of WebAssembly heap`) // older versions print MB

// TestLarge streams 256 MiB to a client that does not read at first. The body does not pass through the sandbox, so the
// sandbox's heap does not grow. Nothing stores the body, so the host's memory does not grow either, and the origin must
// wait.
func TestLarge(t *testing.T) {
	t.Parallel()
	row := forwarded(t)
	p := newProject(t)
	const size = 256 << 20
	sent := make(chan int64, 1)
	stuck := make(chan int64, 1)
	listen(t, p.Origin, func(conn net.Conn) {
		if req, err := readRequestBytes(bufio.NewReader(conn)); err != nil || !strings.HasPrefix(req.line, row.Method+" ") {
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		chunk := make([]byte, 1<<20)
		var n int64
		for n < size {
			conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
			m, err := conn.Write(chunk[:min(int64(len(chunk)), size-n)])
			n += int64(m)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err != nil { // the client does not read: continue when it reads
				select {
				case stuck <- n:
				default:
				}
			}
		}
		sent <- n
	})
	p.serve(t)
	viceroy := p.viceroy(t)
	rss := func() uint64 {
		info, err := viceroy.MemoryInfo()
		if err != nil {
			t.Fatal(err)
		}
		return info.RSS
	}
	before := rss()

	conn := p.dial(t)
	io.WriteString(conn, postFor(t, "large"))
	select {
	case n := <-stuck:
		if n > size/4 {
			t.Errorf("the app accepted %d MiB from the origin for a client that does not read", n>>20)
		}
	case <-time.After(patience):
		t.Error("the origin does not wait for a client that does not read")
	}
	if grown := int64(rss() - before); grown > 64<<20 {
		t.Errorf("with a client that does not read, the host's memory grew by %d MiB", grown>>20)
	}
	conn.SetDeadline(time.Now().Add(2 * patience))
	n, err := io.Copy(io.Discard, conn)
	if err != nil || n < size {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	if got := <-sent; got != size {
		t.Errorf("the origin sent %d bytes", got)
	}
	if grown := int64(rss() - before); grown > 64<<20 {
		t.Errorf("the host's memory grew by %d MiB", grown>>20)
	}
	p.waitForLog(t, " of WebAssembly heap")
	for _, match := range heap.FindAllStringSubmatch(p.log.String(), -1) {
		if megabytes, err := strconv.ParseFloat(match[1], 64); err != nil || megabytes > 16 {
			t.Errorf("the sandbox was %s", match[0])
		}
	}
}

// viceroy returns the Viceroy process that serves the project's app.
func (p *project) viceroy(t *testing.T) *process.Process {
	t.Helper()
	all, err := process.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, proc := range all {
		if args, _ := proc.CmdlineSlice(); slices.Contains(args, p.addr) && strings.HasSuffix(args[0], "viceroy") {
			return proc
		}
	}
	t.Fatal("there is no Viceroy process")
	return nil
}
