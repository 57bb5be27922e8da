package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"unicode/utf8"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// publish publishes the body to all clients of a channel, on every kind of connection.
// The app forwards this request; it does not hand it off.
//
// Whoever can send this request publishes at your cost, because Fastly bills each
// delivered message. The demo refuses only pages of other sites. In production, check
// that the client may publish to the channel, and limit how much. If only your own code
// publishes, remove this endpoint.
func (o *origin) publish(w http.ResponseWriter, r *http.Request) {
	c, ok := parseClient(w, r)
	if !ok {
		return
	}
	body, ok := readBody(w, r, grip.MaxPublish)
	if !ok {
		return
	}
	text := string(body)
	if text == "" || !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n") {
		http.Error(w, "the body must be the message: one line of text in UTF-8",
			http.StatusBadRequest)
		return
	}

	// The history comes first: a client that the proxy misses finds the message there.
	fits := func(m message) error { return grip.Fits(items(c.channel, m)...) }
	m, err := o.history.add(c.channel, text, fits)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	// Publish it even if this client disconnects now.
	ctx := context.WithoutCancel(r.Context())
	if err := o.grip.Publish(ctx, items(c.channel, m)...); err != nil {
		log.Printf("publish to %q: %v", c.channel, err)
		http.Error(w, "the GRIP proxy did not accept the message; "+
			"clients get it with their next request", http.StatusBadGateway)
		return
	}
	writeJSON(w, m)
}

// readBody reads the body of a request. If it cannot, it answers the request with an error.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		http.Error(w, fmt.Sprintf("the body is incomplete, or larger than %d KiB", limit>>10),
			http.StatusRequestEntityTooLarge)
	}
	return body, err == nil
}

// items returns the message in the format of each endpoint.
func items(channel string, m message) []grip.Item {
	poll := polled{Messages: []message{m}, Last: m.ID}
	formats := map[string]grip.Formats{
		"stream": {HTTPStream: &grip.HTTPStream{Content: streamLine(m)}},
		"events": {HTTPStream: &grip.HTTPStream{Content: serverSentEvent(m)}},
		"poll":   {HTTPResponse: &grip.HTTPResponse{Body: compactJSON(poll) + "\n"}},
		"socket": {WSMessage: &grip.WSMessage{Content: compactJSON(m)}},
	}
	var all []grip.Item
	for transport, f := range formats {
		all = append(all, grip.Item{
			Channel: channel + ":" + transport,
			ID:      m.ID,
			PrevID:  m.Prev,
			Formats: f,
		})
	}
	return all
}
