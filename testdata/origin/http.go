package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// stream answers /stream and /events with the messages that the client missed, and
// holds the response open. /stream is plain text, with a line for each message. /events
// are Server-Sent Events: when an EventSource reconnects, it sends Last-Event-ID. Other
// clients can send ?after=. A client without an id gets only new messages.
//
// The proxy repeats the request, with Grip-Last, when it missed a
// message, and also every o.next.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
func (o *origin) stream(w http.ResponseWriter, r *http.Request, c client) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	contentType, keepAlive, write := "text/plain; charset=utf-8", "\n", streamLine
	if name == "events" {
		contentType, keepAlive, write = "text/event-stream", ": keep-alive\n\n", serverSentEvent
	}
	o.presence.seen(c, name)
	channel := c.channel + ":" + name
	again := grip.Last(r.Header, channel)
	after := cmp.Or(again, r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"))
	missed, start, last, gap := o.history.after(c.channel, after)
	hold := grip.Hold{
		Mode:      grip.Stream,
		Channels:  []grip.Channel{{Name: c.channel}, {Name: channel, PrevID: last}},
		KeepAlive: keepAlive, KeepAliveAfter: o.keepAlive,
		Next: r.URL.Path + "?channel=" + c.channel + "&name=" + c.name, NextAfter: o.next,
	}
	if err := hold.Set(w.Header()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	// Otherwise a browser waits for more text, to guess the type.
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case again != "":
	case name == "events": // without a message, but with an id, so that the browser has one at once
		fmt.Fprintf(w, "retry: 1000\nid: %s\nevent: start\ndata: {\"start\":%[1]q,\"gap\":%t}\n\n",
			start, gap)
	default:
		io.WriteString(w, "stream open\n")
	}
	for _, m := range missed {
		io.WriteString(w, write(m))
	}
}

func streamLine(m message) string { return m.Text + "\n" }

func serverSentEvent(m message) string {
	return fmt.Sprintf("id: %s\ndata: %s\n\n", m.ID, compactJSON(m))
}

// polled is the answer to a long-poll.
type polled struct {
	Messages []message `json:"messages"`
	Last     string    `json:"last"` // the value of ?after= for the next request
	Gap      bool      `json:"gap"`  // the client missed messages that the origin no longer has
}

// poll answers at once if there are messages after the id in ?after=, if that id is unknown,
// or if ?after= is empty: then the client learns where to start. Otherwise it waits for
// the next message, at most o.pollTimeout.
func (o *origin) poll(w http.ResponseWriter, r *http.Request, c client) {
	o.presence.seen(c, "poll")
	channel := c.channel + ":poll"
	// When the proxy repeats a held request, Grip-Last has the id of the client's last message.
	after := cmp.Or(r.URL.Query().Get("after"), grip.Last(r.Header, channel))
	messages, _, last, gap := o.history.after(c.channel, after)
	where := r.URL.Query().Has("after") && after == ""
	if len(messages) == 0 && !gap && !where {
		hold := grip.Hold{
			Mode:     grip.Response,
			Channels: []grip.Channel{{Name: c.channel}, {Name: channel, PrevID: last}},
			Timeout:  o.pollTimeout,
		}
		if err := hold.Set(w.Header()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	// If the request is held, the client gets this after the timeout.
	writeJSON(w, polled{append([]message{}, messages...), last, gap})
}

func compactJSON(v any) string {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // otherwise "<" would take six bytes
	enc.Encode(v)            // cannot fail
	return strings.TrimSuffix(text.String(), "\n")
}
