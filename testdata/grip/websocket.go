package grip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// EventsType is the media type of WebSocket-over-HTTP requests and responses.
// Source: https://pushpin.org/docs/protocols/websocket-over-http/
const EventsType = "application/websocket-events"

// The types of events.
const (
	Open       = "OPEN"       // the client opens the WebSocket; in a response, the origin accepts it
	Text       = "TEXT"       // a text message; in a response, also a control message
	Binary     = "BINARY"     // a binary message
	Ping       = "PING"       // RFC 6455 section 5.5.2
	Pong       = "PONG"       // RFC 6455 section 5.5.3
	Close      = "CLOSE"      // RFC 6455 section 5.5.1; its content may be a code of two bytes and a reason
	Disconnect = "DISCONNECT" // the connection ended without a close
)

// The response that accepts a WebSocket has HeaderExtension with the value Extension.
// From then on, the proxy sends what follows MessagePrefix to the client, and obeys
// what follows "c:". So a client's text that the origin returns after MessagePrefix is
// never taken for a control message.
const (
	HeaderExtension = "Sec-WebSocket-Extensions"
	Extension       = "grip"
	MessagePrefix   = "m:"
)

// Event is one event on a WebSocket connection.
type Event struct {
	Type    string // one of the constants above
	Content []byte // nil if there is none
}

// DecodeEvents decodes the body of a WebSocket-over-HTTP request or response. The
// events share the memory of the body. Errors count the events from 1.
func DecodeEvents(body []byte) ([]Event, error) {
	types := []string{Open, Text, Binary, Ping, Pong, Close, Disconnect}
	var events []Event
	for len(body) > 0 {
		line, rest, ok := bytes.Cut(body, []byte("\r\n"))
		name, size, sized := strings.Cut(string(line), " ")
		e := Event{Type: name}
		if sized {
			n, err := strconv.ParseUint(size, 16, 31)
			ok = err == nil && n < uint64(len(rest)) && bytes.HasPrefix(rest[n:], []byte("\r\n"))
			if ok {
				e.Content, rest = rest[:n:n], rest[n+2:]
			}
		}
		if !ok || !slices.Contains(types, name) {
			return nil, fmt.Errorf("websocket events: event %d, %.20q, is malformed or incomplete",
				len(events)+1, line)
		}
		events, body = append(events, e), rest
	}
	return events, nil
}

// EncodeEvents encodes events to the body of a WebSocket-over-HTTP request or response.
func EncodeEvents(events ...Event) []byte {
	var body []byte
	for _, e := range events {
		body = append(body, e.Type...)
		if e.Content != nil {
			body = fmt.Appendf(body, " %x\r\n%s", len(e.Content), e.Content)
		}
		body = append(body, "\r\n"...)
	}
	return body
}

// Message returns the event that sends a message to a client. The kind is Text or Binary.
func Message(kind string, content []byte) Event {
	return Event{Type: kind, Content: append([]byte(MessagePrefix), content...)}
}

// Subscribe returns the event that subscribes a WebSocket to a channel.
func Subscribe(channel string) Event {
	control := map[string]string{"type": "subscribe", "channel": channel}
	message, _ := json.Marshal(control) // cannot fail
	return Event{Type: Text, Content: append([]byte("c:"), message...)}
}

// CloseEvent returns the event that closes a WebSocket with a code and a
// reason of at most 123 bytes.
// Source: RFC 6455 section 5.5.1
func CloseEvent(code uint16, reason string) Event {
	return Event{Type: Close, Content: append([]byte{byte(code >> 8), byte(code)}, reason...)}
}
