package e2e

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// client is an open event stream or WebSocket. It notes which numbered messages arrive, and when.
type client struct {
	conn net.Conn
	done chan struct{} // closed when the connection has ended

	mu  sync.Mutex
	got []arrival
	err error // why the connection has ended; nil while it is open
}

// kinds are the kinds of client: event streams and WebSockets.
var kinds = []string{"events", "socket"}

// arrival is a numbered message that has arrived.
type arrival struct {
	n, padding int           // its number, and its extra bytes
	latency    time.Duration // since it was published
}

// numbered returns the nth message to a channel, with padding extra bytes and the time.
func numbered(channel string, n, padding int) grip.Item {
	text := fmt.Sprintf("%d %d %s", n, time.Now().UnixNano(), strings.Repeat("x", padding))
	return grip.Item{Channel: channel, Formats: grip.Formats{
		HTTPStream: &grip.HTTPStream{Content: "data: " + text + "\n\n"},
		WSMessage:  &grip.WSMessage{Content: text},
	}}
}

// openClient connects a client to the app or directly to Pushpin. If the server refuses, the error has its status.
func openClient(addr, kind, channel string) (*client, error) {
	c := &client{done: make(chan struct{})}
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { c.conn = got.Conn },
	})
	next, err := openKind(ctx, kind, addr+"/"+kind+"?channel="+channel)
	if err != nil {
		return nil, fmt.Errorf("open %s at %s: %w", kind, addr, err)
	}
	go func() {
		defer close(c.done)
		defer c.conn.Close()
		for err == nil {
			var text string
			text, err = next()
			c.take(text, err)
		}
	}()
	return c, nil
}

// openKind opens a connection of this kind. next returns the next text that arrives.
func openKind(ctx context.Context, kind, target string) (next func() (string, error), err error) {
	// Viceroy sets the header Pushpin-Route. Without the app, Pushpin needs it from the client.
	if kind == "socket" {
		ws, _, err := websocket.Dial(ctx, "ws://"+target, &websocket.DialOptions{HTTPHeader: http.Header{"Pushpin-Route": {"origin"}}})
		if err != nil {
			return nil, err
		}
		ws.SetReadLimit(1 << 20)
		return func() (string, error) {
			_, text, err := ws.Read(ctx)
			return string(text), err
		}, nil
	}
	lines, err := openLines(ctx, "http://"+target, "Pushpin-Route", "origin")
	return func() (string, error) {
		if !lines.Scan() {
			return "", cmp.Or(lines.Err(), io.EOF)
		}
		return strings.TrimPrefix(lines.Text(), "data: "), nil
	}, err
}

// take notes a text that has arrived, or the error that ended the connection.
func (c *client) take(text string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	var a arrival
	var published int64
	if _, err := fmt.Sscan(text, &a.n, &published); err == nil { // not a text of the origin
		a.padding, a.latency = strings.Count(text, "x"), time.Since(time.Unix(0, published))
		c.got = append(c.got, a)
	}
}

// arrivals returns the messages that have arrived, and why the connection ended, or nil while it is open.
func (c *client) arrivals() ([]arrival, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got), c.err
}

// leave closes the connection, without a closing message.
func (c *client) leave() {
	c.conn.Close()
	<-c.done
}

// vanish resets the connection, as if the client's program had died.
func (c *client) vanish() {
	c.conn.(*net.TCPConn).SetLinger(0)
	c.leave()
}

// tally counts connections, and the messages on them.
type tally struct {
	opened, subscribed, dropped                int // connections
	delivered, missing, duplicates, outOfOrder int // messages
	p50, p99, max                              time.Duration
}

func (s tally) String() string {
	return fmt.Sprintf("%d connections, %d dropped; %d messages, %d missing, %d duplicates, %d out of order; "+
		"publish to arrival: p50 %v, p99 %v, max %v", s.opened, s.dropped, s.delivered, s.missing, s.duplicates,
		s.outOfOrder, s.p50.Round(time.Millisecond), s.p99.Round(time.Millisecond), s.max.Round(time.Millisecond))
}

// lost counts all that should not be.
func (s tally) lost() int { return s.dropped + s.missing + s.duplicates + s.outOfOrder }

// count counts what the clients have got. Each must have got the messages from 1 on, in order, and message n with
// padding[n-1] extra bytes.
func count(clients []*client, padding []int) (sum tally) {
	var latencies []time.Duration
	for _, c := range clients {
		got, err := c.arrivals()
		sum.opened++
		if err != nil {
			sum.dropped++
		}
		if len(got) > 0 {
			sum.subscribed++
		}
		seen, last := map[int]bool{0: true}, 0
		for _, a := range got {
			switch {
			case a.n == 0 || a.n > len(padding) || a.padding != padding[a.n-1]:
				continue // 0 has no place in the order; an incomplete message is missing
			case seen[a.n]:
				sum.duplicates++
				continue
			case a.n < last:
				sum.outOfOrder++
			}
			seen[a.n], last = true, max(last, a.n)
			sum.delivered++
			latencies = append(latencies, a.latency)
		}
		sum.missing += len(padding) + 1 - len(seen)
	}
	if n := len(latencies); n > 0 {
		slices.Sort(latencies)
		sum.p50, sum.p99, sum.max = latencies[n/2], latencies[n*99/100], latencies[n-1]
	}
	return sum
}

// holdClients is the origin for these clients. It tells the proxy to hold each of them on the channels ?channel=. It
// answers any other request with the request's body. It keeps no history: only the proxy knows the connections.
func holdClients(w http.ResponseWriter, r *http.Request) {
	channels := r.URL.Query()["channel"]
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil: // the client has gone
	case r.Header.Get("Content-Type") == grip.EventsType:
		var out []grip.Event
		if strings.HasPrefix(string(body), "OPEN\r\n") {
			out = append(out, grip.Event{Type: grip.Open})
			for _, name := range channels {
				out = append(out, grip.Subscribe(name))
			}
		}
		w.Header().Set("Content-Type", grip.EventsType)
		w.Header().Set(grip.HeaderExtension, grip.Extension)
		w.Write(grip.EncodeEvents(out...))
	case len(channels) > 0:
		w.Header()[grip.HeaderChannel] = channels
		w.Header().Set(grip.HeaderHold, string(grip.Stream))
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, ": open\n\n")
	default:
		w.Write(body)
	}
}
