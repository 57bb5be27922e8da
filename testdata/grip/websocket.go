package grip

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
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

// Event is one event on a WebSocket connection.
type Event struct {
	Type    string // one of the constants above
	Content []byte // nil if there is none
}

var errTruncated = errors.New("the body ends within an event")

// DecodeEvents decodes the body of a WebSocket-over-HTTP request or response. The
// events share the memory of the body. Errors count the events from 1.
func DecodeEvents(body []byte) ([]Event, error) {
	var events []Event
	for len(body) > 0 {
		e, rest, err := decodeEvent(body)
		if err != nil {
			return nil, fmt.Errorf("websocket events: event %d: %w", len(events)+1, err)
		}
		events, body = append(events, e), rest
	}
	return events, nil
}

func decodeEvent(body []byte) (e Event, rest []byte, err error) {
	line, rest, ok := bytes.Cut(body, []byte("\r\n"))
	if !ok {
		return e, nil, errTruncated
	}
	name, size, sized := bytes.Cut(line, []byte(" "))
	switch e.Type = string(name); e.Type {
	case Open, Text, Binary, Ping, Pong, Close, Disconnect:
	default:
		return e, nil, fmt.Errorf("unknown type %.20q", name)
	}
	if !sized {
		return e, rest, nil
	}
	n, err := strconv.ParseUint(string(size), 16, 31)
	if err != nil {
		return e, nil, fmt.Errorf("size %.20q is not a hexadecimal number below 2^31", size)
	}
	if uint64(len(rest)) < n+2 {
		return e, nil, errTruncated
	}
	if !bytes.HasPrefix(rest[n:], []byte("\r\n")) {
		return e, nil, fmt.Errorf("its content is not %d bytes long", n)
	}
	e.Content = rest[:n:n]
	return e, rest[n+2:], nil
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
