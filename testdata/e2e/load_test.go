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
	"regexp"
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

// TestLoad holds many connections, and accounts for every message on each, whatever other parts do.
func TestLoad(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.set(t, "local_server.backends.origin.first_byte_timeout_ms", 2000)
	origin := startHolder(t, p.origin)
	app := p.serve(t)
	for _, addr := range []string{loopback(p.proxyPort), p.addr} {
		t.Run("at "+addr, func(t *testing.T) {
			hold(t, p, addr, *clients).deliver(t, 30)
		})
	}
	t.Run("clients stall, come and go", func(t *testing.T) { testOtherClients(t, p) })
	app.stop()
	p.serve(t) // the app comes back
	t.Run("the origin dies and hangs", func(t *testing.T) { testOriginDies(t, p, origin) })
}

// A client reads nothing, and the messages for it fill all buffers. Others come and go by the thousand,
// and many more leave at once. Those that stay, on the same channel, get all messages.
func testOtherClients(t *testing.T, p *project) {
	staying := hold(t, p, p.addr, *clients/4)
	stalled := p.send(t, "GET /events?channel=flood&channel="+staying.channel+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	stalled.(*net.TCPConn).SetReadBuffer(64 << 10) // the system would hold megabytes for the client
	readUntil(t, bufio.NewReader(stalled), ": open\n\n")
	flood := grip.Formats{HTTPStream: &grip.HTTPStream{Content: strings.Repeat("x", 30_000)}}
	for range 25 {
		for range 20 {
			p.publish(t, "flood", flood)
		}
		staying.deliver(t, 1)
	}
	// If the client had not been stalled, it would now get all the data.
	stalled.SetDeadline(time.Now().Add(time.Second))
	if n, _ := io.Copy(io.Discard, stalled); n >= 25*20*30_000 {
		t.Errorf("a client that had read nothing got all %d bytes: it was not stalled", n)
	}
	var visitors sync.WaitGroup
	var refused atomic.Int64
	for range 10 {
		visitors.Go(func() {
			for n := range *clients / 4 {
				ctx, leave := context.WithCancel(t.Context())
				_, err := openLines(ctx, p.addr, staying.channel, n)
				if err != nil && refused.Add(1) > int64(*clients/40) { // Pushpin 1.36 answers a few with a 502
					t.Error(err)
				}
				leave() // without the close of a WebSocket, as if the client's program had died
			}
		})
	}
	staying.deliver(t, 10)
	visitors.Wait()
	t.Run("leave at once", func(t *testing.T) { hold(t, p, p.addr, *clients/4) })
	staying.deliver(t, 3)
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
		held.deliver(t, 3)
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
	eventually(t, "the origin listens", func() bool { return listens(addr) })
	return origin
}

// audience is a number of clients on one channel, and what has arrived at them.
type audience struct {
	*project
	channel       string
	clients, sent int       // each client should get the messages from 0 to sent
	arrived       chan int  // the latency in ms of each message that is the next one on its connection
	latencies     []int     // those that count has taken from arrived
	failed        chan bool // has one element for each connection that has ended, or missed a message
}

// hold opens connections at addr, the app or Pushpin, until the test ends. It waits until each of them
// gets messages.
func hold(t *testing.T, p *project, addr string, clients int) *audience {
	t.Helper()
	a := &audience{project: p, channel: rand.Text(), arrived: make(chan int, 100*clients), failed: make(chan bool, clients)}
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
	// Pushpin 1.36 drops a few of many thousands before they are subscribed.
	eventually(t, "a message reaches each client", func() bool {
		a.publish(t, 0)
		lost, _ := a.count()
		return lost == 2*len(a.failed) && len(a.failed) <= clients/100
	})
	for ; len(a.failed) > 0; a.clients-- {
		<-a.failed
	}
	return a
}

// openLines connects the nth client, in turn an event stream and a WebSocket, and returns the lines
// that it gets. The connection closes when ctx ends.
func openLines(ctx context.Context, addr, channel string, n int) (*bufio.Scanner, error) {
	const route = "Pushpin-Route" // Viceroy sets this header. Without the app, Pushpin needs it from the client.
	if n%2 == 0 {
		return site{"http://" + addr}.lines(ctx, "/events?channel="+channel, route, "origin")
	}
	ws, _, err := websocket.Dial(ctx, "ws://"+addr+"/socket?channel="+channel,
		&websocket.DialOptions{HTTPHeader: http.Header{route: {"origin"}}})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { ws.CloseNow() }) // NetConn does so only while somebody reads
	return bufio.NewScanner(websocket.NetConn(ctx, ws, websocket.MessageText)), nil
}

