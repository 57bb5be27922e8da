// Package crowd is many clients at once, event streams and WebSockets, that note which numbered messages
// arrive on them, and when; and an origin for them. They connect to this machine only.
package crowd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// Kind is how a client is connected.
type Kind string

// The kinds.
const (
	Stream Kind = "events" // Server-Sent Events
	Socket Kind = "socket" // a WebSocket
)

// Kinds are all the kinds.
var Kinds = []Kind{Stream, Socket}

// openTimeout is how long a client may take to connect, and the server to begin its response.
const openTimeout = 30 * time.Second

// maxMessage is how large a message may be that a client takes, in bytes.
const maxMessage = 1 << 20

// Message returns the nth message to a channel, with padding bytes of filling. It carries the time.
func Message(channel string, n, padding int) grip.Item {
	text := fmt.Sprintf("%d %d %s", n, time.Now().UnixNano(), strings.Repeat("x", padding))
	return grip.Item{Channel: channel, Formats: grip.Formats{
		HTTPStream: &grip.HTTPStream{Content: "data: " + text + "\n\n"},
		WSMessage:  &grip.WSMessage{Content: text},
	}}
}

// Arrival is a message that has arrived.
type Arrival struct {
	N       int           // its number
	Latency time.Duration // from when it was made
	Padding int           // the size of its filling, in bytes
}

// Client is a client.
type Client struct {
	Kind    Kind
	Channel string

	conn  net.Conn
	leave context.CancelFunc
	done  chan struct{} // closed once the connection has ended

	mu  sync.Mutex
	got []Arrival
	err error // why the connection has ended
}

// Open connects a client to the server at addr, a host:port on this machine, with a request for the target,
// and subscribes it to a channel. The header goes with its request. The connection ends with ctx, or with
// Leave. An error says what the server answered instead.
func Open(ctx context.Context, kind Kind, addr, target, channel string, header http.Header) (*Client, error) {
	ctx, leave := context.WithCancel(ctx)
	c := &Client{Kind: kind, Channel: channel, leave: leave, done: make(chan struct{})}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			c.conn, err = dial(ctx, network, addr)
			return c.conn, err
		},
		ResponseHeaderTimeout: openTimeout, DisableCompression: true,
	}
	url := "http://" + addr + WithChannel(target, channel)
	follow, err := map[Kind]opener{Stream: c.openStream, Socket: c.openSocket}[kind](ctx, &http.Client{Transport: transport}, url, header)
	if err != nil {
		leave()
		transport.CloseIdleConnections()
		return nil, fmt.Errorf("open %s: %w", url, err)
	}
	go func() {
		err := follow()
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		close(c.done)
		c.conn.Close()
	}()
	return c, nil
}

// WithChannel returns the target with a channel in its query.
func WithChannel(target, channel string) string {
	if strings.Contains(target, "?") {
		return target + "&channel=" + channel
	}
	return target + "?channel=" + channel
}

// dial refuses to leave this machine: what a crowd does to a server is an attack elsewhere.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
		return nil, fmt.Errorf("a crowd connects to 127.0.0.1 only, not to %q", addr)
	}
	return (&net.Dialer{Timeout: openTimeout}).DialContext(ctx, network, addr)
}

// opener opens a connection, and returns what follows it until it ends.
type opener func(ctx context.Context, client *http.Client, url string, header http.Header) (follow func() error, err error)

func (c *Client) openStream(ctx context.Context, client *http.Client, url string, header http.Header) (func() error, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	return func() error {
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, maxMessage)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				c.take(data)
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
		return io.EOF
	}, nil
}

func (c *Client) openSocket(ctx context.Context, client *http.Client, url string, header http.Header) (func() error, error) {
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client, HTTPHeader: header})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxMessage)
	return func() error {
		for {
			_, text, err := conn.Read(ctx)
			if err != nil {
				return err
			}
			c.take(string(text))
		}
	}, nil
}

// take notes a text if it is a message of a crowd: the origin has some of its own.
func (c *Client) take(text string) {
	fields := strings.SplitN(text, " ", 3)
	if len(fields) != 3 {
		return
	}
	n, err := strconv.Atoi(fields[0])
	made, err2 := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || err2 != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, Arrival{n, time.Since(time.Unix(0, made)), len(fields[2])})
}

// Arrivals returns what has arrived, in the order in which it did.
func (c *Client) Arrivals() []Arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// Err returns why the connection has ended, or nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Done is closed once the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Leave ends the connection, without a word of goodbye.
func (c *Client) Leave() {
	c.conn.Close()
	c.leave()
	<-c.done
}

// Vanish ends the connection with a reset, as one does whose program or machine died.
func (c *Client) Vanish() {
	c.conn.(*net.TCPConn).SetLinger(0)
	c.Leave()
}

// Settle publishes the message 0, with publish, every interval until it has reached each of the
// clients that are still connected: a subscription may begin a moment after the client sees its
// connection open.
func Settle(ctx context.Context, clients []*Client, interval time.Duration, publish func() error) error {
	for {
		if err := publish(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no message has reached %d of %d clients: %w", len(unsettled(clients)), len(clients), context.Cause(ctx))
		case <-time.After(interval):
		}
		if len(unsettled(clients)) == 0 {
			return nil
		}
	}
}

func unsettled(clients []*Client) []*Client {
	return slices.DeleteFunc(slices.Clone(clients), func(c *Client) bool {
		return c.Err() != nil || len(c.Arrivals()) > 0
	})
}
