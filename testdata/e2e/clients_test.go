package e2e

import (
	"bufio"
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

// client is an open event stream or WebSocket. It notes which numbered messages arrive.
type client struct {
	conn net.Conn

	mu  sync.Mutex
	got []arrival
	err error // why the connection has ended; nil while it is open
}

// arrival is a numbered message that has arrived.
type arrival struct {
	n       int
	latency time.Duration // since it was published
}

// numbered returns the nth message to a channel, with the time and this many extra bytes.
func numbered(channel string, n, padding int) grip.Item {
	text := fmt.Sprintf("%d %d %d %s\n", n, time.Now().UnixNano(), padding, strings.Repeat("x", padding))
	return grip.Item{Channel: channel, Formats: grip.Formats{
		HTTPStream: &grip.HTTPStream{Content: "data: " + text + "\n"},
		WSMessage:  &grip.WSMessage{Content: text},
	}}
}

// openClient connects a client of this kind, events or socket, to the app or directly to Pushpin, until ctx ends.
func openClient(ctx context.Context, addr, kind, channel string) (*client, error) {
	c := &client{}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { c.conn = got.Conn },
	})
	target := addr + "/" + kind + "?channel=" + channel
	var lines *bufio.Scanner
	var err error
	// Viceroy sets the header Pushpin-Route. Without the app, Pushpin needs it from the client.
	if kind == "events" {
		lines, err = openLines(ctx, "http://"+target, "Pushpin-Route", "origin")
	} else {
		var ws *websocket.Conn
		options := &websocket.DialOptions{HTTPHeader: http.Header{"Pushpin-Route": {"origin"}}}
		if ws, _, err = websocket.Dial(ctx, "ws://"+target, options); err == nil {
			lines = bufio.NewScanner(websocket.NetConn(ctx, ws, websocket.MessageText))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open a client at %s: %w", target, err)
	}
	go func() {
		for lines.Scan() {
			c.take(strings.TrimPrefix(lines.Text(), "data: "), nil)
		}
		c.take("", cmp.Or(lines.Err(), io.EOF))
	}()
	return c, nil
}

// take notes a complete message that has arrived, or the error that ended the connection.
func (c *client) take(text string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	var n, published, padding int
	fmt.Sscan(text, &n, &published, &padding) // the origin's own texts have no numbers
	if published > 0 && strings.Count(text, "x") == padding {
		c.got = append(c.got, arrival{n, time.Since(time.Unix(0, int64(published)))})
	}
}

// tally counts connections, and the messages on them.
type tally struct {
	Connections, Subscribed, Dropped          int
	Messages, Missing, Duplicates, OutOfOrder int
	P50, P99                                  time.Duration // from publish to arrival
}

// lost counts all that should not be.
func (s tally) lost() int { return s.Dropped + s.Missing + s.Duplicates + s.OutOfOrder }

// count counts what the clients have got. Each must have got the messages from 1 to sent, in order.
// A message 0 has no place in the order: it only shows that the client is subscribed.
func count(clients []*client, sent int) (sum tally) {
	var latencies []time.Duration
	for _, c := range clients {
		c.mu.Lock()
		got, err := slices.Clone(c.got), c.err
		c.mu.Unlock()
		sum.Connections++
		if err != nil {
			sum.Dropped++
		}
		if len(got) > 0 {
			sum.Subscribed++
		}
		seen, last := map[int]bool{0: true}, 0
		for _, a := range got {
			switch {
			case a.n == 0:
				continue
			case seen[a.n]:
				sum.Duplicates++
				continue
			case a.n < last:
				sum.OutOfOrder++
			}
			seen[a.n], last = true, max(last, a.n)
			sum.Messages++
			latencies = append(latencies, a.latency.Round(time.Millisecond))
		}
		sum.Missing += sent + 1 - len(seen)
	}
	if n := len(latencies); n > 0 {
		slices.Sort(latencies)
		sum.P50, sum.P99 = latencies[n/2], latencies[n*99/100]
	}
	return sum
}

// holdClients is the origin for these clients. It tells the proxy to hold each of them on the channels
// ?channel=. It answers any other request with the request's body. It keeps no history: only the proxy
// knows the connections.
func holdClients(w http.ResponseWriter, r *http.Request) {
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
		w.Header().Set(grip.HeaderHold, string(grip.Stream))
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, ": open\n\n")
	default:
		w.Write(body)
	}
}
