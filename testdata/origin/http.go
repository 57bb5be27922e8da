package main

import (
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"regexp"
	"strings"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

//go:embed page
var pageFiles embed.FS

func (o *origin) handler() http.Handler {
	mux := http.NewServeMux()
	files, _ := fs.Sub(pageFiles, "page") // cannot fail: the directory is embedded
	mux.Handle("/", http.FileServerFS(files))
	mux.Handle("GET /stream", o.held(o.stream))
	mux.Handle("GET /events", o.held(o.stream))
	mux.Handle("GET /poll", o.held(o.poll))
	// A WebSocket's events arrive in POST requests, and a GET only if it was not handed off.
	mux.Handle("/socket", o.pages.Handler(o.held(o.socket)))
	mux.Handle("POST /publish", o.pages.Handler(endpoint(o.publish)))
	mux.HandleFunc("/echo", o.echo)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // most answers are about one client
		w.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
		// Otherwise a browser that opens /stream waits for more text, to guess the type.
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// endpoint is a handler for requests with the name of a channel as ?channel=.
type endpoint func(w http.ResponseWriter, r *http.Request, channel string)

var validChannel = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	channel := cmp.Or(r.URL.Query().Get("channel"), "demo")
	if !validChannel.MatchString(channel) {
		http.Error(w, "channel must be 1 to 64 letters, digits, '.', '_' or '-'",
			http.StatusBadRequest)
		return
	}
	e(w, r, channel)
}

// held wraps an endpoint that works only through the proxy.
func (o *origin) held(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := o.grip.Verify(r); err != nil {
			log.Printf("%s %s from %s: %v", r.Method, r.URL.Path, r.RemoteAddr, err)
			http.Error(w, "this endpoint works through the GRIP proxy only: "+
				"connect to the app, and let main.go hand off the request",
				http.StatusForbidden)
			return
		}
		e.ServeHTTP(w, r)
	})
}

// stream answers /stream and /events with the messages that the client missed, and
// holds the response open. /stream is plain text, with a line for each message. /events
// are Server-Sent Events: when an EventSource reconnects, it sends Last-Event-ID. Other
// clients can send ?after=. A client without an id gets only new messages.
//
// The proxy requests Next, with Grip-Last, when it missed a
// message, and also every 30 seconds.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
func (o *origin) stream(w http.ResponseWriter, r *http.Request, channel string) {
	contentType, keepAlive, write := "text/plain; charset=utf-8", "\n", streamLine
	sse := r.URL.Path == "/events"
	if sse {
		contentType, keepAlive, write = "text/event-stream", ": keep-alive\n\n", serverSentEvent
	}
	withIDs := channel + strings.Replace(r.URL.Path, "/", ":", 1)
	again := grip.Last(r.Header, withIDs)
	after := cmp.Or(again, r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"))
	missed, start, last, gap := o.history.after(channel, after)
	hold := grip.Hold{
		Mode:      grip.Stream,
		Channels:  []grip.Channel{{Name: channel}, {Name: withIDs, PrevID: last}},
		KeepAlive: keepAlive, KeepAliveAfter: 20 * time.Second,
		Next: r.URL.Path + "?channel=" + channel, NextAfter: 30 * time.Second,
	}
	hold.Set(w.Header()) // cannot fail: the channel and the id are valid
	w.Header().Set("Content-Type", contentType)
	switch {
	case again != "":
	case sse: // without a message, but with an id, so that the browser has one at once
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
// the next message.
func (o *origin) poll(w http.ResponseWriter, r *http.Request, channel string) {
	withIDs := channel + ":poll"
	// When the proxy repeats a held request, Grip-Last has the id of the client's last message.
	after := cmp.Or(r.URL.Query().Get("after"), grip.Last(r.Header, withIDs))
	messages, _, last, gap := o.history.after(channel, after)
	where := r.URL.Query().Has("after") && after == ""
	if len(messages) == 0 && !gap && !where {
		hold := grip.Hold{
			Mode:     grip.Response,
			Channels: []grip.Channel{{Name: channel}, {Name: withIDs, PrevID: last}},
			Timeout:  25 * time.Second, // many proxies allow only 30
		}
		hold.Set(w.Header()) // cannot fail, as above
	}
	// If the request is held, the client gets this after the timeout.
	writeJSON(w, polled{append([]message{}, messages...), last, gap})
}

// echo reports the request as it arrived here, and whether the app handed it off to Fanout.
func (o *origin) echo(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, r.Body)
	header, viaFanout := r.Header.Clone(), o.grip.Verify(r) == nil
	if viaFanout {
		// Until the signature expires, anybody who has it can pretend to be the proxy.
		header.Set(grip.HeaderSig, "(withheld)")
	}
	writeJSON(w, map[string]any{
		"method":    r.Method,
		"target":    r.RequestURI,
		"host":      r.Host,
		"header":    header,
		"bodyBytes": n,
		"viaFanout": viaFanout,
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // fails only if the client has left
}

func compactJSON(v any) string {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // otherwise "<" would take six bytes
	enc.Encode(v)            // cannot fail
	return strings.TrimSuffix(text.String(), "\n")
}
