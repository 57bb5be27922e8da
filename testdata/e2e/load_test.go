package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

var long = flag.Bool("long", false, "make TestLoad use thousands of connections, as `make load` does")

func scale(short, longer int) int {
	if *long {
		return longer
	}
	return short
}

// TestLoad holds many connections, and checks every message on each of them, whatever happens to
// the other parts.
func TestLoad(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	if *long { // Go raises the limit of open files only for itself: raise it for Viceroy and Pushpin, too
		const needed = 10_000
		var limit syscall.Rlimit
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur < needed ||
			syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
			t.Fatalf("a program needs %d open files, and the system allows %d: raise the limit (ulimit -Hn %[1]d, as root)",
				needed, limit.Cur)
		}
	}
	l := &load{project: newProject(t)}
	l.set(t, 2000, "local_server", "backends", "origin", "first_byte_timeout_ms")
	l.startOrigin(t, holdAll)
	t.Cleanup(func() { l.server.Close() })
	app := l.serve(t)

	// Every message arrives on every connection. The app must not lose more than Pushpin itself does.
	direct, through := l.load(t, loopback(l.proxyPort)), l.load(t, l.addr)
	t.Logf("directly at Pushpin: %+v\nthrough the app: %+v", direct, through)
	if direct.lost() > direct.Connections/100 {
		t.Fatal("Pushpin itself loses too much to compare with")
	}
	if through.lost() > direct.lost() {
		t.Error("the app loses more than Pushpin itself")
	}
	t.Run("the origin dies and hangs", l.testOrigin)
	t.Run("some clients read nothing", l.testStalled)
	t.Run("clients come and go", l.testComeAndGo)
	t.Run("the app ends and comes back", func(t *testing.T) {
		app.stop()
		l.serve(t)
		l.hold(t, scale(10, 200), l.addr)
		l.check(t, 3, 0)
	})
}

// load is a project that is served while things go wrong, and the clients that it holds on a channel.
type load struct {
	*project
	server  *http.Server // the origin
	channel string
	clients []*client
	sent    int // how many messages each client must have got
}

// startOrigin starts the origin. l.server.Close ends it and its connections at once, as if it had died.
func (l *load) startOrigin(t *testing.T, handler http.HandlerFunc) {
	t.Helper()
	listener, err := net.Listen("tcp", l.origin)
	if err != nil {
		t.Fatal(err)
	}
	l.server = &http.Server{Handler: handler}
	go l.server.Serve(listener)
}

// hold opens n event streams and n WebSockets at addr, until the test ends, and waits until each of
// them gets messages.
func (l *load) hold(t *testing.T, n int, addr string) {
	t.Helper()
	l.channel, l.clients, l.sent = rand.Text(), nil, 0
	for refused := 0; len(l.clients) < 2*n; {
		c, err := openClient(t.Context(), addr, []string{"events", "socket"}[len(l.clients)%2], l.channel)
		if err == nil {
			l.clients = append(l.clients, c)
		} else if refused++; refused > 1+n/100 { // Pushpin 1.36 answers a few of many thousands with a 502
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // Pushpin 1.36 drops some of the connections that open in a burst
	}
	// A subscription starts a moment after the connection opens.
	eventually(t, "a message reaches each client", func() bool {
		l.publish(t, 0, 0)
		time.Sleep(l.pace())
		return count(l.clients, 0).Subscribed == len(l.clients)
	})
}

// pace returns how long to wait after a message. The Fastly CLI lets Pushpin deliver 2,500 in a
// second, to all clients together, and Pushpin drops messages if too many wait.
func (l *load) pace() time.Duration { return time.Duration(len(l.clients)) * time.Second / 2000 }

// publish publishes the nth message, with this many extra bytes, directly to Pushpin, because the
// origin may be down.
func (l *load) publish(t *testing.T, n, padding int) {
	t.Helper()
	publishNumbered(t, l.project, l.channel, n, padding)
}

// deliver publishes n messages and returns what the clients have got when nothing more is to come.
func (l *load) deliver(t *testing.T, n, padding int) (sum tally) {
	t.Helper()
	for range n {
		l.sent++
		l.publish(t, l.sent, padding)
		time.Sleep(l.pace())
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		sum = count(l.clients, l.sent)
		if sum.Missing == 0 || time.Now().After(deadline) {
			return sum
		}
	}
}

// check publishes n messages. Each client must have got all so far, once, in order and complete.
func (l *load) check(t *testing.T, n, padding int) {
	t.Helper()
	if sum := l.deliver(t, n, padding); sum.lost() > 0 {
		t.Fatalf("after %d messages: %+v", l.sent, sum)
	}
}

func (l *load) load(t *testing.T, addr string) (sum tally) {
	t.Run("load at "+addr, func(t *testing.T) {
		l.hold(t, scale(10, 2000), addr)
		sum = l.deliver(t, 30, 64)
	})
	return sum
}

// The origin dies, and comes back, but does not answer until later. The held connections stay open,
// and get the messages. A forwarded request gets a 502 after the timeout. (On Fastly, the app knows
// that this was a timeout, and the client gets a 504.) One that is handed off waits at Pushpin.
func (l *load) testOrigin(t *testing.T) {
	l.hold(t, scale(10, 200), l.addr)
	l.server.Close()
	l.check(t, 3, 0)
	want := func(method string, status int) {
		t.Helper()
		if got := l.fetch(t, method, "/", "hello").status; got != status {
			t.Errorf("%s: got status %d, want %d", method, got, status)
		}
	}
	want("GET", http.StatusBadGateway)  // Pushpin's
	want("POST", http.StatusBadGateway) // the app's
	if _, err := openClient(t.Context(), l.addr, "socket", l.channel); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("a new WebSocket: got %v, want a 502", err)
	}

	goOn, waiting := make(chan struct{}), make(chan string, 1)
	l.startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		<-goOn
		holdAll(w, r)
	})
	go func() {
		resp, err := l.do(t.Context(), "GET", "/", "")
		waiting <- fmt.Sprint(resp, err)
	}()
	want("POST", http.StatusBadGateway)
	l.check(t, 3, 0)
	close(goOn)
	if got := <-waiting; !strings.Contains(got, "200 OK") {
		t.Errorf("a GET that was sent while the origin hung: got %s", got)
	}
	want("GET", http.StatusOK)
	want("POST", http.StatusOK)
	l.check(t, 3, 0)
}