// numbered is the format of the messages, with the time in milliseconds since 1970.
const numbered = "message %d, published at %d ms, is complete"

// publish publishes the nth message directly to Pushpin, because the origin may be down. Then it waits,
// because the Fastly CLI lets Pushpin deliver only 2,500 messages in a second, to all clients together,
// and Pushpin drops messages if too many wait.
func (a *audience) publish(t *testing.T, n int) {
	t.Helper()
	text := fmt.Sprintf(numbered, n, time.Now().UnixMilli()) + "\n"
	a.project.publish(t, a.channel, grip.Formats{
		HTTPStream: &grip.HTTPStream{Content: "data: " + text + "\n"},
		WSMessage:  &grip.WSMessage{Content: text},
	})
	time.Sleep(time.Duration(a.clients) * time.Second / 2000)
}

// receive counts the messages on one connection until it ends, or until a message is not the next one.
// Message 0 may come several times, because it is published until each client is subscribed.
func (a *audience) receive(lines *bufio.Scanner) {
	defer func() { a.failed <- true }()
	for next := 0; lines.Scan(); {
		var n, published int
		_, err := fmt.Sscanf(strings.TrimPrefix(lines.Text(), "data: "), numbered, &n, &published)
		if err != nil || n == 0 && next > 0 {
			continue // the origin's own line, or not all of a message, or message 0 again
		}
		if n != next {
			return
		}
		next++
		a.arrived <- int(time.Now().UnixMilli()) - published
	}
}

// count returns how many connections and messages are lost so far, and a report.
func (a *audience) count() (lost int, report string) {
	for len(a.arrived) > 0 {
		a.latencies = append(a.latencies, <-a.arrived)
	}
	n, failed := len(a.latencies), len(a.failed)
	missing := a.clients*(a.sent+1) - n
	sorted := append(slices.Sorted(slices.Values(a.latencies)), 0) // is never empty
	return failed + missing, fmt.Sprintf(
		"%d messages to %d clients: %d connections failed, %d messages missing; p50 %d ms, p99 %d ms",
		a.sent, a.clients, failed, missing, sorted[n/2], sorted[n*99/100])
}

// deliver publishes n messages, and waits until each client has got all so far, once and in order.
func (a *audience) deliver(t *testing.T, n int) {
	t.Helper()
	for range n {
		a.sent++
		a.publish(t, a.sent)
	}
	lost, report := a.count()
	for deadline := time.Now().Add(patience); lost > 0 && time.Now().Before(deadline); lost, report = a.count() {
		time.Sleep(20 * time.Millisecond)
	}
	if t.Log(report); lost > 0 {
		t.FailNow()
	}
}

// The count notices each kind of loss. Here, a connection should have got three messages when it ends.
func TestCount(t *testing.T) {
	for messages, missing := range map[string]int{
		"0 0 1 2 3": 0,
		"0 1 2 2 3": 1,
		"0 1 3":     2,
		"0 1 2 3,":  1, // is not complete
	} {
		a := &audience{clients: 1, sent: 3, arrived: make(chan int, 9), failed: make(chan bool, 1)}
		lines := regexp.MustCompile(`(\S+) ?`).ReplaceAllString(messages, "data: message $1, published at 1 ms, is complete\n")
		a.receive(bufio.NewScanner(strings.NewReader(lines)))
		if lost, got := a.count(); lost != 1+missing {
			t.Errorf("%s: got %s; want 1 connection failed, %d messages missing", messages, got, missing)
		}
	}
}
