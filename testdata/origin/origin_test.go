package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// The origin says what is wrong with a request.
func TestRefused(t *testing.T) {
	const names = "channel must be 1 to 64"
	url := startOrigin(t, &origin{}, nil)
	for _, tt := range []struct {
		request, body string
		status        int
		answer        string
	}{
		{"POST /publish", "", 400, "one line of text"},
		{"POST /publish", "a\nb", 400, "one line of text"},
		{"POST /publish", "\xff", 400, "UTF-8"},
		{"POST /publish", strings.Repeat("x", 20_000), 413, "65536 are allowed"},
		{"POST /publish", strings.Repeat("x", 1<<20+1), 413, "larger than 1 MiB"},
		{"POST /publish?channel=a,b", "hello", 400, names},
		{"GET /poll?channel=a:poll", "", 400, names},
		{"GET /poll?channel=a%0d%0ab", "", 400, names},
		{"GET /events?channel=%C3%A9", "", 400, names},
		{"GET /stream?channel=" + strings.Repeat("a", 65), "", 400, names},
		{"GET /socket", "", 426, "connect with ws://"},
		{"POST /socket", "OPEN", 400, "malformed or incomplete"},
	} {
		check(t, tt.request, url, proxied, tt.body, tt.status, tt.answer)
	}
	for _, request := range []string{"GET /stream", "GET /events", "GET /poll", "POST /socket"} {
		check(t, request, url, http.Header{"Grip-Sig": {"any"}}, "OPEN\r\n", 403, "GRIP proxy only")
	}
}

// Only those who send the token may publish, if there is one, and no pages of other sites.
func TestMayPublish(t *testing.T) {
	withToken := startOrigin(t, &origin{token: "secret"}, func(http.ResponseWriter, *http.Request) {})
	without := startOrigin(t, &origin{}, func(http.ResponseWriter, *http.Request) {})
	for _, tt := range []struct {
		url, name, value string
		status           int
		answer           string
	}{
		{withToken, "Authorization", "Bearer secret", 200, `"id": "`},
		{withToken, "Authorization", "Bearer secret2", 401, "Authorization: Bearer, with the PUBLISH_TOKEN"},
		{withToken, "Authorization", "", 401, "PUBLISH_TOKEN"},
		{without, "Authorization", "", 200, `"id": "`},
		{without, "Origin", "https://app.example", 200, `"id": "`},
		{without, "Origin", "https://example.com", 403, "pages of other sites"},
	} {
		check(t, "POST /publish", tt.url, http.Header{tt.name: {tt.value}}, "hello", tt.status, tt.answer)
	}
	if _, err := trustPages("http://a, http://b"); !strings.HasPrefix(fmt.Sprint(err), "-trust: ") {
		t.Errorf("got %v", err)
	}
}

// A WebSocket's text is an echo, unless it is a valid command. Nothing follows a close.
func TestSocket(t *testing.T) {
	url := startOrigin(t, &origin{}, nil)
	send(t, "POST /publish", url, nil, "kept, although the proxy refuses it")
	for text, want := range map[string]string{
		`{"close":1000}`:              "CLOSE 2\r\n\x03\xe8\r\n",
		`{"close":4999,"reason":"x"}`: "CLOSE 3\r\n\x13\x87x\r\n",
		`{"close":1005}`:              "TEXT 10\r\nm:{\"close\":1005}\r\nPONG\r\n",
		`{"close":2999}`:              "TEXT 10\r\nm:{\"close\":2999}\r\nPONG\r\n",
		`{"close":5000}`:              "TEXT 10\r\nm:{\"close\":5000}\r\nPONG\r\n",
		`{"close":"?","after":""}`:    "TEXT 1a\r\nm:{\"close\":\"?\",\"after\":\"\"}\r\nPONG\r\n",
		`{"close":4001,"reason":"` + strings.Repeat("x", 124) + `"}`: "xxx\"}\r\nPONG\r\n",
		`{"after":"other-7"}`:         `{"gap":true,"start":"none-0"}`,
		strings.Repeat("x", 32<<10-1): "CLOSE 18\r\n\x03\xf1the message is too big\r\n",
	} {
		body := grip.EncodeEvents(grip.Event{Type: grip.Text, Content: []byte(text)}, grip.Event{Type: grip.Ping})
		_, answer := send(t, "POST /socket", url, proxied, string(body))
		if !strings.Contains(answer, want) || strings.HasPrefix(want, "CLOSE") && answer != want {
			t.Errorf("%.40s: got %.200q, want %q", text, answer, want)
		}
	}
}

