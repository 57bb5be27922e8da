// Package grip has the functions that an origin needs behind a GRIP proxy, Fanout or Pushpin. It checks that the proxy
// sent a request, makes instructions to hold connections open, decodes and encodes WebSocket-over-HTTP, and publishes.
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
	HeaderSig       = "Grip-Sig"        // request: a JWT that proves that the proxy sent the request
	HeaderLast      = "Grip-Last"       // request: the id of the last message that the proxy delivered, for each channel
	HeaderHold      = "Grip-Hold"       // response: how to hold the connection
	HeaderChannel   = "Grip-Channel"    // response: a channel to subscribe the connection to
	HeaderTimeout   = "Grip-Timeout"    // response: how long to hold a response, in seconds
	HeaderKeepAlive = "Grip-Keep-Alive" // response: what to send on an idle stream
	HeaderLink      = "Grip-Link"       // response: where the proxy asks for messages that it has missed
)

// Mode is how a connection is held.
type Mode string

// The modes.
// Source: https://pushpin.org/docs/protocols/grip/
const (
	Response Mode = "response" // the proxy waits for a message, and sends it as the response; after a timeout it sends the origin's response
	Stream   Mode = "stream"   // the proxy sends the response, keeps it open, and adds messages to it
)

// Channel is a channel to subscribe to.
type Channel struct {
	Name string
	// PrevID is the id of the last message that the client has got. If the proxy knows a later message, it sends the
	// request to the origin again, so that the client misses nothing. PrevID is empty if messages have no ids.
	PrevID string
}

// Hold tells the proxy to hold a connection open.
// Source: https://pushpin.org/docs/protocols/grip/
type Hold struct {
	Mode     Mode
	Channels []Channel
	// Timeout is the time to hold in the mode Response, in whole seconds. 0 means the proxy's default. Pushpin uses at
	// least five seconds.
	Timeout time.Duration
	// In the mode Stream, the proxy sends KeepAlive when the stream has been idle for KeepAliveAfter, in whole seconds.
	// If KeepAlive is empty, it sends nothing.
	KeepAlive      string
	KeepAliveAfter time.Duration
	// Next is needed in the mode Stream if a channel has a PrevID. The proxy requests this target when it has missed
	// a message, and also each time that NextAfter has passed, in whole seconds. It sends HeaderLast with the request,
	// and adds the response to the stream.
	Next      string
	NextAfter time.Duration
}

var token = regexp.MustCompile(`^[A-Za-z0-9._:-]+$`)

// Set sets the headers of a response for the hold. If a channel's name or id has characters that are not allowed, it
// returns an error and sets no header.
func (hold Hold) Set(h http.Header) error {
	var channels []string
	for _, c := range hold.Channels {
		value := c.Name
		if c.PrevID != "" {
			value += "; prev-id=" + c.PrevID
		}
		if !token.MatchString(c.Name) || c.PrevID != "" && !token.MatchString(c.PrevID) {
			return fmt.Errorf("%s %q: only letters, digits, '.', '_', ':' and '-' are allowed", HeaderChannel, value)
		}
		channels = append(channels, value)
	}
	h[HeaderChannel] = channels
	h.Set(HeaderHold, string(hold.Mode))
	if hold.Timeout > 0 {
		h.Set(HeaderTimeout, seconds(hold.Timeout))
	}
	if hold.KeepAlive != "" {
		text := base64.StdEncoding.EncodeToString([]byte(hold.KeepAlive)) // the text may have any characters
		h.Set(HeaderKeepAlive, text+"; format=base64; timeout="+seconds(hold.KeepAliveAfter))
	}
	if hold.Next != "" {
		h.Set(HeaderLink, "<"+hold.Next+">; rel=next; timeout="+seconds(hold.NextAfter))
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// Last returns the id of the last message that the proxy delivered to this client on the channel. The id is in the
// request's HeaderLast. Without it, Last returns "".
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

// The response that accepts a WebSocket has HeaderExtension with the value Extension. Then the proxy looks at the prefix
// of each message from the origin. After MessagePrefix, the rest of the message goes to the client. After ControlPrefix,
// the rest is a control message for the proxy. So if an origin sends back a client's text, after MessagePrefix, the
// proxy never takes the text for a control message.
// Source: https://pushpin.org/docs/protocols/grip/
const (
	HeaderExtension = "Sec-WebSocket-Extensions"
	Extension       = "grip"
	MessagePrefix   = "m:"
	ControlPrefix   = "c:"
)

// Message returns the event that sends a message to a client. The kind is Text or Binary.
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

// CloseEvent returns the event that closes a WebSocket with a code and a reason, which has at most 123 bytes.
// Source: RFC 6455 section 5.5.1
func CloseEvent(code uint16, reason string) Event {
	return Event{Type: Close, Content: append([]byte{byte(code >> 8), byte(code)}, reason...)}
}

// ErrNotProxied is the error for a request that did not come through the GRIP proxy.
var ErrNotProxied = errors.New("this request did not come through the GRIP proxy")
