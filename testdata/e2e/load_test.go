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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

var clients = flag.Int("clients", 40, "how many connections TestLoad holds at the same time")

// TestLoad holds many connections, and accounts for every message on each of them, whatever happens
// to the other parts.
func TestLoad(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.set(t, "local_server.backends.origin.first_byte_timeout_ms", 2000)
	origin := startHolder(t, p.origin)
	app := p.serve(t)
	allowed := *clients / 100 // losses of Pushpin itself; and then, the app must not lose more than Pushpin
	for _, addr := range []string{loopback(p.proxyPort), p.addr} {
		t.Run("at "+addr, func(t *testing.T) {
			allowed = hold(t, p, addr, *clients).deliver(t, 30, allowed)
		})
	}
	t.Run("a client stalls", func(t *testing.T) { testStall(t, p) })
	t.Run("clients come and go", func(t *testing.T) { testComeAndGo(t, p) })
	app.stop()
	p.serve(t) // the app comes back
	t.Run("the origin dies and hangs", func(t *testing.T) { testOriginDies(t, p, origin) })
}

// A client reads nothing, and the messages for it fill all buffers. Other clients on the same channel
// still get their messages.
func testStall(t *testing.T, p *project) {
	others := hold(t, p, p.addr, *clients/4)
	stalled := p.send(t, "GET /events?channel=flood&channel="+others.channel+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	stalled.(*net.TCPConn).SetReadBuffer(64 << 10) // the system would hold megabytes for the client
	readUntil(t, bufio.NewReader(stalled), ": open\n\n")
	const messages, size = 500, 30_000
	flood := grip.Formats{HTTPStream: &grip.HTTPStream{Content: strings.Repeat("x", size)}}
	for n := range messages {
		p.publish(t, "flood", flood)
		if n%20 == 0 {
			others.deliver(t, 1, 0)
		}
	}

	// If the client had not been stalled, it would now get all the data.
	stalled.SetDeadline(time.Now().Add(time.Second))
	if n, err := io.Copy(io.Discard, stalled); n >= messages*size {
		t.Errorf("a client that had read nothing got all %d bytes, %v: it was not stalled", n, err)
	}
}

// Many clients leave at once, and others come and go by the thousand. The rest get all messages.
func testComeAndGo(t *testing.T, p *project) {
	staying := hold(t, p, p.addr, *clients/4)
	t.Run("leave at once", func(t *testing.T) { hold(t, p, p.addr, *clients/4) })
	var refused atomic.Int64
	var visitors sync.WaitGroup
	for range 10 {
		visitors.Go(func() {
			for n := range *clients / 4 {
				ctx, leave := context.WithCancel(t.Context())
				if _, err := openLines(ctx, p.addr, staying.channel, n); err != nil {
					refused.Add(1)
				}
				leave() // without the close of a WebSocket, as if the client's program had died
			}
		})
	}
	staying.deliver(t, 10, 0)
	visitors.Wait()
	staying.deliver(t, 3, 0)
	if n := int(refused.Load()); n > *clients/40 { // Pushpin 1.36 itself answers a few with a 502
		t.Errorf("%d clients could not connect", n)
	}
}

// The origin dies, comes back without answering, and then answers. The held connections stay open, and
// get the messages. A forwarded request gets a 502.
func testOriginDies(t *testing.T, p *project, origin *http.Server) {
	held := hold(t, p, p.addr, *clients/4)
	wantPost := func(status int) {
		t.Helper()
		if got := p.fetch(t, "POST", "/", "hello").status; got != status {
			t.Errorf("a POST got status %d, want %d", got, status)
		}
		held.deliver(t, 3, 0)
	}
	origin.Close()
	wantPost(http.StatusBadGateway)
	hanging := startServer(t, p.origin)
	hanging.answers <- func(conn net.Conn) { io.Copy(io.Discard, conn) } // until Viceroy gives up
	wantPost(http.StatusBadGateway)
	hanging.Close()
	startHolder(t, p.origin)
	wantPost(http.StatusOK)
}

// startHolder starts an origin that has Pushpin hold each client on the channels ?channel=. Close ends
// it and its connections, as if it had died.
func startHolder(t *testing.T, addr string) *http.Server {
	origin := &http.Server{Addr: addr, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		channels, header := r.URL.Query()["channel"], w.Header()
		if r.Header.Get("Content-Type") == grip.EventsType { // the events of a WebSocket
			header.Set("Content-Type", grip.EventsType)
			header.Set(grip.HeaderExtension, grip.Extension)
			w.Write(grip.EncodeEvents(grip.Event{Type: grip.Open}, grip.Subscribe(channels[0])))
		} else if len(channels) > 0 {
			header.Set("Content-Type", "text/event-stream")
			header.Set(grip.HeaderHold, grip.Stream)
			header[grip.HeaderChannel] = channels
			io.WriteString(w, ": open\n\n")
		}
	})}
	t.Cleanup(func() { origin.Close() })
	go origin.ListenAndServe()
	return origin
}

// audience is a number of clients on one channel, and what has arrived at them.
type audience struct {
	*project
	channel       string
	clients, sent int // each client should get the messages from 0 to sent

	sync.Mutex
	dropped   int   // connections that have ended
	extra     int   // messages that came again, or too late
	latencies []int // in ms, of the messages that came in order
}

