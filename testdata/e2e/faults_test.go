package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
	"compute-starter-kit-go-fanout-forward/testdata/clients"
	"compute-starter-kit-go-fanout-forward/testdata/grip"
	"compute-starter-kit-go-fanout-forward/testdata/handoffs"
)

// long makes the tests use more connections. `make load` sets it.
var long = flag.Bool("long", false, "test faults with as many connections as make load")

// firstByte is the backend's timeout for the first byte of a response.
const firstByte = 2 * time.Second

func scale(short, longer int) int {
	if *long {
		return longer
	}
	return short
}

// TestFaults tests that held connections survive faults of the other parts.
func TestFaults(t *testing.T) {
	t.Parallel()
	f := &faults{project: newProject(t), kinds: slices.Sorted(maps.Keys(handedOff()))}
	setBackend(t, f.project, "first_byte_timeout_ms", firstByte.Milliseconds())
	f.startOrigin(t, clients.Origin)
	t.Cleanup(func() { f.origin.Close() })
	f.change(t, "not yet") // the CLI watches only files that exist when it starts
	f.app = f.serve(t, "--watch")

	t.Run("the origin dies", func(t *testing.T) { testOriginDies(t, f) })
	t.Run("the origin hangs", func(t *testing.T) { testOriginHangs(t, f) })
	t.Run("half of the clients vanish", func(t *testing.T) { testHalfVanish(t, f) })
	t.Run("some clients read nothing", func(t *testing.T) { testStalled(t, f) })
	t.Run("clients come and go", func(t *testing.T) { testComeAndGo(t, f) })
	t.Run("a burst of posts", func(t *testing.T) { testBurst(t, f) })
	t.Run("the app is rebuilt", func(t *testing.T) { testRebuilt(t, f) })
}

