package e2e

import (
	"flag"
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
	if *long {
		allowFiles(t, 10_000) // Viceroy needs two for each connection
	}
	f := &faults{project: newProject(t)}
	f.set(t, 2000, "local_server", "backends", "origin", "first_byte_timeout_ms")
	f.startOrigin(t, holdClients)
	t.Cleanup(func() { f.origin.Close() })
	f.change(t, "not yet") // the CLI watches only files that exist when it starts
	f.app = f.serve(t, "--watch")

	t.Run("load", f.testLoad)
	t.Run("the origin dies", f.testOriginDies)
	t.Run("the origin hangs", f.testOriginHangs)
	t.Run("some clients read nothing", f.testStalled)
	t.Run("clients come and go", f.testComeAndGo)
	t.Run("the app is rebuilt", f.testRebuilt)
}

// The accounting notices each kind of loss.
func TestCount(t *testing.T) {
	arrived := func(err error, numbers ...int) *client {
		c := &client{err: err}
		for _, n := range numbers {
			c.got = append(c.got, arrival{n: n, padding: 10 * n, latency: time.Second})
		}
		return c
	}
	incomplete := arrived(nil, 1, 2, 3)
	incomplete.got[1].padding = 19
	clients := []*client{
		arrived(nil, 0, 0, 1, 2, 3), // all that it should get
		arrived(nil, 1, 2, 2, 3),    // a duplicate
		arrived(nil, 2, 1, 3),       // out of order
		arrived(nil, 1, 3),          // one is missing
		incomplete,                  // another one is missing
		arrived(io.EOF, 1),          // dropped, and two are missing
	}
	got := count(clients, []int{10, 20, 30})
	want := "6 connections, 1 dropped; 14 messages, 4 missing, 1 duplicates, 1 out of order; " +
		"publish to arrival: p50 1s, p99 1s, max 1s"
	if got.String() != want || got.lost() != 7 {
		t.Errorf("got %v, want %s", got, want)
	}
}

