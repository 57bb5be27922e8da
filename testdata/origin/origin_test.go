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

// The origin refuses requests that the proxy did not sign, publishers without the token, pages of
// other sites, and what it cannot use. It says what is wrong, and keeps only what it publishes.
func TestRequests(t *testing.T) {
	const names = "channel must be 1 to 64"
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "refuse") {
			http.Error(w, "internal", http.StatusUnauthorized)
		}
	})
	o.token = "secret"
	for _, tt := range []struct {
		request, header, body string
		status                int
		answer                string
	}{
		{"POST /publish", "", strings.Repeat("x", 20_000), 413, "65536 are allowed"},
		{"POST /publish", "", "hello", 200, `"id": "`},
		{"POST /publish", "Origin: https://app.example", "hello", 200, `"id": "`},
		{"POST /publish", "Origin: https://another.example", "hello", 403, "pages of other sites"},
		{"POST /publish", "Authorization: Bearer secret2", "hello", 401, "with the PUBLISH_TOKEN"},
		{"POST /publish", "", "refuse", 502, "did not accept the message; clients get it with"},
		{"POST /publish", "", "", 400, "one line of text"},
		{"POST /publish", "", "a\nb", 400, "one line of text"},
		{"POST /publish", "", "\xff", 400, "UTF-8"},
		{"POST /publish", "", strings.Repeat("x", 1<<20+1), 413, "larger than 1 MiB"},
		{"POST /publish?channel=a,b", "", "hello", 400, names},
		{"GET /poll?channel=a:poll", "", "", 400, names},
		{"GET /stream?channel=" + strings.Repeat("a", 65), "", "", 400, names},
		{"GET /stream", "Grip-Sig: any", "", 403, "GRIP proxy only"},
		{"GET /events", "Grip-Sig: any", "", 403, "GRIP proxy only"},
		{"GET /poll", "Grip-Sig: any", "", 403, "GRIP proxy only"},
		{"POST /socket", "Grip-Sig: any", "OPEN\r\n", 403, "GRIP proxy only"},
		{"POST /socket", "Origin: https://another.example", "OPEN\r\n", 403, "pages of other sites"},
		{"POST /socket", "", "OPEN", 400, "malformed or incomplete"},
		{"GET /socket", "", "", 426, "connect with ws://"},
		{"GET /stream?after=none-0", "", "", 200, "stream open\nhello\nhello\nrefuse\n"},
		{"GET /events?after=other-7", "", "", 200, `data: {"start":"none-0","gap":true}`},
		{"GET /events?after=other-7", "Last-Event-ID: none-0", "", 200, `"gap":false}`},
		{"GET /poll?after=other-7", "", "", 200, `"gap": true`},
	} {
		got := send(o, tt.request, tt.header, tt.body)
		answer := got.Body.String()
		if got.Code != tt.status || !strings.Contains(answer, tt.answer) || strings.Contains(answer, "internal") ||
			got.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s, %s: got %d, %v, %s", tt.request, tt.header, got.Code, got.Header(), answer)
		}
	}
}

// A WebSocket's text is an echo, unless it is a valid command. Nothing follows a close.
func TestSocket(t *testing.T) {
	o := newOrigin(t, nil)
	for text, want := range map[string]string{
		`{"close":1000}`:           "CLOSE 2\r\n\x03\xe8\r\n",
		`{"close":2999}`:           "TEXT 10\r\nm:{\"close\":2999}\r\nPONG\r\n",
		`{"close":5000}`:           "TEXT 10\r\nm:{\"close\":5000}\r\nPONG\r\n",
		`{"close":"?","after":""}`: "TEXT 1a\r\nm:{\"close\":\"?\",\"after\":\"\"}\r\nPONG\r\n",
		`{"close":4001,"reason":"` + strings.Repeat("x", 124) + `"}`: "xxx\"}\r\nPONG\r\n",
		`{"after":"other-7"}`:         "TEXT 1f\r\nm:{\"gap\":true,\"start\":\"none-0\"}\r\nPONG\r\n",
		strings.Repeat("x", 32<<10-1): "CLOSE 18\r\n\x03\xf1the message is too big\r\n",
	} {
		message := grip.Event{Type: grip.Text, Content: []byte(text)}
		body := grip.EncodeEvents(message, grip.Event{Type: grip.Ping})
		answer := send(o, "POST /socket", "", string(body)).Body.String()
		if !strings.HasSuffix(answer, want) || strings.HasPrefix(want, "CLOSE") && answer != want {
			t.Errorf("%.40s: got %.200q, want %q", text, answer, want)
		}
	}
}

// Clients that publish at the same time make one order, while others read. The proxy accepts the
// first message only after the others, which delays no other client.
func TestPublishAtOnce(t *testing.T) {
	const clients = 100
	published := make(chan bool, 10*clients)
	var o *origin
	publish := func(text string) {
		if got := send(o, "POST /publish", "", text); got.Code != http.StatusOK {
			t.Errorf("publish %s: got %d, %s", text, got.Code, got.Body)
		}
	}
	o = newOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		published <- true
		if body, _ := io.ReadAll(r.Body); !strings.Contains(string(body), "first") {
			return
		}
		var others sync.WaitGroup
		for i := range clients {
			others.Go(func() {
				publish(fmt.Sprint(i))
				send(o, "GET /poll?after=none-0", "", "")
				send(o, "GET /events?after=none-0", "", "")
				send(o, "POST /socket", "", "OPEN\r\nTEXT c\r\n{\"after\":\"\"}\r\n")
			})
		}
		others.Wait()
	})
	publish("first")

	messages, last, _, _ := o.history.after("demo", beginning)
	for _, m := range messages {
		if m.Prev != last {
			t.Errorf("%+v follows %s", m, last)
		}
		last = m.ID
	}
	if len(messages) != 1+clients || len(published) != 1+clients {
		t.Errorf("the history has %d messages, and the proxy got %d", len(messages), len(published))
	}
}

// newOrigin returns an origin that publishes to the handler proxy.
func newOrigin(t *testing.T, proxy http.HandlerFunc) *origin {
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	config, _ := grip.ParseURL(server.URL, "a key for tests") // cannot fail, as the next call
	pages, _ := trustPages("https://app.example")
	return &origin{grip: config, pages: pages}
}

var validSig = func() string {
	claims := jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}
	sig, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("a key for tests"))
	return sig
}()

// send sends a request, such as "GET /poll", with a valid signature and a token, and one more or
// another header, such as "Origin: https://app.example".
func send(o *origin, request, header, body string) *httptest.ResponseRecorder {
	method, target, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Grip-Sig", validSig)
	r.Header.Set("Authorization", "Bearer secret")
	if name, value, ok := strings.Cut(header, ": "); ok {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	o.handler().ServeHTTP(w, r)
	return w
}