// faults is a project that is served while things go wrong.
type faults struct {
	*project
	kinds  []clients.Kind // of the clients that the table hands off
	app    *chain.Process
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

// held has connections that are held open on one channel.
type held struct {
	*faults
	channel string
	clients []*clients.Client
	last    int               // the number of the last message
	want    []clients.Arrival // the messages that each client must have got
}

// open connects a client to the app, with a request that is handed off.
func (f *faults) open(kind clients.Kind, channel string) (*clients.Client, error) {
	row, header := handedOff()[kind], http.Header{}
	if kind != clients.Socket { // the WebSocket client sends the table's header itself
		row.AddTo(header)
	}
	return clients.Open(context.Background(), kind, f.addr, row.Target, channel, header)
}

// hold opens connections, n of each kind, until the test ends.
func (f *faults) hold(t *testing.T, n int) *held {
	t.Helper()
	if len(f.kinds) == 0 {
		t.Skip("main.go hands off no request that could be held")
	}
	h := &held{faults: f, channel: strings.ReplaceAll(t.Name()[len("TestFaults/"):], "_", "-")}
	for i := range n * len(f.kinds) {
		kind := f.kinds[i%len(f.kinds)]
		c, err := f.open(kind, h.channel)
		if err != nil { // Pushpin 1.36 itself answers a few requests of many thousands with a 502
			t.Logf("trying again: %v", err)
			c, err = f.open(kind, h.channel)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Leave)
		h.clients = append(h.clients, c)
	}
	if err := clients.Settle(withPatience(t), h.clients, 100*time.Millisecond, func() error { return h.send(0, 0) }); err != nil {
		t.Fatal(err)
	}
	return h
}

// send publishes the nth message directly to the proxy, because the origin may be down.
func (h *held) send(n, padding int) error {
	c, err := grip.ParseURL(h.GripURL(), "")
	if err != nil {
		return err
	}
	return c.Publish(context.Background(), clients.Message(h.channel, n, padding))
}

// check publishes messages with padding extra bytes. It fails the test unless each client has got all messages so far,
// once, in order and complete.
func (h *held) check(t *testing.T, messages, padding int) {
	t.Helper()
	for range messages {
		h.last++
		if err := h.send(h.last, padding); err != nil {
			t.Fatal(err)
		}
		h.want = append(h.want, clients.Arrival{N: h.last, Padding: padding})
	}
	ctx := withPatience(t)
	for i, c := range h.clients {
		got := numbered(c)
		for ; len(got) < len(h.want) && c.Err() == nil && ctx.Err() == nil; got = numbered(c) {
			time.Sleep(5 * time.Millisecond)
		}
		if c.Err() != nil || !slices.Equal(got, h.want) {
			first := 0
			for first < min(len(got), len(h.want)) && got[first] == h.want[first] {
				first++
			}
			t.Fatalf("client %d of %d (%s), connection error %v: %d of %d messages; the first %d are right, the next ones are %+v",
				i+1, len(h.clients), c.Kind, c.Err(), len(got), len(h.want), first, got[first:min(len(got), first+5)])
		}
	}
}

// numbered returns the messages that the client has got, without the messages 0 of Settle.
func numbered(c *clients.Client) []clients.Arrival {
	var got []clients.Arrival
	for _, a := range c.Arrivals() {
		if a.Latency = 0; a.N > 0 {
			got = append(got, a)
		}
	}
	return got
}

// answers sends a request that goes to this place, and returns the status of the answer. If the table has no such
// request, it returns want.
func (f *faults) answers(t *testing.T, to string, want int) (int, error) {
	t.Helper()
	accept := map[string]func(handoffs.Row) bool{handoffs.Fanout: plain, handoffs.Origin: withBody}[to]
	row, ok := table.Find(to, accept)
	if !ok {
		t.Logf("the table has no request that goes to %s, so its answer is not tested", to)
		return want, nil
	}
	resp, err := http.DefaultClient.Do(f.request(t, row, ""))
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func (f *faults) wantAnswer(t *testing.T, to string, want int) {
	t.Helper()
	if got, err := f.answers(t, to, want); err != nil || got != want {
		t.Errorf("a request that goes to %s: got status %d, %v; want %d", to, got, err, want)
	}
}

// The origin dies, and comes back. The held connections stay open, and get the messages.
func testOriginDies(t *testing.T, f *faults) {
	h := f.hold(t, scale(10, 200))
	f.origin.Close()
	h.check(t, 3, 0)
	f.wantAnswer(t, handoffs.Origin, http.StatusBadGateway) // the app's
	f.wantAnswer(t, handoffs.Fanout, http.StatusBadGateway) // Pushpin's
	for _, kind := range f.kinds {
		if _, err := f.open(kind, h.channel); err == nil || !strings.Contains(err.Error(), "502") {
			t.Errorf("a new client, %s: got %v, want a 502", kind, err)
		}
	}

	f.startOrigin(t, clients.Origin)
	f.wantAnswer(t, handoffs.Origin, http.StatusOK)
	f.wantAnswer(t, handoffs.Fanout, http.StatusOK)
	h.check(t, 3, 0)
}

// The origin accepts requests, but does not answer them. The held connections stay open, and get the messages. For a
// forwarded request, the client gets a 502 after the timeout. (Fastly tells the app that this was a timeout, and then
// it is a 504; Viceroy does not.) For a request that is handed off, Pushpin waits longer than this test.
func testOriginHangs(t *testing.T, f *faults) {
	h := f.hold(t, scale(10, 200))
	f.origin.Close()
	goOn := make(chan struct{})
	f.startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		<-goOn
		clients.Origin(w, r)
	})

	got := make(chan error, 1)
	go func() {
		status, err := f.answers(t, handoffs.Fanout, http.StatusOK)
		got <- errors.Join(err, unless(status == http.StatusOK, "status %d", status))
	}()
	f.wantAnswer(t, handoffs.Origin, http.StatusBadGateway)
	h.check(t, 3, 0)

	close(goOn)
	if err := <-got; err != nil {
		t.Errorf("a request that was sent while the origin hung: %v", err)
	}
	f.wantAnswer(t, handoffs.Origin, http.StatusOK)
	f.wantAnswer(t, handoffs.Fanout, http.StatusOK)
	h.check(t, 3, 0)
}

