package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// workload is one kind of request, and the body that the response must have.
type workload struct{ name, method, path, body, want string }

var mebibyte = strings.Repeat("m", 1<<20)

var workloads = []workload{
	{"POST 5 bytes", "POST", "/", "hello", "5"},
	{"POST 1 MiB up", "POST", "/", mebibyte, "1048576"},
	{"POST 1 MiB down", "POST", "/large", "hello", mebibyte},
	{"POST 100 ms origin", "POST", "/slow", "hello", "5"},
	{"GET handed off", "GET", "/", "", "0"},
	{name: "WebSocket connects", path: "/socket"},
}

// origin is the origin of all workloads. Except at /large, it answers with the size of the body
// that arrived.
func origin(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/socket" {
		// Pushpin sends an event OPEN, and the same event accepts the WebSocket:
		// https://pushpin.org/docs/protocols/websocket-over-http/
		w.Header().Set("Content-Type", "application/websocket-events")
		io.Copy(w, r.Body)
		return
	}
	size, _ := io.Copy(io.Discard, r.Body)
	answer := strconv.FormatInt(size, 10)
	switch r.URL.Path {
	case "/large":
		answer = mebibyte
	case "/slow":
		time.Sleep(100 * time.Millisecond)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	io.WriteString(w, answer)
}

// send sends one request of the workload to addr, a host:port, and reads the response into buffer.
// It returns an error if that is not the response that must come.
func (w workload) send(ctx context.Context, transport http.RoundTripper, addr string, buffer *bytes.Buffer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	url := "http://" + addr + w.path
	if w.path == "/socket" {
		conn, _, err := websocket.Dial(ctx, url, nil)
		if err == nil {
			conn.CloseNow()
		}
		return err
	}
	r, err := http.NewRequestWithContext(ctx, w.method, url, strings.NewReader(w.body))
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	buffer.Reset()
	_, err = buffer.ReadFrom(resp.Body)
	body := buffer.Bytes()
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != w.want) {
		err = fmt.Errorf("got %s with %.60q (%d bytes); want 200 with %.60q (%d)", resp.Status, body, len(body), w.want, len(w.want))
	}
	return err
}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	return quickConn{conn}, err
}

// quickConn acknowledges at once what it receives. Viceroy often sends the head of a response
// first and does not set TCP_NODELAY, so a small body waits until the head is acknowledged. Linux
// may take 40 ms for that. This delay comes neither from the app nor from Fastly.
type quickConn struct{ net.Conn }

func (c quickConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if raw, err := c.Conn.(*net.TCPConn).SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { // after each read, because the option does not last: see tcp(7)
			const tcpQuickAck = 12 // of Linux; other systems refuse it
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpQuickAck, 1)
		})
	}
	return n, err
}