// hold opens connections at addr, the app or Pushpin, until the test ends. It waits until each of them
// gets messages.
func hold(t *testing.T, p *project, addr string, clients int) *audience {
	t.Helper()
	a := &audience{project: p, channel: rand.Text()}
	for refused := 0; a.clients < clients; {
		lines, err := openLines(t.Context(), addr, a.channel, a.clients)
		if err == nil {
			a.clients++
			go a.receive(lines)
		} else if refused++; refused > 1+clients/100 { // Pushpin 1.36 answers a few of many thousands with a 502
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // Pushpin 1.36 drops some of the connections that open in a burst
	}
	eventually(t, "a message reaches each client", func() bool {
		a.publish(t, 0)
		lost, _ := a.count()
		return lost == 0
	})
	return a
}

// openLines connects the nth client, in turn an event stream and a WebSocket, and returns the lines
// that it gets. The connection closes when ctx ends.
func openLines(ctx context.Context, addr, channel string, n int) (*bufio.Scanner, error) {
	const route = "Pushpin-Route" // Viceroy sets this header. Without the app, Pushpin needs it from the client.
	if n%2 == 0 {
		return site{"http://" + addr}.lines(ctx, "/events?channel="+channel, route, "origin")
	}
	options := &websocket.DialOptions{HTTPHeader: http.Header{route: {"origin"}}}
	ws, _, err := websocket.Dial(ctx, "ws://"+addr+"/socket?channel="+channel, options)
	if err != nil {
		return nil, err
	}
	return bufio.NewScanner(websocket.NetConn(ctx, ws, websocket.MessageText)), nil
}

// numbered is the format of the messages, with the time in nanoseconds since 1970.
const numbered = "message %d, published at %d ns, is complete"

// publish publishes the nth message directly to Pushpin, because the origin may be down. Then it waits,
// because the Fastly CLI lets Pushpin deliver only 2,500 messages in a second, to all clients together,
// and Pushpin drops messages if too many wait.
func (a *audience) publish(t *testing.T, n int) {
	t.Helper()
	text := fmt.Sprintf(numbered, n, time.Now().UnixNano()) + "\n"
	a.project.publish(t, a.channel, grip.Formats{
		HTTPStream: &grip.HTTPStream{Content: "data: " + text + "\n"},
		WSMessage:  &grip.WSMessage{Content: text},
	})
	time.Sleep(time.Duration(a.clients) * time.Second / 2000)
}

// receive counts the messages on one connection until it ends. Message 0 may come several times,
// because it is published until each client is subscribed.
func (a *audience) receive(lines *bufio.Scanner) {
	for last := -1; lines.Scan(); {
		var n, published int
		if _, err := fmt.Sscanf(strings.TrimPrefix(lines.Text(), "data: "), numbered, &n, &published); err != nil {
			continue // the origin's own line, or not all of a message
		}
		a.Lock()
		switch {
		case n > last:
			a.latencies = append(a.latencies, int(time.Since(time.Unix(0, int64(published))).Milliseconds()))
		case n > 0:
			a.extra++
		}
		last = max(last, n)
		a.Unlock()
	}
	a.Lock()
	a.dropped++
	a.Unlock()
}

// count returns how many connections and messages are lost so far, and in which ways.
func (a *audience) count() (lost int, report string) {
	a.Lock()
	defer a.Unlock()
	missing := a.clients*(a.sent+1) - len(a.latencies)
	sorted := append(slices.Sorted(slices.Values(a.latencies)), 0) // is never empty
	n := len(a.latencies)
	return a.dropped + missing + a.extra, fmt.Sprintf(
		"%d messages to %d clients: %d dropped, %d missing, %d extra; p50 %d ms, p99 %d ms",
		a.sent, a.clients, a.dropped, missing, a.extra, sorted[n/2], sorted[n*99/100])
}

// deliver publishes n messages, and waits until each client has got all so far, once and in order. It
// fails the test if more are lost than allowed, and returns how many.
func (a *audience) deliver(t *testing.T, n, allowed int) int {
	t.Helper()
	for range n {
		a.sent++
		a.publish(t, a.sent)
	}
	lost, report := a.count()
	for deadline := time.Now().Add(patience); lost > 0 && time.Now().Before(deadline); lost, report = a.count() {
		time.Sleep(20 * time.Millisecond)
	}
	if t.Log(report); lost > allowed {
		t.FailNow()
	}
	return lost
}

// The count notices each kind of loss. Here, each connection ends, and should have got three messages.
func TestCount(t *testing.T) {
	for messages, want := range map[string]string{
		"0 0 1 2 3": "0 missing, 0 extra",
		"0 1 2 2 3": "0 missing, 1 extra",
		"0 2 1 3":   "1 missing, 1 extra",
		"0 1 3":     "1 missing, 0 extra",
		"0 1 2 3,":  "1 missing, 0 extra", // is not complete
	} {
		a := &audience{clients: 1, sent: 3}
		var lines string
		for n := range strings.FieldsSeq(messages) {
			lines += fmt.Sprintf("data: message %s, published at 1 ns, is complete\n", n)
		}
		a.receive(bufio.NewScanner(strings.NewReader(lines)))
		if _, got := a.count(); !strings.Contains(got, "1 dropped, "+want) {
			t.Errorf("%s: got %s, want %s", messages, got, want)
		}
	}
}
