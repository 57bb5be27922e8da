package main

import (
	"context"
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"unicode/utf8"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// trustPages returns a filter that refuses what a browser sends for pages of other
// sites, with the cookies of this one. It is given the app's own web origins, such as
// https://www.example.com, because the Host that arrives here is the backend's override
// host. Programs such as curl pass.
func trustPages(origins string) (*http.CrossOriginProtection, error) {
	pages := http.NewCrossOriginProtection()
	for origin := range strings.SplitSeq(origins, ",") {
		if err := pages.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("-trust: %w; write it as http://localhost:7676", err)
		}
	}
	pages.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s: refused a page of %q; if this page is yours, add its origin to -trust",
			r.Method, r.URL.Path, r.Header.Get("Origin"))
		http.Error(w, "pages of other sites may not do this", http.StatusForbidden)
	}))
	return pages, nil
}

// publish publishes the body to all clients of a channel, on every kind of connection.
// The app forwards this request; it does not hand it off.
//
// Whoever can send this request publishes at your cost, because Fastly bills each
// delivered message. The demo asks for one token, if it has one. In production, check
// that the client may publish to the channel, and limit how much. If only your own code
// publishes, remove this endpoint.
func (o *origin) publish(w http.ResponseWriter, r *http.Request, channel string) {
	sent, want := r.Header.Get("Authorization"), "Bearer "+o.token
	if o.token != "" && subtle.ConstantTimeCompare([]byte(sent), []byte(want)) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110 section 15.5.2
		http.Error(w, "to publish, send the PUBLISH_TOKEN of the origin in the header "+
			"Authorization: Bearer", http.StatusUnauthorized)
		return
	}
	body, ok := readBody(w, r)
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
	m, err := o.history.add(channel, text)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	// Publish it even if this client disconnects now.
	ctx := context.WithoutCancel(r.Context())
	if err := o.grip.Publish(ctx, items(channel, m)...); err != nil {
		log.Printf("publish to %q: %v", channel, err)
		http.Error(w, "the GRIP proxy did not accept the message; "+
			"clients get it with their next request", http.StatusBadGateway)
		return
	}
	writeJSON(w, m)
}

const maxBody = 1 << 20 // bytes; the body with a WebSocket's events may have many

// readBody reads the body of a request. If it cannot, it answers the request with an error.
func readBody(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the body is incomplete, or larger than 1 MiB",
			http.StatusRequestEntityTooLarge)
	}
	return body, err == nil
}

// items returns the message in the format of each endpoint.
func items(channel string, m message) (items []grip.Item) {
	poll := polled{Messages: []message{m}, Last: m.ID}
	for endpoint, formats := range map[string]grip.Formats{
		"stream": {HTTPStream: &grip.HTTPStream{Content: streamLine(m)}},
		"events": {HTTPStream: &grip.HTTPStream{Content: serverSentEvent(m)}},
		"poll":   {HTTPResponse: &grip.HTTPResponse{Body: compactJSON(poll) + "\n"}},
		"socket": {WSMessage: &grip.WSMessage{Content: compactJSON(m)}},
	} {
		items = append(items, grip.Item{
			Channel: channel + ":" + endpoint, ID: m.ID, PrevID: m.Prev, Formats: formats,
		})
	}
	return items
}
