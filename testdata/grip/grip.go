// Package grip is what an origin needs to work behind a GRIP proxy, Fanout or Pushpin: WebSockets
// over HTTP, instructions to hold connections open, and the check of who sent a request.
// Source: https://pushpin.org/docs/protocols/grip/
package grip

import (
	"encoding/json"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// The headers between a GRIP proxy and an origin.
// Source: https://pushpin.org/docs/protocols/grip/
const (
	HeaderSig     = "Grip-Sig"     // request: a JWT that shows that a proxy sent it
	HeaderHold    = "Grip-Hold"    // response: hold the connection, HoldStream or HoldResponse
	HeaderChannel = "Grip-Channel" // response: the channels to subscribe it to
)

// HoldStream, as the value of HeaderHold, keeps the response open and appends to it what is published.
// Source: https://pushpin.org/docs/protocols/grip/
const HoldStream = "stream"

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

// VerifySig returns an error unless sig, a request's HeaderSig, is a JWT that was signed with the
// key (HS256), for the issuer, and has not expired.
// Source: https://pushpin.org/docs/protocols/grip/
func VerifySig(sig, issuer string, key []byte) error {
	_, err := jwt.Parse(sig, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(issuer), jwt.WithExpirationRequired())
	if err != nil {
		return fmt.Errorf("%s: %w", HeaderSig, err)
	}
	return nil
}
