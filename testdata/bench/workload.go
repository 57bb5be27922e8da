package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

const mebibyte = 1 << 20

// workload is one kind of request, with the response that it must get.
type workload struct {
	name      string
	method    string
	path      string // serveOrigin has a handler for each
	sends     int    // the size of the request's body, in bytes
	receives  int    // the size of the response's body, in bytes
	webSocket bool   // the request opens a WebSocket, which is then closed
}

var workloads = []workload{
	{name: "POST 5 bytes", method: "POST", path: "/", sends: 5, receives: 5},
	{name: "POST 1 MiB up", method: "POST", path: "/", sends: mebibyte, receives: 5},
	{name: "POST 1 MiB down", method: "POST", path: "/large", sends: 5, receives: mebibyte},
	{name: "POST 100 ms origin", method: "POST", path: "/slow", sends: 5, receives: 5},
	{name: "GET handed off", method: "GET", path: "/", receives: 5},
	{name: "WebSocket connects", method: "GET", path: "/socket", webSocket: true},
}

// serveOrigin is the origin of all workloads. It answers 400 if the request's body is not complete.
func serveOrigin(l net.Listener) {
	large := make([]byte, mebibyte)
	mux := http.NewServeMux()
	answer := func(body []byte, after time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil || r.Method == http.MethodPost && r.Header.Get("X-Size") != strconv.FormatInt(n, 10) {
				http.Error(w, "the body is not complete", http.StatusBadRequest)
				return
			}
			time.Sleep(after)
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.Write(body)
		}
	}
	mux.Handle("/", answer([]byte("hello"), 0))
	mux.Handle("/large", answer(large, 0))
	mux.Handle("/slow", answer([]byte("hello"), 100*time.Millisecond))
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		events, err := grip.DecodeEvents(body)
		if err != nil || len(events) == 0 {
			http.Error(w, "not a WebSocket", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", grip.EventsType)
		w.Write(grip.EncodeEvents(events[0])) // the first event, OPEN or CLOSE, sent back, accepts it
	})
	http.Serve(l, mux)
}

// attack sends the workload's requests to addr, a host:port, until ctx is done. Each client sends one request
// after another. The channel gets a result when a response has ended.
func (w workload) attack(ctx context.Context, addr string, clients int) <-chan *vegeta.Result {
	target := vegeta.Target{
		Method: w.method,
		URL:    "http://" + addr + w.path,
		Header: http.Header{"X-Size": {strconv.Itoa(w.sends)}},
	}
	if w.sends > 0 {
		target.Body = make([]byte, w.sends)
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return quick(conn.(*net.TCPConn))
	}
	attacker := vegeta.NewAttacker(
		vegeta.Client(&http.Client{Timeout: 20 * time.Second, Transport: transport{w, &http.Transport{MaxIdleConnsPerHost: clients, DialContext: dial}}}),
		vegeta.Workers(uint64(clients)), vegeta.MaxWorkers(uint64(clients)), vegeta.MaxBody(0),
	)
	context.AfterFunc(ctx, func() { attacker.Stop() })
	return attacker.Attack(vegeta.NewStaticTargeter(target), vegeta.Rate{}, 0, "")
}

// transport sends one request of the workload. It returns an error if the response is wrong.
type transport struct {
	workload
	http *http.Transport
}

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.webSocket {
		conn, resp, err := websocket.Dial(r.Context(), r.URL.String(), nil)
		if err != nil {
			return nil, err
		}
		conn.CloseNow()
		return &http.Response{StatusCode: http.StatusOK, Header: resp.Header, Body: http.NoBody}, nil // vegeta counts a 101 as an error
	}
	resp, err := t.http.RoundTrip(r)
	if err == nil {
		resp.Body = &sized{resp.Body, t.receives}
	}
	return resp, err
}

// sized is a body that must have exactly as many bytes as left says.
type sized struct {
	io.ReadCloser
	left int // bytes to come
}

func (s *sized) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.left -= n
	if err == io.EOF && s.left != 0 || s.left < 0 {
		return n, fmt.Errorf("the body lacks %d bytes", s.left)
	}
	return n, err
}
