package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// BenchmarkApp measures this project's app, and those in the environment variable PEERS, which are
// .wasm files or directories of them. VICEROY is the path of another Viceroy. In each round the apps
// take turns on each workload, and those that wait are suspended, so a change in the speed of the
// machine affects all of them. Besides the time of a request, the benchmark reports the CPU time of
// Viceroy, on Linux.
func BenchmarkApp(b *testing.B) {
	p := newProject(b)
	listener, err := net.Listen("tcp", p.origin)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	go http.Serve(listener, http.HandlerFunc(answerWork))

	var apps []contender
	for _, path := range append([]string{p.dir + "/bin"}, strings.Fields(os.Getenv("PEERS"))...) {
		files, _ := filepath.Glob(path + "/*.wasm")
		if len(files) == 0 {
			files = []string{path} // not a directory
		}
		for _, file := range files {
			apps = append(apps, startContender(b, p, file))
		}
	}
	rounds, _ := strconv.Atoi(os.Getenv("ROUNDS"))
	for range max(1, rounds) {
		for _, w := range works {
			for _, app := range apps {
				// After the first round, Go adds #01, #02 and so on, which `make bench` removes.
				b.Run("work="+w.name+"/app="+app.name, func(b *testing.B) { app.measure(b, w) })
			}
		}
	}
}

// contender is a compiled app that `fastly compute serve` serves. It is suspended until measure.
type contender struct {
	name, addr string
	serve      *program
	viceroy    string // its process id
}

func startContender(b *testing.B, p *project, file string) contender {
	b.Helper()
	file, err := filepath.Abs(file)
	if err != nil {
		b.Fatal(err)
	}
	port := freePorts(b, 6)
	p.addr = loopback(port)
	args := []string{"--file", file,
		"--pushpin-proxy-port", strconv.Itoa(port + 1), "--pushpin-publish-port", strconv.Itoa(port + 2)}
	if viceroy := os.Getenv("VICEROY"); viceroy != "" {
		args = append(args, "--viceroy-path", viceroy)
	}
	c := contender{name: strings.TrimSuffix(filepath.Base(file), ".wasm"), addr: p.addr, serve: p.serve(b, args...)}
	c.viceroy = strings.TrimSpace(sh(b, ".", `pgrep -g "$1" viceroy`, strconv.Itoa(c.serve.Process.Pid)))
	c.signal(syscall.SIGSTOP)
	b.Cleanup(func() { c.signal(syscall.SIGCONT) }) // so that it can end
	return c
}

func (c contender) signal(s syscall.Signal) { syscall.Kill(-c.serve.Process.Pid, s) }

// measure sends the requests of a workload from eight clients at the same time. A wrong answer fails
// the benchmark.
func (c contender) measure(b *testing.B, w work) {
	c.signal(syscall.SIGCONT)
	defer c.signal(syscall.SIGSTOP)
	transport := &http.Transport{MaxIdleConnsPerHost: 8, DialContext: dialQuick}
	defer transport.CloseIdleConnections()
	b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
	before := c.cpu()
	b.ResetTimer()
	b.RunParallel(func(next *testing.PB) {
		for next.Next() {
			if err := w.send(transport, c.addr); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric((c.cpu()-before)/float64(b.N), "cpu-ms/op")
}

// cpu returns the CPU time of Viceroy so far, in milliseconds: proc_pid_stat(5).
func (c contender) cpu() float64 {
	stat, _ := os.ReadFile("/proc/" + c.viceroy + "/stat")
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return float64(user+system) * 10 // a tick is 10 ms
}

// work is one kind of request, and the body that the response must have.
type work struct{ name, method, path, body, want string }

var works = []work{
	{"POST_5_bytes", "POST", "/", "hello", "5"},
	{"POST_1_MiB_up", "POST", "/", mebibyte, "1048576"},
	{"POST_1_MiB_down", "POST", "/large", "hello", mebibyte},
	{"POST_100_ms_origin", "POST", "/slow", "hello", "5"},
	{"GET_handed_off", "GET", "/", "", "0"},
	{name: "WebSocket_connects", path: "/socket"},
}

// answerWork is the origin. Except at /large, it answers with the size of the body that arrived.
func answerWork(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/socket" { // the same event OPEN accepts the WebSocket
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

// send sends one request and checks the response.
func (w work) send(transport http.RoundTripper, addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if w.path == "/socket" {
		conn, _, err := websocket.Dial(ctx, "ws://"+addr+w.path, nil)
		if err == nil {
			conn.CloseNow()
		}
		return err
	}
	r, err := http.NewRequestWithContext(ctx, w.method, "http://"+addr+w.path, strings.NewReader(w.body))
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(got) != w.want) {
		err = fmt.Errorf("%s: got %s with %.60q; want %.60q", w.name, resp.Status, got, w.want)
	}
	return err
}

// dialQuick makes a connection that acknowledges at once what it receives. Viceroy often sends the
// head of a response first, without TCP_NODELAY, so a small body waits until the head is
// acknowledged. Linux may take 40 ms for that, which comes neither from the app nor from Fastly.
func dialQuick(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	return quickConn{conn}, err
}

type quickConn struct{ net.Conn }

func (c quickConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if raw, err := c.Conn.(*net.TCPConn).SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { // after each read, because the option does not last: tcp(7)
			const tcpQuickAck = 12 // of Linux; other systems refuse it
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpQuickAck, 1)
		})
	}
	return n, err
}
