package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// newOrigin returns an origin that publishes to the handler proxy.
func newOrigin(t *testing.T, proxy http.HandlerFunc) *origin {
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	config, _ := grip.ParseURL(server.URL, "a key") // cannot fail, as the next call
	pages, _ := trustPages("https://app.example")
	return &origin{token: "secret", grip: config, pages: pages, history: newHistory()}
}

// send sends a request, such as "GET /poll", with a signature and a token. A header
// after the target, as in "GET /poll Grip-Sig: forged", replaces one of these.
func send(o *origin, request, body string) *httptest.ResponseRecorder {
	method, target, _ := strings.Cut(request, " ")
	target, header, _ := strings.Cut(target, " ")
	name, value, _ := strings.Cut(header, ": ")
	claims := jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}
	sig, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("a key"))
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Grip-Sig", sig)
	r.Header.Set("Authorization", "Bearer secret")
	r.Header.Set(name, value)
	w := httptest.NewRecorder()
	o.handler().ServeHTTP(w, r)
	return w
}

// The origin refuses unsigned requests, publishers without the token, pages of other
// sites, and what it cannot use. It says why, and keeps only what it publishes.
func TestRequests(t *testing.T) {
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "refuse") {
			http.Error(w, "internal", http.StatusUnauthorized)
		}
	})
	long := strings.Repeat("x", 1<<20+1)
	say := func(s string) string { return fmt.Sprintf("TEXT %x\r\n%s\r\nPING\r\n", len(s), s) }
	for _, tt := range []struct{ request, body, want string }{
		{"POST /publish", long[:20_000], "413 the message is"},
		{"POST /publish Origin: https://app.example", "hello", "200 {\n  \"id\": "},
		{"POST /publish Origin: https://x.example", "hello", "403 pages of other sites"},
		{"POST /publish Authorization: Bearer secret2", "hello", "401 to publish, send the PUBLISH_TOKEN"},
		{"POST /publish", "refuse", "502 the GRIP proxy did not"},
		{"POST /publish", "", "400 the body must be"},
		{"POST /publish", "a\nb", "400 the body must be"},
		{"POST /publish", "\xff", "400 the body must be"},
		{"POST /publish", long, "413 the body is"},
		{"POST /publish?channel=a,b", "hello", "400 channel must be"},
		{"GET /poll?channel=a:poll", "", "400 channel must be"},
		{"GET /stream?channel=" + long[:65], "", "400 channel must be"},
		{"GET /stream Grip-Sig: forged", "", "403 this endpoint works"},
		{"GET /events Grip-Sig: forged", "", "403 this endpoint works"},
		{"GET /poll Grip-Sig: forged", "", "403 this endpoint works"},
		{"POST /socket Grip-Sig: forged", "OPEN\r\n", "403 this endpoint works"},
		{"POST /socket Origin: https://x.example", "OPEN\r\n", "403 pages of other sites"},
		{"POST /socket", "OPEN", "400 websocket events: event 1"},
		{"GET /stream?after=none-0", "", "200 stream open\nhello\nrefuse\n"},
		{"GET /events?after=x-7", "", `data: {"start":"none-0","gap":true}`},
		{"GET /events?after=x-7 Last-Event-ID: none-0", "", `"gap":false}`},
		{"GET /poll?after=x-7", "", `"gap": true`},
		// A WebSocket echoes what is no valid command. Nothing follows a close.
		{"POST /socket", say(`{"close":1000}`), "200 CLOSE 2\r\n\x03\xe8\r\n"},
		{"POST /socket", say(`{"close":2999}`), "m:{\"close\":2999}\r\nPONG\r\n"},
		{"POST /socket", say(`{"close":5000}`), "m:{\"close\":5000}\r\nPONG\r\n"},
		{"POST /socket", say(`{"close":"","after":""}`), "after\":\"\"}\r\nPONG\r\n"},
		{"POST /socket", say(`{"close":4001,"reason":"` + long[:124] + `"}`), "PONG"},
		{"POST /socket", say(`{"after":"x-7"}`), "\"start\":\"none-0\"}\r\nTEXT"},
		{"POST /socket", say(long[:32<<10-1]), "CLOSE 18\r\n\x03\xf1"},
	} {
		got := send(o, tt.request, tt.body)
		answer := fmt.Sprint(got.Code, " ", got.Body)
		_, closed, _ := strings.Cut(answer, "CLOSE")
		if !strings.Contains(answer, tt.want) || strings.Contains(answer, "internal") ||
			strings.Contains(closed, "PONG") || got.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%.99q: got %v, %.200q", tt, got.Header(), answer)
		}
	}
}

