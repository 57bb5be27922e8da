package e2e

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// long makes the tests use more connections. `make load` sets it.
var long = flag.Bool("long", false, "test load and faults with thousands of connections")

func scale(short, longer int) int {
	if *long {
		return longer
	}
	return short
}

// TestFaults tests that connections are held, and get every message once, whatever happens to the other parts.
func TestFaults(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	if *long { // Go raises the limit of open files only for itself: raise it for the programs that this starts, too
		const needed = 10_000 // Viceroy needs two for each connection
		var limit syscall.Rlimit
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil ||
			syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur < needed {
			t.Fatalf("a process needs %d open files, and the system allows %d: raise that (ulimit -Hn %[1]d, as root)", needed, limit.Cur)
		}
	}
	f := &faults{project: newProject(t)}
	f.set(t, 2000, "local_server", "backends", "origin", "first_byte_timeout_ms")
	f.startOrigin(t, holdClients)
	t.Cleanup(func() { f.origin.Close() })
	f.change(t, "not yet") // the CLI watches only files that exist now
	f.app = f.serve(t, "--watch")

	t.Run("load", f.testLoad)
	t.Run("the origin dies and hangs", f.testOrigin)
	t.Run("some clients read nothing", f.testStalled)
	t.Run("clients come and go", f.testComeAndGo)
	t.Run("the app is rebuilt", f.testRebuilt)
}

// The accounting notices each kind of loss.
func TestCount(t *testing.T) {
	arrived := func(err error, numbers ...int) *client {
		c := &client{err: err}
		for _, n := range numbers {
			c.got = append(c.got, arrival{n, time.Duration(n) * time.Second})
		}
		return c
	}
	incomplete := arrived(nil, 1, 3)
	incomplete.take("2 1700000000000000000 20 xxx", nil)
	sum := count([]*client{
		arrived(nil, 0, 0, 1, 2, 3), // all that it should get
		arrived(nil, 1, 2, 2, 3),    // a duplicate
		arrived(nil, 2, 1, 3),       // out of order
		arrived(nil, 1, 3),          // one is missing
		incomplete,                  // another one is missing
		arrived(io.EOF, 1),          // dropped, and two are missing
	}, 3)
	const want = "{Connections:6 Subscribed:6 Dropped:1 Messages:14 Missing:4 Duplicates:1 OutOfOrder:1 P50:2s P99:3s}"
	if got := fmt.Sprintf("%+v", sum); got != want || sum.lost() != 7 {
		t.Errorf("got %s, and %d lost; want %s", got, sum.lost(), want)
	}
}

// faults is a project that is served while things go wrong, and the clients that it holds on a channel.
type faults struct {
	*project
	app     *local.Process
	origin  *http.Server
	channel string
	clients []*client
	sent    int // how many messages each client must have got
}

// startOrigin starts the origin. f.origin.Close ends it and all its connections at once, as if it had died.
func (f *faults) startOrigin(t *testing.T, handler http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("tcp", f.Origin)
	if err != nil {
		t.Fatal(err)
	}
	f.origin = &http.Server{Handler: handler}
	go f.origin.Serve(l)
}

// hold opens n event streams and n WebSockets at addr, until the test ends, and waits until they get messages.
func (f *faults) hold(t *testing.T, n int, addr string) {
	t.Helper()
	f.channel, f.clients, f.sent = strings.ReplaceAll(t.Name(), "/", "."), nil, 0
	for refused := 0; len(f.clients) < 2*n; {
		c, err := openClient(t.Context(), addr, []string{"events", "socket"}[len(f.clients)%2], f.channel)
		if err == nil {
			f.clients = append(f.clients, c)
		} else if refused++; refused > 1+n/100 { // Pushpin 1.36 itself answers a few of many thousands with a 502
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // Pushpin 1.36 drops some of the connections that open in a burst
	}
	deadline := time.Now().Add(patience)
	for count(f.clients, 0).Subscribed < len(f.clients) { // a subscription starts a moment after the connection opens
		if time.Now().After(deadline) {
			t.Fatal("no message reaches some of the clients")
		}
		f.send(t, numbered(f.channel, 0, 0))
		time.Sleep(100*time.Millisecond + f.pace())
	}
}

// pace returns how long to wait after a message. The Fastly CLI lets Pushpin deliver 2,500 in a second, to
// all clients together, and Pushpin drops messages if too many wait.
func (f *faults) pace() time.Duration { return time.Duration(len(f.clients)) * time.Second / 2000 }

// send publishes directly to the proxy, because the origin may be down.
func (f *faults) send(t *testing.T, item grip.Item) {
	t.Helper()
	c, err := grip.ParseURL(f.GripURL(), "")
	if err == nil {
		err = c.Publish(withPatience(t), item)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// deliver publishes n messages and returns what the clients have got when nothing more is to come.
func (f *faults) deliver(t *testing.T, n, padding int) tally {
	t.Helper()
	for range n {
		f.sent++
		f.send(t, numbered(f.channel, f.sent, padding))
		time.Sleep(f.pace())
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		sum := count(f.clients, f.sent)
		if sum.Missing == 0 || time.Now().After(deadline) {
			return sum
		}
	}
}

// check publishes n messages. Each client must have got all messages so far, once, in order and complete.
func (f *faults) check(t *testing.T, n, padding int) {
	t.Helper()
	if sum := f.deliver(t, n, padding); sum.lost() > 0 {
		t.Fatalf("after %d messages: %+v", f.sent, sum)
	}
}

// wantAnswers sends a request that is handed off, and one that is forwarded.
func (f *faults) wantAnswers(t *testing.T, status int) {
	t.Helper()
	for _, method := range []string{"GET", "POST"} {
		if got := fetch(t, method, f.url("/"), "").status; got != status {
			t.Errorf("%s: got status %d, want %d", method, got, status)
		}
	}
}

// Every message arrives on every connection. The app must not lose more than Pushpin itself.
func (f *faults) testLoad(t *testing.T) {
	load := func(name, addr string) (sum tally) {
		t.Run(name, func(t *testing.T) {
			f.hold(t, scale(10, 2000), addr)
			sum = f.deliver(t, 30, 64)
		})
		return sum
	}
	control, app := load("Pushpin", loopback(f.ProxyPort)), load("app", f.addr)
	t.Logf("directly to Pushpin: %+v\nthrough the app: %+v", control, app)
	if control.lost() > control.Connections/100 {
		t.Fatal("Pushpin itself loses too much to compare with")
	}
	if app.lost() > control.lost() {
		t.Error("the app loses more than Pushpin itself")
	}
}

// The origin dies, and comes back, but does not answer until later. The held connections stay open, and get
// the messages. For a forwarded request, the client gets a 502 after the timeout. (Fastly tells the app that
// this was a timeout, and then it is a 504; Viceroy does not.) For a request that is handed off, Pushpin waits
// longer than this test.
func (f *faults) testOrigin(t *testing.T) {
	f.hold(t, scale(10, 200), f.addr)
	f.origin.Close()
	f.check(t, 3, 0)
	f.wantAnswers(t, http.StatusBadGateway) // Pushpin's, and the app's
	if _, err := openClient(t.Context(), f.addr, "socket", f.channel); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("a new WebSocket: got %v, want a 502", err)
	}

	goOn := make(chan struct{})
	f.startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		<-goOn
		holdClients(w, r)
	})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if got := fetch(t, "GET", f.url("/"), ""); got.status != http.StatusOK {
			t.Errorf("a GET that was sent while the origin hung: got status %d", got.status)
		}
	})
	if got := fetch(t, "POST", f.url("/"), "hello"); got.status != http.StatusBadGateway {
		t.Errorf("a POST while the origin hangs: got status %d", got.status)
	}
	f.check(t, 3, 0)

	close(goOn)
	waiting.Wait()
	f.wantAnswers(t, http.StatusOK)
	f.check(t, 3, 0)
}

