package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"flag"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
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
	origin := serveHTTP(t, p.origin, subscribe)
	p.serve(t)
	for _, addr := range []string{loopback(p.proxyPort), p.addr} {
		t.Run("at "+addr, func(t *testing.T) { hold(t, p, addr, *clients).deliver(t, 30) })
	}
	held := hold(t, p, p.addr, *clients/4)
	t.Run("a client stalls", held.testStall)
	for range 4 { // as if their programs had died, without the close of a WebSocket
		t.Run("clients vanish", func(t *testing.T) { hold(t, p, p.addr, *clients/4) })
		held.deliver(t, 3)
	}
	p.app.stop()
	p.serve(t)
	hold(t, p, p.addr, *clients/4).testOriginDies(t, origin)
}

// A client on the same channel reads nothing, and the messages for it fill all buffers.
func (a *audience) testStall(t *testing.T) {
	stalled := a.send(t, "GET /events?channel=flood&channel="+a.channel+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	flood := grip.Formats{HTTPStream: &grip.HTTPStream{Content: strings.Repeat("x", 60_000)}}
	for range 10 {
		for range 50 { // 30 MB in all
			a.project.publish(t, "flood", flood)
		}
		a.deliver(t, 1)
	}
	if _, err := io.ReadFull(stalled, make([]byte, 10_000)); err != nil { // some of it, after the head
		t.Error(err)
	}
}

// The origin dies, comes back without answering, and then answers. A forwarded request gets a 502.
func (a *audience) testOriginDies(t *testing.T, origin *http.Server) {
	wantPost := func(status int) {
		t.Helper()
		if got, _ := a.fetch(t, "POST", "/", "hello"); got != status {
			t.Errorf("a POST got status %d, want %d", got, status)
		}
		a.deliver(t, 3)
	}
	origin.Close()
	wantPost(http.StatusBadGateway)
	hanging := serveHTTP(t, a.origin, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	wantPost(http.StatusBadGateway)
	hanging.Close()
	serveHTTP(t, a.origin, subscribe)
	wantPost(http.StatusOK)
}

// serveHTTP runs a server until the test ends. Its Close ends its connections too, as if it had died.
func serveHTTP(t testing.TB, addr string, handler http.HandlerFunc) *http.Server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	t.Cleanup(func() { server.Close() })
	go server.Serve(l)
	return server
}

// subscribe is the handler of an origin that has Pushpin hold each client on the channels ?channel=.
func subscribe(w http.ResponseWriter, r *http.Request) {
	channels, header := r.URL.Query()["channel"], w.Header()
	if r.Header.Get("Content-Type") == grip.EventsType { // the events of a WebSocket
		header.Set("Content-Type", grip.EventsType)
		header.Set(grip.HeaderExtension, grip.Extension)
		w.Write(grip.EncodeEvents(grip.Event{Type: grip.Open}, grip.Subscribe(channels[0])))
	} else if len(channels) > 0 {
		header.Set(grip.HeaderHold, grip.Stream)
		header[grip.HeaderChannel] = channels
	}
}

// audience is a number of clients on one channel.
type audience struct {
	*project
	channel string
	clients []chan message // what arrives at each client
	sent    int            // the number of the last message
	leave   func()         // ends the connections
}

// message is one that has arrived, or with the number 0 the end of the connection.
type message struct {
	number int
	at     time.Time
}

// hold opens connections at addr, the app or Pushpin, and waits until message 1 reaches each client.
func hold(t *testing.T, p *project, addr string, clients int) *audience {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	a := &audience{p, rand.Text(), make([]chan message, clients), 1, leave}
	for n := range a.clients {
		a.clients[n] = make(chan message, 100)
		lines, err := openLines(ctx, addr, a.channel, n)
		if err != nil {
			t.Log(err)
		}
		go receive(lines, a.clients[n])
		time.Sleep(10 * time.Millisecond) // Pushpin 1.36 drops some of the connections that open in a burst
	}
	eventually(t, "a message reaches each client, or the connection ends", func() bool {
		a.publish(t, 1)
		return !slices.ContainsFunc(a.clients, func(c chan message) bool { return len(c) == 0 })
	})
	a.clients = slices.DeleteFunc(a.clients, func(c chan message) bool { return (<-c).number == 0 })
	if failed := clients - len(a.clients); failed > 1+clients/100 { // Pushpin 1.36 drops a few of thousands
		t.Fatalf("%d of %d connections failed before a message came", failed, clients)
	}
	return a
}

// openLines connects the nth client, in turn an event stream and a WebSocket, until ctx ends.
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
	return bufio.NewScanner(websocket.NetConn(ctx, ws, websocket.MessageText)), nil
}

// receive passes on the messages of a connection, and message 1 only once. Without one, lines is nil.
func receive(lines *bufio.Scanner, arrived chan message) {
	for last := 0; lines != nil && lines.Scan(); {
		number, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "data: "))
		if err == nil && (number > 1 || last == 0) {
			arrived <- message{number, time.Now()}
			last = number
		}
	}
	arrived <- message{}
	close(arrived)
}

// publish publishes message n to Pushpin. It waits, because the Fastly CLI lets Pushpin deliver only
// 2,500 messages in a second, to all clients together, and Pushpin drops some if too many wait.
func (a *audience) publish(t *testing.T, n int) {
	t.Helper()
	text := "data: " + strconv.Itoa(n) + "\n\n"
	a.project.publish(t, a.channel, grip.Formats{
		HTTPStream: &grip.HTTPStream{Content: text},
		WSMessage:  &grip.WSMessage{Content: text},
	})
	time.Sleep(time.Duration(len(a.clients)) * time.Second / 2000)
}

// deliver publishes n messages, and waits until each client has got them, once and in order.
func (a *audience) deliver(t *testing.T, n int) {
	t.Helper()
	published := map[int]time.Time{}
	for range n {
		a.sent++
		published[a.sent] = time.Now()
		a.publish(t, a.sent)
	}
	defer time.AfterFunc(patience, a.leave).Stop() // so that something arrives in any case
	var latencies []time.Duration
	for _, arrived := range a.clients {
		for want := a.sent - n + 1; want <= a.sent; want++ {
			m := <-arrived
			if m.number != want {
				t.Fatalf("message %d arrived in place of message %d (0: the connection ended)", m.number, want)
			}
			latencies = append(latencies, m.at.Sub(published[want]).Round(time.Millisecond))
		}
	}
	slices.Sort(latencies)
	t.Logf("%d clients got %d messages once and in order: p50 %v, p99 %v",
		len(a.clients), n, latencies[len(latencies)/2], latencies[len(latencies)*99/100])
}
