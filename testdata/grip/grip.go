// Package grip is what an origin needs to work behind a GRIP proxy, Fanout or Pushpin: the check of
// who sent a request, instructions to hold connections open, WebSockets over HTTP, and publishing.
// Source: https://pushpin.org/docs/protocols/grip/
package grip

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The headers between a GRIP proxy and an origin.
// Source: https://pushpin.org/docs/protocols/grip/
const (
	HeaderSig       = "Grip-Sig"        // request: a JWT that shows that a proxy sent it
	HeaderLast      = "Grip-Last"       // request: what the proxy last delivered, for each channel
	HeaderHold      = "Grip-Hold"       // response: hold the connection, and how
	HeaderChannel   = "Grip-Channel"    // response: a channel to subscribe it to
	HeaderTimeout   = "Grip-Timeout"    // response: how long to hold a response, in seconds
	HeaderKeepAlive = "Grip-Keep-Alive" // response: what to send on a stream that is idle
	HeaderLink      = "Grip-Link"       // response: where the proxy asks for what it has missed
)

// Mode is how a connection is held.
type Mode string

// The modes.
// Source: https://pushpin.org/docs/protocols/grip/
const (
	Response Mode = "response" // the response is kept back until a message replaces it, or a timeout sends it
	Stream   Mode = "stream"   // the response is sent, and stays open for messages to be appended
)

// Channel is a channel to subscribe to.
type Channel struct {
	Name string
	// PrevID is the id of the last message that the client has got. If the proxy knows of a later one,
	// it asks the origin again instead of losing what came in between. Empty: messages have no ids.
	PrevID string
}

// Hold instructs the proxy to hold a connection open.
// Source: https://pushpin.org/docs/protocols/grip/
type Hold struct {
	Mode     Mode
	Channels []Channel
	// Timeout is how long to hold in the mode Response, in whole seconds. 0: the proxy's default.
	// Pushpin makes it five seconds at least.
	Timeout time.Duration
	// KeepAlive is sent, in the mode Stream, whenever the stream is idle for KeepAliveAfter, in whole
	// seconds. Empty: nothing is.
	KeepAlive      string
	KeepAliveAfter time.Duration
	// Next, needed in the mode Stream if a channel has a PrevID, is the target that the proxy requests
	// when it has missed something, and after NextAfter, in whole seconds, in any case. It sends
	// HeaderLast with that request, and appends the response.
	Next      string
	NextAfter time.Duration
}

var token = regexp.MustCompile(`^[A-Za-z0-9._:-]+$`)

// Set sets the headers that carry the hold. It returns an error if a channel's name or id has
// characters that do not fit in a header; then it sets none.
func (hold Hold) Set(h http.Header) error {
	var channels []string
	for _, c := range hold.Channels {
		value := c.Name
		if c.PrevID != "" {
			value += "; prev-id=" + c.PrevID
		}
		if !token.MatchString(c.Name) || c.PrevID != "" && !token.MatchString(c.PrevID) {
			return fmt.Errorf("%s %q: only letters, digits, '.', '_', ':' and '-' fit in", HeaderChannel, value)
		}
		channels = append(channels, value)
	}
	h[HeaderChannel] = channels
	h.Set(HeaderHold, string(hold.Mode))
	if hold.Timeout > 0 {
		h.Set(HeaderTimeout, seconds(hold.Timeout))
	}
	if hold.KeepAlive != "" {
		text := base64.StdEncoding.EncodeToString([]byte(hold.KeepAlive)) // it may be anything
		h.Set(HeaderKeepAlive, text+"; format=base64; timeout="+seconds(hold.KeepAliveAfter))
	}
	if hold.Next != "" {
		h.Set(HeaderLink, "<"+hold.Next+">; rel=next; timeout="+seconds(hold.NextAfter))
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// Last returns, from a request's HeaderLast, the id of the last message that the proxy delivered to
// this client on the channel, or "".
// Source: https://pushpin.org/docs/protocols/grip/
func Last(h http.Header, channel string) string {
	for _, line := range h.Values(HeaderLast) {
		for item := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(item, ";")
			if strings.TrimSpace(name) != channel {
				continue
			}
			for param := range strings.SplitSeq(params, ";") {
				if id, ok := strings.CutPrefix(strings.TrimSpace(param), "last-id="); ok {
					return id
				}
			}
		}
	}
	return ""
}

// HeaderExtension, with the value Extension in the response that accepts a WebSocket, has the proxy
// look at the prefix of each message from the origin: MessagePrefix is taken off and the rest goes to
// the client, ControlPrefix addresses the proxy itself. With both, nothing that a client wrote and an
// origin sends back can pass for a control message.
// Source: https://pushpin.org/docs/protocols/grip/
const (
	HeaderExtension = "Sec-WebSocket-Extensions"
	Extension       = "grip"
	MessagePrefix   = "m:"
	ControlPrefix   = "c:"
)

// Message returns the event that sends a message, of the type Text or Binary, to a client.
// Source: https://pushpin.org/docs/protocols/grip/
func Message(kind string, content []byte) Event {
	return Event{Type: kind, Content: append([]byte(MessagePrefix), content...)}
}

// Subscribe returns the event that subscribes a WebSocket to a channel.
// Source: https://pushpin.org/docs/protocols/grip/
func Subscribe(channel string) Event {
	message, err := json.Marshal(map[string]string{"type": "subscribe", "channel": channel})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	return Event{Type: Text, Content: append([]byte(ControlPrefix), message...)}
}

// CloseEvent returns the event that closes a WebSocket, with a code and a reason of at most 123 bytes.
// Source: RFC 6455 section 5.5.1
func CloseEvent(code uint16, reason string) Event {
	return Event{Type: Close, Content: append([]byte{byte(code >> 8), byte(code)}, reason...)}
}

// ErrNotProxied is the error for a request that did not come through the GRIP proxy.
var ErrNotProxied = errors.New("this request did not come through the GRIP proxy")
