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

// The origin believes X-User only in a request that the proxy of its own service
// signed, and only one value of it.
func TestUser(t *testing.T) {
	const whoami = "TEXT f\r\n{\"whoami\":true}\r\n"
	ours, ada := sign("changeme", "fastly:OURS"), []string{"ada"}
	url := startOrigin(t, "verify-iss=fastly:OURS&verify-key=changeme", nil)
	for _, tt := range []struct {
		request, body, sig string
		user               []string
		status             int
		answer             string
	}{
		{"GET /me", "", ours, ada, 200, `"user": "ada"`},
		{"POST /socket", whoami, ours, ada, 200, `"user":"ada"`},
		{"GET /me", "", ours, []string{""}, 401, "vouches for no user"},
		{"GET /me", "", ours, []string{"ada", "eve"}, 400, "only one X-User"},
		{"POST /socket", whoami, ours, []string{"ada, eve"}, 400, "only one X-User"},
		{"GET /me", "", sign("other", "fastly:OURS"), ada, 403, "GRIP proxy only"},
		{"GET /me", "", sign("changeme", "fastly:OTHER"), ada, 403, "GRIP proxy only"},
	} {
		header := http.Header{"Grip-Sig": {tt.sig}, "X-User": tt.user, "Content-Type": {grip.EventsType}}
		check(t, tt.request, url, header, tt.body, tt.status, tt.answer)
	}
	// Without a key, anybody can pretend to be the proxy.
	header := http.Header{"Grip-Sig": {"any"}, "X-User": {"ada"}}
	check(t, "GET /me", startOrigin(t, "", nil), header, "", 401, "vouches for no user")
}

// The origin says what is wrong with a request.
func TestRefused(t *testing.T) {
	const names = "channel and name must be 1 to 64"
	url := startOrigin(t, "", nil)
	for _, tt := range []struct {
		request, body string
		status        int
		answer        string
	}{
		{"POST /publish", "", 400, "one line of text"},
		{"POST /publish", "a\nb", 400, "one line of text"},
		{"POST /publish", "\xff", 400, "UTF-8"},
		{"POST /publish", strings.Repeat("x", 20_000), 413, "65536 are allowed"},
		{"POST /publish", strings.Repeat("x", 65_537), 413, "larger than 64 KiB"},
		{"POST /publish?channel=a,b", "hello", 400, names},
		{"GET /poll?channel=a:poll", "", 400, names},
		{"GET /poll?channel=a+b", "", 400, names},
		{"GET /poll?channel=a%0d%0ab", "", 400, names},
		{"GET /events?name=%C3%A9", "", 400, names},
		{"GET /who?channel=" + strings.Repeat("a", 65), "", 400, names},
		{"GET /socket", "", 426, "connect with ws://"},
		{"POST /socket", "OPEN", 400, "the body ends within"},
		{"POST /socket", strings.Repeat("x", 1<<20+1), 413, "larger than 1024 KiB"},
	} {
		check(t, tt.request, url, proxied, tt.body, tt.status, tt.answer)
	}
	check(t, "POST /socket", url, http.Header{"Grip-Sig": {"any"}}, "OPEN\r\n", 415, grip.EventsType)
}

// A WebSocket's text is an echo, unless it is a valid command.
func TestSocket(t *testing.T) {
	const codes = "close needs the code 1000, or a code from 3000 to 4999"
	url := startOrigin(t, "", nil)
	send(t, "POST /publish", url, nil, "kept, although the proxy refuses it")
	for text, want := range map[string]string{
		`{"close":1000}`: "CLOSE 2\r\n\x03\xe8\r\n",
		`{"close":1005}`: codes,
		`{"close":2999}`: codes,
		`{"close":5000}`: codes,
		`{"close":4001,"reason":"` + strings.Repeat("x", 124) + `"}`: codes,
		`{"after":"other-7"}`:         `{"gap":true,"start":"none-0"}`,
		strings.Repeat("x", 32<<10-1): "CLOSE 18\r\n\x03\xf1the message is too big\r\n",
		`{"whoami":false}`:            `m:{"whoami":false}`,
	} {
		body := grip.EncodeEvents(grip.Event{Type: grip.Text, Content: []byte(text)})
		if _, answer := send(t, "POST /socket", url, proxied, string(body)); !strings.Contains(answer, want) {
			t.Errorf("%.40s: got %.200q, want %q", text, answer, want)
		}
	}
	send(t, "POST /socket?name=eve&channel=other", url, proxied, "OPEN\r\n")
	for _, tt := range []struct{ events, who string }{
		{"OPEN\r\n", `[{"name":"bob","transport":"socket"}]`},
		{"DISCONNECT\r\n", "[]"},
		{"CLOSE\r\n", "[]"},
		{"TEXT e\r\n{\"close\":1000}\r\n", "[]"},
	} {
		send(t, "POST /socket?name=bob", url, proxied, tt.events)
		if _, who := send(t, "GET /who", url, nil, ""); strings.Join(strings.Fields(who), "") != tt.who {
			t.Errorf("after %q: %s, want %s", tt.events, who, tt.who)
		}
	}
}

var proxied = http.Header{"Grip-Sig": {"any"}, "Content-Type": {grip.EventsType}}

