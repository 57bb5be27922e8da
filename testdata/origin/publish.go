package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"unicode/utf8"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// publish publishes the body, a text in UTF-8, to all the clients of a channel, however they are
// connected. The app forwards the request; it does not hand it off.
//
// Whoever reaches this publishes on your bill: Fanout counts each message that it delivers. The demo lets
// in anybody but the pages of other sites. In production let in those who may publish to that channel, by
// your login or a token, and limit how much they may; or take it out, where only your own code publishes.
func (o *origin) publish(w http.ResponseWriter, r *http.Request) {
	c, ok := parseClient(w, r)
	if !ok {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, grip.MaxPublish))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		http.Error(w, "the message is larger than 64 KiB", http.StatusRequestEntityTooLarge)
		return
	}
	text := string(body)
	if err != nil || text == "" || !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n") {
		http.Error(w, "the body must be the message: one line of text in UTF-8", http.StatusBadRequest)
		return
	}

	// First into the history, then to the proxy: whoever the proxy misses finds the message there.
	m, err := o.history.add(c.channel, text, func(m message) error { return grip.Fits(items(c.channel, m)...) })
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	// A publisher who goes away does not take back what is in the history already.
	if err := o.grip.Publish(context.WithoutCancel(r.Context()), items(c.channel, m)...); err != nil {
		log.Printf("publish to %q: %v", c.channel, err)
		why := "the GRIP proxy does not answer"
		if refused := new(grip.PublishError); errors.As(err, &refused) {
			why = fmt.Sprintf("the GRIP proxy refused it with status %d", refused.StatusCode)
		}
		http.Error(w, "the message is kept, and clients get it when they next ask; but it was not pushed: "+why, http.StatusBadGateway)
		return
	}
	writeJSON(w, m)
}

// items returns the message in the form of each endpoint.
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
		all = append(all, grip.Item{Channel: channel + ":" + transport, ID: m.ID, PrevID: m.Prev, Formats: f})
	}
	return all
}