func unless(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// Half of the clients disconnect at the same time, some with a reset. The other clients get all messages.
func testHalfVanish(t *testing.T, f *faults) {
	h := f.hold(t, scale(20, 500))
	h.check(t, 3, 0)
	gone, rest := h.clients[:len(h.clients)/2], h.clients[len(h.clients)/2:]
	var leaving sync.WaitGroup
	for i, c := range gone {
		leave := c.Leave
		if i%4 < 2 { // some clients of both kinds
			leave = c.Vanish
		}
		leaving.Go(leave)
	}
	h.clients = rest
	h.check(t, 3, 0)
	leaving.Wait()
	h.check(t, 3, 0)
}

// Some clients read nothing, and the messages for them fill all buffers. Other clients on the same channel still get
// their messages.
func testStalled(t *testing.T, f *faults) {
	h := f.hold(t, scale(5, 200))
	var stalled []net.Conn
	for range scale(2, 10) {
		for kind, row := range handedOff() {
			request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: localhost\r\n%s", clients.WithChannel(clients.WithChannel(row.Target, "flood"), h.channel), headOf(row))
			if kind == clients.Socket {
				request += "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
			}
			stalled = append(stalled, f.readNothing(t, request+"\r\n"))
		}
	}
	const messages, size = 500, 30_000
	flood := &held{faults: f, channel: "flood"}
	for n := range messages {
		if err := flood.send(n, size); err != nil {
			t.Fatal(err)
		}
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

// readNothing sends a request, and reads only the status of the response.
func (f *faults) readNothing(t *testing.T, request string) net.Conn {
	t.Helper()
	conn := f.dial(t)
	status := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, status); err != nil {
		t.Fatalf("read the status: %v; got %q", err, status)
	}
	return conn
}

// Many clients connect and disconnect. No process keeps memory or files for them.
func testComeAndGo(t *testing.T, f *faults) {
	if len(f.kinds) == 0 {
		t.Skip("main.go hands off no request that could be held")
	}
	cycles := scale(400, 10_000)
	f.comeAndGo(t, cycles/10) // to warm up
	before := f.usage(t)
	f.comeAndGo(t, cycles/2)
	half := f.settled(t, before)
	f.comeAndGo(t, cycles/2)
	for name, end := range f.settled(t, before) {
		t.Logf("%s: memory %d KiB, then %d, then %d; files %d, then %d, then %d", name,
			before[name].memory>>10, half[name].memory>>10, end.memory>>10, before[name].files, half[name].files, end.files)
		if limit := half[name].memory*11/10 + 8<<20; end.memory > limit {
			t.Errorf("%s grew from %d to %d KiB in the second %d cycles; the limit is %d", name, half[name].memory>>10, end.memory>>10, cycles/2, limit>>10)
		}
	}
}

// comers is the number of clients that connect and disconnect at the same time.
const comers = 20

// comeAndGo connects and disconnects clients.
func (f *faults) comeAndGo(t *testing.T, cycles int) {
	t.Helper()
	var coming sync.WaitGroup
	failed := make(chan error, cycles)
	for worker := range comers {
		coming.Go(func() {
			for i := worker; i < cycles; i += comers {
				c, err := f.open(f.kinds[i%len(f.kinds)], "come-and-go")
				if err != nil {
					failed <- err
					continue
				}
				if i%4 < 2 {
					c.Vanish()
				} else {
					c.Leave()
				}
			}
		})
	}
	coming.Wait()
	close(failed)
	if len(failed) > cycles/100 { // Pushpin 1.36 itself answers a few requests of many thousands with a 502
		t.Errorf("%d of %d clients could not connect, the first because: %v", len(failed), cycles, <-failed)
	}
}

// processes returns the processes that serve the app, by name.
func (f *faults) processes() map[string]*process.Process {
	named := map[string]*process.Process{}
	for _, p := range f.app.Tree() {
		if name, err := p.Name(); err == nil {
			named[name] = p
		}
	}
	return named
}

// used is what a process uses.
type used struct {
	memory uint64 // resident, in bytes
	files  int32  // open
}

// usage returns what each of these processes uses, by name.
func (f *faults) usage(t *testing.T) map[string]used {
	t.Helper()
	usage := map[string]used{}
	for name, p := range f.processes() {
		memory, err := p.MemoryInfo()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files, _ := p.NumFDs() // not every system reports it
		usage[name] = used{memory.RSS, files}
	}
	return usage
}

// settled waits until no process has many more open files than before, and returns the usage.
func (f *faults) settled(t *testing.T, before map[string]used) map[string]used {
	t.Helper()
	const more = 2 * comers // such as idle connections to the origin
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		usage, grown := f.usage(t), ""
		for name, u := range usage {
			if u.files > before[name].files+more {
				grown += fmt.Sprintf(" %s from %d to %d", name, before[name].files, u.files)
			}
		}
		if grown == "" {
			return usage
		}
		if time.Now().After(deadline) {
			t.Fatalf("files stay open:%s", grown)
		}
	}
}

// A burst of requests arrives, ten times as many as the origin handles at once. Each gets an answer.
func testBurst(t *testing.T, f *faults) {
	row, atOnce := forwarded(t), scale(10, 50)
	places := make(chan struct{}, atOnce)
	f.origin.Close()
	f.startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		places <- struct{}{}
		time.Sleep(20 * time.Millisecond) // the work of the origin
		<-places
		clients.Origin(w, r)
	})
	var burst sync.WaitGroup
	for i := range 10 * atOnce {
		burst.Go(func() {
			want := fmt.Sprint("post ", i)
			began := time.Now()
			resp, err := http.DefaultClient.Do(f.request(t, row, want))
			if err != nil {
				t.Error(err)
				return
			}
			took := time.Since(began)
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			// On a slow machine, the last requests may take longer than the timeout.
			if late := resp.StatusCode == http.StatusBadGateway && took >= firstByte; err != nil || !late && (resp.StatusCode != http.StatusOK || string(got) != want) {
				t.Errorf("%s: got %s, %q, %v", want, resp.Status, got, err)
			}
		})
	}
	burst.Wait()
	f.wantAnswer(t, handoffs.Origin, http.StatusOK)
}