// faults is a project that is served while things go wrong.
type faults struct {
	*project
	app    *local.Process
	origin *http.Server
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

// allowFiles lets the programs that the test starts have n open files. Go raises the limit only for the test itself.
func allowFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < n {
		t.Fatalf("a process needs %d open files, and the system allows %d: raise that (ulimit -Hn %[1]d, as root)", n, limit.Max)
	}
	limit.Cur = max(n, min(limit.Cur, limit.Max))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// held is clients that are held on one channel.
type held struct {
	*faults
	channel string
	clients []*client
	padding []int // of the messages that each client must have got
}

// hold opens n event streams and n WebSockets at addr, until the test ends, and waits until they get messages.
func (f *faults) hold(t *testing.T, n int, addr string) *held {
	t.Helper()
	h := &held{faults: f, channel: strings.NewReplacer("/", ".", ":", ".").Replace(t.Name() + addr)}
	t.Cleanup(h.leave)
	for i := range 2 * n {
		c, err := openClient(addr, kinds[i%2], h.channel)
		if err != nil { // Pushpin 1.36 itself answers a few requests of many thousands with a 502
			t.Logf("trying again: %v", err)
			c, err = openClient(addr, kinds[i%2], h.channel)
		}
		if err != nil {
			t.Fatal(err)
		}
		h.clients = append(h.clients, c)
		time.Sleep(10 * time.Millisecond) // Pushpin 1.36 drops some of the connections that open in a burst
	}
	ctx := withPatience(t)
	for count(h.clients, nil).subscribed < len(h.clients) { // a subscription starts a moment after the connection opens
		h.send(t, numbered(h.channel, 0, 0))
		select {
		case <-time.After(100*time.Millisecond + h.pace()):
		case <-ctx.Done():
			t.Fatal("no message reaches some of the clients")
		}
	}
	return h
}

func (h *held) leave() {
	for _, c := range h.clients {
		c.leave()
	}
}

// pace returns how long Pushpin takes for one message. The Fastly CLI lets it deliver 2,500 in a second, to all clients
// together. It drops messages if too many wait.
func (h *held) pace() time.Duration { return time.Duration(len(h.clients)) * time.Second / 2000 }

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

// deliver publishes n messages, and returns what the clients have got when nothing more is to come.
func (h *held) deliver(t *testing.T, n, padding int) tally {
	t.Helper()
	for range n {
		h.padding = append(h.padding, padding)
		h.send(t, numbered(h.channel, len(h.padding), padding))
		time.Sleep(h.pace())
	}
	ctx := withPatience(t)
	for {
		sum := count(h.clients, h.padding)
		if sum.missing == 0 || ctx.Err() != nil {
			return sum
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// check publishes n messages. Each client must have got all messages so far, once, in order and complete.
func (h *held) check(t *testing.T, n, padding int) {
	t.Helper()
	if sum := h.deliver(t, n, padding); sum.lost() > 0 {
		t.Fatalf("after %d messages: %v", len(h.padding), sum)
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

// Every message arrives on every connection. If the app loses more than Pushpin itself, the test fails.
func (f *faults) testLoad(t *testing.T) {
	control := f.load(t, loopback(f.ProxyPort))
	app := f.load(t, f.addr)
	t.Logf("directly to Pushpin: %v", control)
	t.Logf("through the app:     %v", app)
	if control.lost() > control.opened/100 {
		t.Fatal("Pushpin itself loses too much to compare with")
	}
	if app.lost() > control.lost() {
		t.Error("the app loses more than Pushpin itself")
	}
}

// load publishes messages to clients at addr, and returns what they have got.
func (f *faults) load(t *testing.T, addr string) tally {
	h := f.hold(t, scale(10, 2000), addr)
	defer h.leave()
	var sum tally
	for range 10 {
		sum = h.deliver(t, 3, 64)
	}
	return sum
}

// The origin dies, and comes back. The held connections stay open, and get the messages.
func (f *faults) testOriginDies(t *testing.T) {
	h := f.hold(t, scale(10, 200), f.addr)
	f.origin.Close()
	h.check(t, 3, 0)
	f.wantAnswers(t, http.StatusBadGateway) // Pushpin's, and the app's
	for _, kind := range kinds {
		if _, err := openClient(f.addr, kind, h.channel); err == nil || !strings.Contains(err.Error(), "502") {
			t.Errorf("a new client, %s: got %v, want a 502", kind, err)
		}
	}

	f.startOrigin(t, holdClients)
	f.wantAnswers(t, http.StatusOK)
	h.check(t, 3, 0)
}

// The origin accepts requests, but does not answer them. The held connections stay open, and get the messages. For a
// forwarded request, the client gets a 502 after the timeout. (Fastly tells the app that this was a timeout, and then
// it is a 504; Viceroy does not.) For a request that is handed off, Pushpin waits longer than this test.
func (f *faults) testOriginHangs(t *testing.T) {
	h := f.hold(t, scale(10, 200), f.addr)
	f.origin.Close()
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
	h.check(t, 3, 0)

	close(goOn)
	waiting.Wait()
	f.wantAnswers(t, http.StatusOK)
	h.check(t, 3, 0)
}

// Half of the clients disconnect at the same time, some with a reset, and many others come and go. The rest get all
// messages.
func (f *faults) testComeAndGo(t *testing.T) {
	h := f.hold(t, scale(20, 500), f.addr)
	h.check(t, 3, 0)
	gone := h.clients[:len(h.clients)/2]
	h.clients = h.clients[len(h.clients)/2:]
	var leaving sync.WaitGroup
	for i, c := range gone {
		leaving.Go([]func(){c.leave, c.leave, c.vanish, c.vanish}[i%4]) // both kinds of client in both ways
	}
	cycles := scale(20, 500)
	var failed atomic.Int64
	for range 20 {
		leaving.Go(func() {
			for i := range cycles {
				if c, err := openClient(f.addr, kinds[i%2], h.channel); err != nil {
					failed.Add(1)
				} else {
					c.vanish()
				}
			}
		})
	}
	h.check(t, 10, 0)
	leaving.Wait()
	h.check(t, 3, 0)
	if n := failed.Load(); n > int64(20*cycles)/100 { // Pushpin 1.36 itself answers a few requests with a 502
		t.Errorf("%d of %d clients could not connect", n, 20*cycles)
	}
}

// Some clients read nothing, and the messages for them fill all buffers. Other clients on the same channel still get
// their messages.
func (f *faults) testStalled(t *testing.T) {
	h := f.hold(t, scale(5, 200), f.addr)
	var stalled []net.Conn
	for range scale(4, 20) {
		conn := f.dial(t)
		conn.(*net.TCPConn).SetReadBuffer(64 << 10) // the system would hold megabytes for the client
		io.WriteString(conn, "GET /events?channel=flood&channel="+h.channel+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200"))); err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, conn)
	}
	const messages, size = 500, 30_000
	for n := range messages {
		f.send(t, numbered("flood", n, size))
		if n%20 == 0 {
			h.check(t, 1, 0)
		}
	}
	h.check(t, 1, size)

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

// The app changes, and `fastly compute serve --watch` builds it and starts it again. The open connections end, clients
// can connect again, and no process of the old app is left.
func (f *faults) testRebuilt(t *testing.T) {
	h := f.hold(t, scale(10, 200), f.addr)
	old, err := f.app.WaitForListener(t.Context(), f.addr)
	if err != nil {
		t.Fatal(err)
	}
	f.change(t, "one")
	for _, c := range h.clients {
		select {
		case <-c.done:
		case <-time.After(4 * patience):
			t.Fatal("a connection stays open")
		}
	}
	now, err := f.app.WaitForListener(t.Context(), f.addr, old)
	if err != nil {
		t.Fatal(err)
	}
	f.hold(t, scale(10, 200), f.addr).check(t, 3, 0)
	f.waitForLog(t, "changed: one")
	if local.Alive(old) {
		t.Errorf("the old app, process %d, still runs", old.Pid)
	}

	// Stop the CLI while it builds again.
	all := f.app.Tree()
	f.change(t, "two")
	for deadline := time.Now().Add(patience); local.Alive(now) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	f.app.Stop()
	for _, p := range all {
		if local.Alive(p) {
			t.Errorf("process %d still runs", p.Pid)
		}
	}
	waitFree(t, append(f.Addresses(), f.addr)...)
}