// Clients that publish at the same time and read on every kind of connection get
// all messages once, in the same order. A publish request that the proxy accepts
// slowly delays no other client.
func TestPublishAtOnce(t *testing.T) {
	const clients, each = 8, 20
	var published sync.Map // channel and prev-id
	var count atomic.Int32
	arrived, release := make(chan bool), make(chan bool)
	url := startOrigin(t, "", func(_ http.ResponseWriter, r *http.Request) {
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
	var slow, all sync.WaitGroup
	slow.Go(func() { publish("slow") })
	<-arrived
	for i := range clients {
		name := fmt.Sprint("name=client-", i)
		all.Go(func() {
			for j := range each {
				publish(fmt.Sprint(name, " ", j))
			}
		})
		all.Go(func() {
			texts := map[string]bool{}
			for last := beginning; len(texts) < 1+clients*each && !t.Failed(); {
				_, answer := send(t, "GET /poll?after="+last+"&"+name, url, proxied, "")
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
		all.Go(func() {
			for range each {
				send(t, "GET /events?"+name, url, proxied, "")
				send(t, "POST /socket?"+name, url, proxied,
					"OPEN\r\nTEXT 5\r\nhello\r\nCLOSE 2\r\n\x03\xe8\r\n")
				send(t, "GET /who", url, nil, "")
			}
		})
	}
	all.Wait()
	close(release)
	slow.Wait()
	if got := count.Load(); got != 4*(1+clients*each) {
		t.Errorf("%d messages were published", got)
	}
}

func TestTrustPages(t *testing.T) {
	_, err := trustPages("http://a, http://b")
	if !strings.HasPrefix(fmt.Sprint(err), "-trust: ") {
		t.Errorf("got %v", err)
	}
}

func TestHistoryAfter(t *testing.T) {
	h := &newOrigin().history
	h.channels["c"] = &channelLog{epoch: "now"}
	for _, text := range []string{"one", "two", "three"} {
		h.add("c", text, accept)
	}
	// A message that check refuses is not kept, and gets no id.
	if _, err := h.add("c", "refused", func(message) error { return io.EOF }); err != io.EOF {
		t.Errorf("got %v for a message that check refuses", err)
	}
	for _, tt := range []struct {
		channel, id string
		texts       string
		start, last string
		gap         bool
	}{
		{"c", "", "", "now-3", "now-3", false}, // a new client
		{"c", "none-0", " one two three", "none-0", "now-3", false},
		{"c", "now-1", " two three", "now-1", "now-3", false},
		{"c", "now-3", "", "now-3", "now-3", false},
		{"c", "now-4", " one two three", "none-0", "now-3", true},
		{"c", "old-2", " one two three", "none-0", "now-3", true}, // from before a restart
		{"new", "", "", "none-0", "none-0", false},
		{"new", "none-0", "", "none-0", "none-0", false},
		{"new", "old-2", "", "none-0", "none-0", true},
	} {
		messages, start, last, gap := h.after(tt.channel, tt.id)
		var texts string
		for _, m := range messages {
			texts += " " + m.Text
		}
		if texts != tt.texts || start != tt.start || last != tt.last || gap != tt.gap {
			t.Errorf("%s after %q: got %q, %q, %q, %t", tt.channel, tt.id, texts, start, last, gap)
		}
	}
}

// A client that asks for messages that the history no longer has learns of the gap. Asking adds
// no channel, so it removes none either.
func TestHistoryBounds(t *testing.T) {
	h := &newOrigin().history
	for range 1010 {
		h.add("many", "hello", accept)
	}
	messages, start, _, gap := h.after("many", "none-0")
	known, _, _, _ := h.after("many", start)
	h.add("many", "hello", accept) // removes the first message, but not from what after returned
	if len(messages) != 1000 || start != messages[0].Prev || start != known[0].Prev || !gap {
		t.Errorf("%d messages after %s, gap %t", len(messages), start, gap)
	}
	for range 20 {
		h.add("large", strings.Repeat("\x01", 10_000), accept) // as JSON, each is six times as long
	}
	if messages, _, _, gap := h.after("large", "none-0"); len(messages) != 8 || !gap {
		t.Errorf("%d large messages, gap %t", len(messages), gap)
	}
	h.channels["many"].messages[999].At-- // so this channel's last message is the oldest
	for i := range 99 {
		h.after(fmt.Sprint("asked for ", i), "")
		h.add(fmt.Sprint(i), "hello", accept)
	}
	h.add("98", "hello", accept) // removes none: the channel is there
	if len(h.channels) != 100 || h.channels["many"] != nil || h.channels["large"] == nil {
		t.Errorf("%d channels; is the oldest still there: %t", len(h.channels), h.channels["many"] != nil)
	}
}

func accept(message) error { return nil }

// startOrigin starts an origin whose GRIP_URL has this query. It publishes to the handler.
func startOrigin(t *testing.T, query string, publish http.HandlerFunc) (url string) {
	t.Helper()
	proxy := httptest.NewServer(publish)
	t.Cleanup(proxy.Close)
	config, err := grip.ParseURL(proxy.URL+"/?"+query, "")
	if err != nil {
		t.Fatal(err)
	}
	o := newOrigin()
	o.grip, o.pages = config, http.NewCrossOriginProtection()
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

// send sends a request, such as "GET /me", and returns the status and the body of the response.
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

func sign(key, issuer string) string {
	claims := jwt.MapClaims{"iss": issuer, "exp": time.Now().Add(time.Minute).Unix()}
	sig, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
	return sig
}
