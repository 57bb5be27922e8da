package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// stream holds a response of plain text open, and appends each message as a line.
func (o *origin) stream(w http.ResponseWriter, r *http.Request, c client) {
	o.holdStream(w, r, c, transport{
		name: "stream", contentType: "text/plain; charset=utf-8", keepAlive: "\n",
		first:   func(string, bool) string { return "stream open\n" },
		message: streamLine,
	})
}

func streamLine(m message) string { return m.Text + "\n" }

// events holds a stream of Server-Sent Events open. A browser's EventSource that reconnects sends
// Last-Event-ID, and gets what it missed; the first event gives it such an id before any message does.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
func (o *origin) events(w http.ResponseWriter, r *http.Request, c client) {
	o.holdStream(w, r, c, transport{
		name: "events", contentType: "text/event-stream", keepAlive: ": keep-alive\n\n",
		first: func(start string, gap bool) string {
			return fmt.Sprintf("retry: 1000\nid: %s\nevent: start\ndata: {\"start\":%q,\"gap\":%t}\n\n", start, start, gap)
		},
		message: serverSentEvent,
	})
}

func serverSentEvent(m message) string {
	return fmt.Sprintf("id: %s\ndata: %s\n\n", m.ID, compactJSON(m))
}

// transport is what differs between the two kinds of stream.
type transport struct {
	name, contentType, keepAlive string
	// first returns what a client gets first: the id that it starts after, and whether messages before
	// that are forgotten.
	first   func(start string, gap bool) string
	message func(message) string
}

// holdStream answers with what the client has missed, and holds the response open. The proxy requests
// the same again when it finds that it has missed a message, and every o.next; then Grip-Last says
// where the client is. A new client says so with Last-Event-ID or ?after=, or else starts with what
// comes next.
func (o *origin) holdStream(w http.ResponseWriter, r *http.Request, c client, t transport) {
	o.presence.seen(c, t.name)
	channel := c.channel + ":" + t.name
	after := grip.Last(r.Header, channel)
	again := after != ""
	if !again {
		after = cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"))
	}
	missed, start, last, gap := o.history.after(c.channel, after)
	next := url.URL{Path: r.URL.Path, RawQuery: url.Values{"channel": {c.channel}, "name": {c.name}}.Encode()}
	hold := grip.Hold{
		Mode:      grip.Stream,
		Channels:  []grip.Channel{{Name: c.channel}, {Name: channel, PrevID: last}},
		KeepAlive: t.keepAlive, KeepAliveAfter: o.keepAlive,
		Next: next.String(), NextAfter: o.next,
	}
	if !o.setHold(w, hold) {
		return
	}
	w.Header().Set("Content-Type", t.contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff") // or a browser waits for more text, to guess its type
	if !again {
		io.WriteString(w, t.first(start, gap))
	}
	for _, m := range missed {
		io.WriteString(w, t.message(m))
	}
}

// polled is the answer to a long-poll.
type polled struct {
	Messages []message `json:"messages"`
	Last     string    `json:"last"` // what to ask for next, as ?after=
	Gap      bool      `json:"gap"`  // some messages are forgotten
}

// poll answers with the messages after ?after=, at once if there are any, or else when there is one,
// and after o.pollTimeout with none. Without ?after= it waits for the next message; with an empty one
// it says at once what to ask for next, so that a client misses nothing from then on.
func (o *origin) poll(w http.ResponseWriter, r *http.Request, c client) {
	o.presence.seen(c, "poll")
	channel := c.channel + ":poll"
	// When the proxy repeats a request that it holds, Grip-Last says where the client is.
	after := cmp.Or(r.URL.Query().Get("after"), grip.Last(r.Header, channel))
	messages, _, last, gap := o.history.after(c.channel, after)
	answer := polled{Messages: append([]message{}, messages...), Last: last, Gap: gap}
	where := r.URL.Query().Has("after") && after == ""
	if len(answer.Messages) == 0 && !answer.Gap && !where {
		hold := grip.Hold{
			Mode:     grip.Response,
			Channels: []grip.Channel{{Name: c.channel}, {Name: channel, PrevID: answer.Last}},
			Timeout:  o.pollTimeout,
		}
		if !o.setHold(w, hold) {
			return
		}
	}
	writeJSON(w, answer) // held, this is what the client gets at the timeout
}

func (o *origin) setHold(w http.ResponseWriter, hold grip.Hold) bool {
	if err := hold.Set(w.Header()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return false
	}
	return true
}

func compactJSON(v any) string {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // "<" would take six bytes
	if err := enc.Encode(v); err != nil {
		panic(err) // strings and numbers can always be encoded
	}
	return strings.TrimSuffix(text.String(), "\n")
}
