// Package grip implements the GRIP protocol for an origin behind Fanout or Pushpin. Copy what
// you need: each of grip.go (to hold connections open), websocket.go and publish.go needs
// only the standard library. config.go, which reads GRIP_URL and verifies that the proxy
// sent a request, needs publish.go, this file and github.com/golang-jwt/jwt/v5.
// Source: https://pushpin.org/docs/protocols/grip/
package grip

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// The headers between a GRIP proxy and an origin.
const (
	HeaderSig     = "Grip-Sig"     // request: a JWT that proves that the proxy sent the request
	HeaderLast    = "Grip-Last"    // request: the id of the last delivered message, for each channel
	HeaderHold    = "Grip-Hold"    // response: how to hold the connection
	HeaderChannel = "Grip-Channel" // response: a channel to subscribe the connection to
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
		h.Set("Grip-Timeout", fmt.Sprint(int(hold.Timeout.Seconds())))
	}
	if hold.KeepAlive != "" {
		// In base64, it may contain line ends.
		text := base64.StdEncoding.EncodeToString([]byte(hold.KeepAlive))
		h.Set("Grip-Keep-Alive", fmt.Sprintf("%s; format=base64; timeout=%d",
			text, int(hold.KeepAliveAfter.Seconds())))
	}
	if hold.Next != "" {
		h.Set("Grip-Link", fmt.Sprintf("<%s>; rel=next; timeout=%d",
			hold.Next, int(hold.NextAfter.Seconds())))
	}
	return nil
}

// Last returns the id, in a request's HeaderLast, of the last message that the client
// received on the channel, or "".
func Last(h http.Header, channel string) string {
	for item := range strings.SplitSeq(strings.Join(h.Values(HeaderLast), ","), ",") {
		name, param, _ := strings.Cut(item, ";")
		id, ok := strings.CutPrefix(strings.TrimSpace(param), "last-id=")
		if ok && strings.TrimSpace(name) == channel {
			return id
		}
	}
	return ""
}