// Clients that publish at the same time make one order. When the proxy has a message, so has the history.
func TestPublishAtOnce(t *testing.T) {
	var o *origin
	o = newOrigin(t, func(http.ResponseWriter, *http.Request) {
		if got := send(o, "GET /poll?after=none-0", ""); !strings.Contains(got.Body.String(), "hello") {
			t.Errorf("the history has only %s", got.Body)
		}
	})
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() {
			send(o, "POST /publish", "hello")
		})
	}
	clients.Wait()
	messages, last, _, _ := o.history.after("demo", beginning)
	for _, m := range messages {
		if m.Prev != last {
			t.Errorf("%+v follows %s", m, last)
		}
		last = m.ID
	}
	if len(messages) != 100 {
		t.Errorf("the history has %d messages", len(messages))
	}
}

func TestHistory(t *testing.T) {
	h := &history{channels: map[string]*channelLog{"c": {epoch: "now"}}}
	for range 3 {
		h.add("c", "hello")
	}
	for asked, want := range map[string]string{
		"c ":         "0 now-3 now-3 false", // a new client
		"c none-0":   "3 none-0 now-3 false",
		"c now-1":    "2 now-1 now-3 false",
		"c now-3":    "0 now-3 now-3 false",
		"c old-2":    "3 none-0 now-3 true", // from before a restart
		"new none-0": "0 none-0 none-0 false",
		"new old-2":  "0 none-0 none-0 true",
	} {
		channel, id, _ := strings.Cut(asked, " ")
		messages, start, last, gap := h.after(channel, id)
		if got := fmt.Sprintln(len(messages), start, last, gap); got != want+"\n" {
			t.Errorf("after %s: got %s, want %s", asked, got, want)
		}
	}
	long := strings.Repeat("\x01", 1000) // six times as long in JSON
	for range 200 {
		h.add("c", long)
	}
	messages, start, _, gap := h.after("c", beginning)
	h.add("c", long) // removes the first message, but not from messages
	if len(messages) != 86 || start != messages[0].Prev || !gap {
		t.Errorf("%d messages after %s, gap %t", len(messages), start, gap)
	}
	h.channels["c"].messages[85].At = 0 // now it is the oldest channel
	for i := range maxChannels {
		h.add(fmt.Sprint(i), "hello")
	}
	h.add("99", "hello")   // forgets no channel
	h.after("unknown", "") // adds none
	if len(h.channels) != maxChannels || h.channels["c"] != nil {
		t.Errorf("%d channels; with the oldest: %t", len(h.channels), h.channels["c"] != nil)
	}
}

// The invitation leaves out what does not work, and says why. Only the refusal by the
// demo's origin means that main.go does not hand off a connection.
func TestInvitation(t *testing.T) {
	for why, app := range map[string]http.Handler{
		"main.go does not hand it off.":        newOrigin(t, nil).handler(), // without signatures
		"it was answered with 404 Not Found (": http.NotFoundHandler(),
	} {
		server := httptest.NewServer(app)
		defer server.Close()
		got := (&demo{app: server.Listener.Addr().String()}).invitation()
		if strings.Count(got, "stays closed: "+why) != 3 || strings.Contains(got, "/events\n") {
			t.Errorf("got %s, want three connections closed: %s", got, why)
		}
	}
}
