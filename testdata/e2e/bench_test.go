package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// BenchmarkApp measures this project's app, and the .wasm files in PEERS, a list of files and
// directories. VICEROY is the path of another Viceroy. In each round the apps take turns on each
// workload, and those that wait are suspended, so a slow moment of the machine affects all of them.
func BenchmarkApp(b *testing.B) {
	http.DefaultClient.Timeout = patience
	http.DefaultTransport = &http.Transport{
		DialContext: dialQuick, MaxIdleConnsPerHost: 8}
	_, dir := template(b)
	files := sh(b, dir, `find bin $PEERS -name "*.wasm"`)
	viceroy := strings.TrimSpace(sh(b, dir, `command -v "${VICEROY:-viceroy}"`))
	var apps []contender
	for file := range strings.FieldsSeq(files) {
		p := newProject(b) // has the same bin/main.wasm
		serveHTTP(b, p.origin, answerWork)
		p.serve(b, "--file", file, "--viceroy-path", viceroy)
		group := p.app.Process.Pid
		pid := sh(b, dir, `pgrep -g "$1" viceroy`, strconv.Itoa(group))
		c := contender{p.base, path.Base(file), group, strings.TrimSpace(pid)}
		apps = append(apps, c)
		syscall.Kill(-group, syscall.SIGSTOP)
		b.Cleanup(func() { syscall.Kill(-group, syscall.SIGCONT) }) // so that it can end
	}
	rounds, _ := strconv.Atoi(os.Getenv("ROUNDS"))
	for range max(1, rounds) {
		for _, w := range works {
			for _, app := range apps {
				// In the next rounds, Go adds #01 and so on.
				name := "work=" + w.name + "/app=" + strings.TrimSuffix(app.file, ".wasm")
				b.Run(name, func(b *testing.B) { app.measure(b, w) })
			}
		}
		slices.Reverse(apps) // the first one may have an advantage
	}
}

// contender is an app that is suspended except in measure.
type contender struct {
	base, file string
	group      int    // of the processes
	pid        string // of Viceroy
}

// measure sends requests from eight clients. A wrong answer fails it.
func (c contender) measure(b *testing.B, w work) {
	syscall.Kill(-c.group, syscall.SIGCONT)
	defer syscall.Kill(-c.group, syscall.SIGSTOP)
	b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
	before := c.cpu()
	b.ResetTimer()
	b.RunParallel(func(next *testing.PB) {
		for next.Next() {
			if err := w.send(c.base); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric((c.cpu()-before)/float64(b.N), "cpu-ms/op")
}

// cpu returns Viceroy's CPU time so far, in milliseconds, on Linux: proc_pid_stat(5).
func (c contender) cpu() float64 {
	stat, _ := os.ReadFile("/proc/" + c.pid + "/stat")
	var user, system float64
	if fields := strings.Fields(string(stat)); len(fields) > 14 {
		fmt.Sscan(fields[13]+" "+fields[14], &user, &system)
	}
	return (user + system) * 10 // a tick is 10 ms
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

// answerWork is the origin. Its usual answer is the size of the body.
func answerWork(w http.ResponseWriter, r *http.Request) {
	size, _ := io.Copy(io.Discard, r.Body)
	answer := strconv.FormatInt(size, 10)
	switch r.URL.Path {
	case "/socket":
		w.Header().Set("Content-Type", "application/websocket-events")
		answer = "OPEN\r\n" // accepts the WebSocket
	case "/large":
		answer = mebibyte
	case "/slow":
		time.Sleep(100 * time.Millisecond)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	io.WriteString(w, answer)
}

// send sends one request and checks the response.
func (w work) send(base string) error {
	if w.path == "/socket" {
		conn, _, err := websocket.Dial(context.Background(), base+w.path, nil)
		if err == nil {
			conn.CloseNow()
		}
		return err
	}
	r, _ := http.NewRequest(w.method, base+w.path, strings.NewReader(w.body))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(got) != w.want) {
		err = fmt.Errorf("got %s with %.60q; want %.60q", resp.Status, got, w.want)
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
	raw, _ := c.Conn.(*net.TCPConn).SyscallConn()
	raw.Control(func(fd uintptr) {
		const tcpQuickAck = 12 // of Linux; it does not last: tcp(7)
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpQuickAck, 1)
	})
	return n, err
}