// Clients that publish at the same time and read on every kind of connection get
// all messages once, in the same order. A publish request that the proxy accepts
// slowly delays no other client.
func TestPublishAtOnce(t *testing.T) {
	const clients, each = 8, 20
	var published sync.Map // channel and prev-id
	var count atomic.Int32
	arrived, release := make(chan bool), make(chan bool)
	url := startOrigin(t, &origin{}, func(_ http.ResponseWriter, r *http.Request) {
		var body struct{ Items []grip.Item }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		if strings.HasSuffix(body.Items[0].ID, "-1") {
			close(arrived)
			<-release
		}
		for _, item := range body.Items {
			count.Add(1)
			if _, again := published.LoadOrStore(item.Channel+" "+item.PrevID, true); again {
				t.Errorf("%s was published on %s again", item.ID, item.Channel)
			}
		}
	})
	publish := func(text string) { check(t, "POST /publish", url, nil, text, 200, `"id": "`) }
	slow := make(chan bool)
	go func() {
		defer close(slow)
		publish("slow")
	}()
	select {
	case <-arrived:
	case <-slow:
		t.FailNow()
	}
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for j := range each {
				publish(fmt.Sprint(i, " ", j))
				send(t, "GET /events", url, proxied, "")
				send(t, "POST /socket", url, proxied, "OPEN\r\nTEXT c\r\n{\"after\":\"\"}\r\n")
			}
		})
		all.Go(func() {
			texts := map[string]bool{}
			for last := beginning; len(texts) < 1+clients*each && !t.Failed(); {
				_, answer := send(t, "GET /poll?after="+last, url, proxied, "")
				var p polled
				if err := json.Unmarshal([]byte(answer), &p); err != nil || p.Gap {
					t.Errorf("poll: %s", answer)
				}
				for _, m := range p.Messages {
					if m.Prev != last || texts[m.Text] {
						t.Errorf("%+v follows %s", m, last)
					}
					texts[m.Text], last = true, m.ID
				}
			}
		})
	}
	all.Wait()
	close(release)
	<-slow
	if got := count.Load(); got != 4*(1+clients*each) {
		t.Errorf("%d messages were published", got)
	}
}

var proxied = func() http.Header {
	claims := jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}
	sig, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("a key for tests"))
	return http.Header{"Grip-Sig": {sig}}
}()

// startOrigin starts the origin, which publishes to the handler.
func startOrigin(t *testing.T, o *origin, publish http.HandlerFunc) (url string) {
	t.Helper()
	proxy := httptest.NewServer(publish)
	t.Cleanup(proxy.Close)
	var err error
	if o.grip, err = grip.ParseURL(proxy.URL, "a key for tests"); err != nil {
		t.Fatal(err)
	}
	if o.pages, err = trustPages("https://app.example"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(o.handler())
	t.Cleanup(server.Close)
	return server.URL
}

// check sends a request and checks that the response has the status and, somewhere, the text.
func check(t *testing.T, request, url string, header http.Header, body string, status int, text string) {
	t.Helper()
	got, answer := send(t, request, url, header, body)
	if got != status || !strings.Contains(answer, text) {
		t.Errorf("%s, %v: got %d, %s; want %d, %s", request, header, got, answer, status, text)
	}
}

// send sends a request, such as "GET /poll", and returns the status and the body of the response.
func send(t *testing.T, request, url string, header http.Header, body string) (int, string) {
	method, path, _ := strings.Cut(request, " ")
	req := httptest.NewRequest(method, url+path, strings.NewReader(body))
	req.RequestURI, req.Header = "", header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(content)
}