// Some clients read nothing, and the messages for them fill all buffers. Other clients on the same
// channel still get their messages.
func (l *load) testStalled(t *testing.T) {
	l.hold(t, scale(5, 200), l.addr)
	var stalled []net.Conn
	for range scale(4, 20) {
		conn := l.dial(t)
		conn.(*net.TCPConn).SetReadBuffer(64 << 10) // the system would hold megabytes for the client
		io.WriteString(conn, "GET /events?channel=flood&channel="+l.channel+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200"))); err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, conn)
	}
	const messages, size = 500, 30_000
	for n := range messages {
		publishNumbered(t, l.project, "flood", n, size)
		if n%20 == 0 {
			l.check(t, 1, 0)
		}
	}
	l.check(t, 1, size)

	// If these clients had not been stalled, they would now get all the data.
	for _, conn := range stalled {
		conn.SetDeadline(time.Now().Add(time.Second))
		if n, err := io.Copy(io.Discard, conn); n >= messages*size {
			t.Errorf("a client that had read nothing got all %d bytes, %v: it was not stalled", n, err)
		}
	}
}

// Half of the clients leave at once, and many others come and go. The rest get all messages.
func (l *load) testComeAndGo(t *testing.T) {
	l.hold(t, scale(20, 500), l.addr)
	half := len(l.clients) / 2
	for _, c := range l.clients[:half] {
		c.conn.Close()
	}
	l.clients = l.clients[half:]
	cycles := scale(20, 500)
	failed := make(chan int, 20)
	for range cap(failed) {
		go func() {
			n := 0
			for i := range cycles {
				c, err := openClient(t.Context(), l.addr, []string{"events", "socket"}[i%2], l.channel)
				if err != nil {
					n++
					continue
				}
				c.conn.(*net.TCPConn).SetLinger(0) // reset the connection, as if the client's program had died
				c.conn.Close()
			}
			failed <- n
		}()
	}
	l.check(t, 10, 0)
	sum := 0
	for range cap(failed) {
		sum += <-failed
	}
	l.check(t, 3, 0)
	if sum > 20*cycles/100 { // Pushpin 1.36 itself answers a few requests with a 502
		t.Errorf("%d of %d clients could not connect", sum, 20*cycles)
	}
}

// client is an open event stream or WebSocket. It counts the numbered messages that arrive.
type client struct {
	conn net.Conn

	mu sync.Mutex
	tally
	last      int // the number of the last message
	latencies []time.Duration
}

// openClient connects a client of this kind, events or socket, until ctx ends, to the app or
// directly to Pushpin.
func openClient(ctx context.Context, addr, kind, channel string) (*client, error) {
	c := &client{}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { c.conn = got.Conn },
	})
	target := "/" + kind + "?channel=" + channel
	var lines *bufio.Scanner
	var err error
	// Viceroy sets the header Pushpin-Route. Without the app, Pushpin needs it from the client.
	if kind == "events" {
		lines, err = site{"http://" + addr}.lines(ctx, target, "Pushpin-Route", "origin")
	} else {
		var ws *websocket.Conn
		options := &websocket.DialOptions{HTTPHeader: http.Header{"Pushpin-Route": {"origin"}}}
		if ws, _, err = websocket.Dial(ctx, "ws://"+addr+target, options); err == nil {
			lines = bufio.NewScanner(websocket.NetConn(ctx, ws, websocket.MessageText))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open a client at %s%s: %w", addr, target, err)
	}
	go func() {
		for lines.Scan() {
			c.take(strings.TrimPrefix(lines.Text(), "data: "))
		}
		c.mu.Lock()
		c.Dropped = 1
		c.mu.Unlock()
	}()
	return c, nil
}

