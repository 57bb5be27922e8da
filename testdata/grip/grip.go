// Package grip implements what an origin needs behind a GRIP proxy (Fanout or Pushpin):
// it verifies that the proxy sent a request, instructs the proxy to hold connections
// open, decodes and encodes WebSocket-over-HTTP, and publishes.
// Source: https://pushpin.org/docs/protocols/grip/
package grip

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The headers between a GRIP proxy and an origin.
const (
	HeaderSig       = "Grip-Sig"        // request: a JWT that proves that the proxy sent the request
	HeaderLast      = "Grip-Last"       // request: the id of the last delivered message, for each channel
	HeaderHold      = "Grip-Hold"       // response: how to hold the connection
	HeaderChannel   = "Grip-Channel"    // response: a channel to subscribe the connection to
	HeaderTimeout   = "Grip-Timeout"    // response: how long to hold a response, in seconds
	HeaderKeepAlive = "Grip-Keep-Alive" // response: what to send on an idle stream
	HeaderLink      = "Grip-Link"       // response: where the proxy asks for messages that it missed
)

// The modes in which a connection is held.
const (
	Response = "response" // the next message is the response, or after a timeout the origin's own
	Stream   = "stream"   // the origin's response stays open, and messages are appended to it
)

// Channel is a channel to subscribe to.
type Channel struct {
	Name string
	// PrevID is the id of the last message that the client received. If the
	// proxy knows a later one, it repeats the request to the origin, so that
	// the client misses nothing.
	PrevID string
}

// Hold tells the proxy to hold a connection open.
type Hold struct {
	Mode     string
	Channels []Channel
	// Timeout is how long to hold in the mode Response; Pushpin holds for at least five
	// seconds. All durations are in whole seconds.
	Timeout time.Duration
	// In the mode Stream, KeepAlive is sent when the stream has been idle for KeepAliveAfter.
	KeepAlive      string
	KeepAliveAfter time.Duration
	// Next is required in the mode Stream if a channel has a PrevID. When the proxy
	// missed a message, and whenever NextAfter has passed, it requests Next with
	// HeaderLast, and appends the response to the stream.
	Next      string
	NextAfter time.Duration
}

var allowed = regexp.MustCompile(`^[A-Za-z0-9._:-]+$`)

// Set sets the headers of a response for the hold. If a character in the name or id of
// a channel is not allowed, it returns an error and sets no header.
func (hold Hold) Set(h http.Header) error {
	var channels []string
	for _, c := range hold.Channels {
		value := c.Name
		if c.PrevID != "" {
			value += "; prev-id=" + c.PrevID
		}
		if !allowed.MatchString(c.Name) || c.PrevID != "" && !allowed.MatchString(c.PrevID) {
			return fmt.Errorf("%s %q: only letters, digits, '.', '_', ':' and '-' are allowed",
				HeaderChannel, value)
		}
		channels = append(channels, value)
	}
	h[HeaderChannel] = channels
	h.Set(HeaderHold, hold.Mode)
	if hold.Timeout > 0 {
		h.Set(HeaderTimeout, seconds(hold.Timeout))
	}
	if hold.KeepAlive != "" {
		// In base64, it may contain line ends.
		text := base64.StdEncoding.EncodeToString([]byte(hold.KeepAlive))
		h.Set(HeaderKeepAlive, text+"; format=base64; timeout="+seconds(hold.KeepAliveAfter))
	}
	if hold.Next != "" {
		h.Set(HeaderLink, "<"+hold.Next+">; rel=next; timeout="+seconds(hold.NextAfter))
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// Last returns the id, in a request's HeaderLast, of the last message that the client
// received on the channel, or "".
func Last(h http.Header, channel string) string {
	for item := range strings.SplitSeq(strings.Join(h.Values(HeaderLast), ","), ",") {
		name, params, _ := strings.Cut(item, ";")
		for param := range strings.SplitSeq(params, ";") {
			id, ok := strings.CutPrefix(strings.TrimSpace(param), "last-id=")
			if ok && strings.TrimSpace(name) == channel {
				return id
			}
		}
	}
	return ""
}

// The response that accepts a WebSocket has HeaderExtension with the value Extension.
// From then on, the proxy sends what follows MessagePrefix to the client, and obeys
// what follows ControlPrefix. So a client's text that the origin returns after
// MessagePrefix is never taken for a control message.
const (
	HeaderExtension = "Sec-WebSocket-Extensions"
	Extension       = "grip"
	MessagePrefix   = "m:"
	ControlPrefix   = "c:"
)

// Message returns the event that sends a message to a client. The kind is Text or Binary.
func Message(kind string, content []byte) Event {
	return Event{Type: kind, Content: append([]byte(MessagePrefix), content...)}
}

// Subscribe returns the event that subscribes a WebSocket to a channel.
func Subscribe(channel string) Event {
	control := map[string]string{"type": "subscribe", "channel": channel}
	message, _ := json.Marshal(control) // cannot fail
	return Event{Type: Text, Content: append([]byte(ControlPrefix), message...)}
}

// CloseEvent returns the event that closes a WebSocket with a code and a
// reason of at most 123 bytes.
// Source: RFC 6455 section 5.5.1
func CloseEvent(code uint16, reason string) Event {
	return Event{Type: Close, Content: append([]byte{byte(code >> 8), byte(code)}, reason...)}
}
