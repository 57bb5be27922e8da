package e2e

import (
	"bufio"
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

const postHead = "POST / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n"

// A body does not pass through the sandbox: its second half arrives although the sandbox has ended.
func TestSandboxEnds(t *testing.T) {
	t.Parallel()
	needs(t, "origin", "POST")
	a := sharedApp(t)
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
func TestStreaming(t *testing.T) {
	t.Parallel()
	needs(t, "origin", "POST")
	a := sharedApp(t)
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
func TestCutUpload(t *testing.T) {
	t.Parallel()
	needs(t, "origin", "POST")
	a := sharedApp(t)
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

var heap = regexp.MustCompile(`using ([0-9.]+) Mi?B of WebAssembly heap`) // older versions print MB

// TestLarge streams 256 MiB to a client that does not read at first. The memory of the sandbox and of the host does not
// grow with the body, and the origin must wait for the client.
func TestLarge(t *testing.T) {
	t.Parallel()
	needs(t, "origin", "POST")
	a := sharedApp(t)
	const size = 256 << 20
	stuck, sent := make(chan int64, 1), make(chan int64, 1)
	a.origin.answers <- func(conn net.Conn) {
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		chunk := make([]byte, 1<<20)
		var n int64
		for n < size {
			conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
			m, err := conn.Write(chunk[:min(int64(len(chunk)), size-n)])
			n += int64(m)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				select {
				case stuck <- n: // the client does not read yet
				default:
				}
			} else if err != nil {
				break
			}
		}
		sent <- n
	}
	viceroy := a.viceroy(t)
	rss := func() int64 {
		info, err := viceroy.MemoryInfo()
		if err != nil {
			t.Fatal(err)
		}
		return int64(info.RSS)
	}
	before := rss()
	a.log.skip()
	conn := a.send(t, postHead+"Content-Length: 0\r\n\r\n")
	select {
	case n := <-stuck:
		if n > size/4 {
			t.Errorf("the app accepted %d MiB from the origin for a client that does not read", n>>20)
		}
	case <-time.After(patience):
		t.Error("the origin does not wait for a client that does not read")
	}
	conn.SetDeadline(time.Now().Add(2 * patience))
	n, err := io.Copy(io.Discard, conn)
	if got := <-sent; err != nil || n < size || got != size {
		t.Fatalf("the origin sent %d bytes, and the client got %d, %v", got, n, err)
	}
	if grown := rss() - before; grown > 64<<20 {
		t.Errorf("the host's memory grew by %d MiB", grown>>20)
	}
	a.waitForLog(t, " of WebAssembly heap")
	for _, match := range heap.FindAllStringSubmatch(a.log.String(), -1) {
		if megabytes, err := strconv.ParseFloat(match[1], 64); err != nil || megabytes > 16 {
			t.Errorf("the sandbox was %s", match[0])
		}
	}
	a.origin.arrived(t)
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