// change changes the app: it writes changed.go.
func (f *faults) change(t *testing.T, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, "changed.go"), []byte("package main\n\nfunc init() { println(\"changed:\", \""+content+"\") }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The app changes, and `fastly compute serve --watch` builds it and starts it again. The open connections end, clients
// can connect again, and no process of the old app is left.
func testRebuilt(t *testing.T, f *faults) {
	h := f.hold(t, scale(10, 200))
	old := f.processes()
	f.change(t, "one")
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	for _, c := range h.clients {
		select {
		case <-c.Done():
		case <-ctx.Done():
			t.Fatal("a connection stays open")
		}
	}
	if _, err := f.app.WaitForListener(ctx, f.addr, old["viceroy"]); err != nil {
		t.Fatal(err)
	}
	f.hold(t, scale(10, 200)).check(t, 3, 0)
	f.waitForLog(t, "changed: one")
	now := f.processes()
	for name, p := range old {
		if alive := chain.Alive(p); alive == (name == "viceroy") || now[name] == nil {
			t.Errorf("%s, process %d from before the change: running is %t", name, p.Pid, alive)
		}
	}
	if len(now) != len(old) {
		t.Errorf("there are %d programs, and there were %d", len(now), len(old))
	}

	// Stop the CLI while it builds again.
	f.change(t, "two")
	for chain.Alive(now["viceroy"]) && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	f.app.Stop()
	for name, p := range now {
		if chain.Alive(p) {
			t.Errorf("%s, process %d, still runs", name, p.Pid)
		}
	}
	waitFree(t, append(f.Addresses(), f.addr)...)
}
