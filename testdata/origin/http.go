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

// stream holds a plain text response open, and adds each message to it, as a line.
func (o *origin) stream(w http.ResponseWriter, r *http.Request, c client) {
	o.holdStream(w, r, c, transport{
		name: "stream", contentType: "text/plain; charset=utf-8", keepAlive: "\n",
		first:   func(string, bool) string { return "stream open\n" },
		message: streamLine,
	})
}

func streamLine(m message) string { return m.Text + "\n" }

// events holds a stream of Server-Sent Events open. When a browser's EventSource reconnects, it sends Last-Event-ID,
// and gets the messages that it missed. The first event has no message, but an id, so the browser has one at once.
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

// transport has the differences between the two kinds of stream.
type transport struct {
	name, contentType, keepAlive string
	// first returns the beginning of the response. start is the id after which the client's messages begin. gap
	// says that the client missed messages which the origin no longer has.
	first   func(start string, gap bool) string
	message func(message) string
}

// holdStream answers with the messages that the client has missed, and holds the response open. The proxy sends the
// request again when it notices that it has missed a message, and also every o.next. Then Grip-Last has the id of the
// client's last message. A client that connects can send that id as Last-Event-ID or ?after=. Without an id, it gets
// only new messages.
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
	w.Header().Set("X-Content-Type-Options", "nosniff") // otherwise a browser waits for more text, to guess the type
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
	Last     string    `json:"last"` // the value of ?after= for the next request
	Gap      bool      `json:"gap"`  // the origin no longer has some messages that the client missed
}

// poll answers with the messages after the id in ?after=. If there are some, it answers at once. Otherwise it waits for
// the next message; after o.pollTimeout it answers with no message. Without ?after= it waits for the next message.
// With an empty ?after= it answers at once, and says which id to send next. From then on, the client misses nothing.
func (o *origin) poll(w http.ResponseWriter, r *http.Request, c client) {
	o.presence.seen(c, "poll")
	channel := c.channel + ":poll"
	// When the proxy sends a held request again, Grip-Last has the id of the client's last message.
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
	writeJSON(w, answer) // if the request is held, the client gets this after the timeout
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
	enc.SetEscapeHTML(false) // otherwise "<" would take six bytes
	if err := enc.Encode(v); err != nil {
		panic(err) // strings and numbers can always be encoded
	}
	return strings.TrimSuffix(text.String(), "\n")
}
