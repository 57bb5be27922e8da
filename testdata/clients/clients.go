// Package clients opens event streams and WebSockets, many at once. Each client notes which numbered messages
// arrive, and when. The package has an origin for them too. The clients connect to this machine only.
package clients

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

// Kind says how a client is connected.
type Kind string

// The kinds.
const (
	Stream Kind = "events" // Server-Sent Events
	Socket Kind = "socket" // a WebSocket
)

// Kinds are all the kinds.
var Kinds = []Kind{Stream, Socket}

// openTimeout limits the time to connect, and then the time until the response begins.
const openTimeout = 30 * time.Second

// maxMessage limits the size of a message, in bytes.
const maxMessage = 1 << 20

// Message returns the nth message to a channel, with padding extra bytes. It carries the time.
func Message(channel string, n, padding int) grip.Item {
	text := fmt.Sprintf("%d %d %s", n, time.Now().UnixNano(), strings.Repeat("x", padding))
	return grip.Item{Channel: channel, Formats: grip.Formats{
		HTTPStream: &grip.HTTPStream{Content: "data: " + text + "\n\n"},
		WSMessage:  &grip.WSMessage{Content: text},
	}}
}

// Arrival describes a message that arrived at a client.
type Arrival struct {
	N       int           // its number
	Latency time.Duration // since Message made it
	Padding int           // how many extra bytes it had
}

// Client is a connected client.
type Client struct {
	Kind    Kind
	Channel string

	conn  net.Conn
	leave context.CancelFunc
	done  chan struct{} // closed when the connection has ended

	mu  sync.Mutex
	got []Arrival
	err error // why the connection has ended
}

// Open connects a client to the server at addr, a host:port on this machine. It sends a GET for the target
// with this header, and subscribes to the channel. The connection ends when ctx does, or with Leave.
// If the server refuses, the error has its answer.
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

// dial connects to this machine only: to another server, so many clients would be an attack.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
		return nil, fmt.Errorf("the clients connect to 127.0.0.1 only, not to %q", addr)
	}
	return (&net.Dialer{Timeout: openTimeout}).DialContext(ctx, network, addr)
}

// opener opens a connection. It returns a function that reads messages until the connection ends.
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

// take notes a text that Message made. It ignores other texts, which the origin sends.
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

// Arrivals returns the messages that have arrived, in the order of their arrival.
func (c *Client) Arrivals() []Arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// Err returns why the connection ended, or nil while it is open.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Done returns a channel that is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Leave closes the connection, without a closing message.
func (c *Client) Leave() {
	c.conn.Close()
	c.leave()
	<-c.done
}

// Vanish resets the connection, as if the client's program had died.
func (c *Client) Vanish() {
	c.conn.(*net.TCPConn).SetLinger(0)
	c.Leave()
}

// Settle waits until the clients are subscribed: that may be a moment after their connections open. It
// calls publish, which publishes the message 0, once in each interval, until every client that is still
// connected has got one.
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