// publishNumbered publishes the nth message to a channel, with the time and this many extra bytes.
func publishNumbered(t *testing.T, p *project, channel string, n, padding int) {
	t.Helper()
	text := fmt.Sprintf("%d %d %d %s\n", n, time.Now().UnixNano(), padding, strings.Repeat("x", padding))
	p.publish(t, channel, grip.Formats{
		HTTPStream: &grip.HTTPStream{Content: "data: " + text + "\n"},
		WSMessage:  &grip.WSMessage{Content: text},
	})
}

// tally counts connections, and the messages on them.
type tally struct {
	Connections, Subscribed, Dropped int
	Messages, Missing, Extra         int           // Extra: duplicates, and those that come too late
	P50, P99                         time.Duration // from publish to arrival
}

// lost counts all that should not be.
func (s tally) lost() int { return s.Dropped + s.Missing + s.Extra }

// take counts a line that has arrived. A message 0 has no place in the order: it only shows that the
// client is subscribed. The origin's own lines have no numbers.
func (c *client) take(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n, published, padding int
	fmt.Sscan(line, &n, &published, &padding)
	switch {
	case published == 0 || strings.Count(line, "x") != padding: // not a message, or not all of it
	case n == 0:
		c.Subscribed = 1
	case n <= c.last:
		c.Extra++
	default:
		c.Messages++
		c.Missing += n - c.last - 1
		c.last = n
		c.latencies = append(c.latencies, time.Since(time.Unix(0, int64(published))).Round(time.Millisecond))
	}
}

// count sums up what the clients have got. Each must have got the messages from 1 to sent, in order.
func count(clients []*client, sent int) (sum tally) {
	var latencies []time.Duration
	for _, c := range clients {
		c.mu.Lock()
		sum.Connections++
		sum.Subscribed += c.Subscribed
		sum.Dropped += c.Dropped
		sum.Messages += c.Messages
		sum.Missing += c.Missing + sent - c.last
		sum.Extra += c.Extra
		latencies = append(latencies, c.latencies...)
		c.mu.Unlock()
	}
	if n := len(latencies); n > 0 {
		slices.Sort(latencies)
		sum.P50, sum.P99 = latencies[n/2], latencies[n*99/100]
	}
	return sum
}

// The counting notices each kind of loss.
func TestCount(t *testing.T) {
	var clients []*client
	for _, numbers := range []string{"0 0 1 2 3", "1 2 2 3", "2 1 3", "1 3", "1"} {
		clients = append(clients, &client{})
		for n := range strings.FieldsSeq(numbers) {
			clients[len(clients)-1].take(n + " 1700000000000000000 3 xxx")
		}
	}
	clients[3].take("4 1700000000000000000 20 xxx") // incomplete
	sum := count(clients, 3)
	sum.P50, sum.P99 = 0, 0
	if want := (tally{5, 1, 0, 11, 4, 2, 0, 0}); sum != want {
		t.Errorf("got %+v, want %+v", sum, want)
	}
}

// holdAll is the origin of these clients. It tells Pushpin to hold each of them on the channels
// ?channel=. It answers any other request with the request's body. It keeps no history: only Pushpin
// knows the connections.
func holdAll(w http.ResponseWriter, r *http.Request) {
	channels := r.URL.Query()["channel"]
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.Header.Get("Content-Type") == grip.EventsType:
		w.Header().Set("Content-Type", grip.EventsType)
		w.Header().Set(grip.HeaderExtension, grip.Extension)
		if strings.HasPrefix(string(body), "OPEN\r\n") {
			w.Write(grip.EncodeEvents(grip.Event{Type: grip.Open}, grip.Subscribe(channels[0])))
		}
	case len(channels) > 0:
		w.Header()[grip.HeaderChannel] = channels
		w.Header().Set(grip.HeaderHold, grip.Stream)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, ": open\n\n")
	default:
		w.Write(body)
	}
}