// Half of the clients disconnect at once, and many others come and go. The rest get all messages.
func (f *faults) testComeAndGo(t *testing.T) {
	f.hold(t, scale(20, 500), f.addr)
	f.check(t, 3, 0)
	half := len(f.clients) / 2
	var leaving sync.WaitGroup
	for _, c := range f.clients[:half] {
		leaving.Go(func() { c.conn.Close() })
	}
	f.clients = f.clients[half:]
	cycles := scale(20, 500)
	var failed atomic.Int64
	for range 20 {
		leaving.Go(func() {
			for i := range cycles {
				c, err := openClient(t.Context(), f.addr, []string{"events", "socket"}[i%2], f.channel)
				if err != nil {
					failed.Add(1)
					continue
				}
				c.conn.(*net.TCPConn).SetLinger(0) // reset the connection, as if the client's program had died
				c.conn.Close()
			}
		})
	}
	f.check(t, 10, 0)
	leaving.Wait()
	f.check(t, 3, 0)
	if n := failed.Load(); n > int64(20*cycles)/100 { // Pushpin 1.36 itself answers a few requests with a 502
		t.Errorf("%d of %d clients could not connect", n, 20*cycles)
	}
}

// Some clients read nothing, and the messages for them fill all buffers. Other clients on the same channel
// still get their messages.
func (f *faults) testStalled(t *testing.T) {
	f.hold(t, scale(5, 200), f.addr)
	var stalled []net.Conn
	for range scale(4, 20) {
		conn := f.dial(t)
		conn.(*net.TCPConn).SetReadBuffer(64 << 10) // the system would hold megabytes for the client
		io.WriteString(conn, "GET /events?channel=flood&channel="+f.channel+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200"))); err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, conn)
	}
	const messages, size = 500, 30_000
	for n := range messages {
		f.send(t, numbered("flood", n, size))
		if n%20 == 0 {
			f.check(t, 1, 0)
		}
	}
	f.check(t, 1, size)

	// If these clients had not been stalled, they would now get all the data.
	for _, conn := range stalled {
		conn.SetDeadline(time.Now().Add(time.Second))
		if n, err := io.Copy(io.Discard, conn); n >= messages*size {
			t.Errorf("a client that had read nothing got all %d bytes, %v: it was not stalled", n, err)
		}
	}
}

// change changes the app: it writes changed.go.
func (f *faults) change(t *testing.T, content string) {
	f.write(t, "changed.go", "package main\n\nfunc init() { println(\"changed:\", \""+content+"\") }\n")
}

// The app changes, and `fastly compute serve --watch` builds and starts it again. Clients can connect again.
func (f *faults) testRebuilt(t *testing.T) {
	f.hold(t, scale(10, 200), f.addr)
	old, err := f.app.WaitForListener(t.Context(), f.addr)
	if err != nil {
		t.Fatal(err)
	}
	f.change(t, "one")
	waitEnded(t, old)
	now, err := f.app.WaitForListener(t.Context(), f.addr)
	if err != nil {
		t.Fatal(err)
	}
	f.hold(t, scale(10, 200), f.addr)
	f.check(t, 3, 0)
	f.waitForLog(t, "changed: one")

	// Stop the CLI while it builds again.
	all := f.app.Tree()
	f.change(t, "two")
	waitEnded(t, now)
	f.app.Stop()
	waitEnded(t, all...)
	waitFree(t, append(f.Addresses(), f.addr)...)
}
