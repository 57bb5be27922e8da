package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// The origin believes X-User only in a request that the proxy of its own service signed, and only one
// value of it.
func TestUser(t *testing.T) {
	const whoami = "TEXT f\r\n{\"whoami\":true}\r\n"
	signed := sign(t, "changeme", "fastly:OURS", time.Minute)
	url := startOrigin(t, "verify-iss=fastly:OURS&verify-key=changeme", nil)
	for name, tt := range map[string]struct {
		method, path, body, sig string
		user                    []string
		status                  int
		answer                  string
	}{
		"signed":                   {"GET", "/me", "", signed, []string{"ada"}, 200, `"user": "ada"`},
		"HEAD":                     {"HEAD", "/me", "", signed, []string{"ada"}, 200, ""},
		"WebSocket":                {"POST", "/socket", whoami, signed, []string{"ada"}, 200, `"user":"ada"`},
		"no user":                  {"GET", "/me", "", signed, nil, 401, "vouches for no user"},
		"empty":                    {"GET", "/me", "", signed, []string{""}, 401, "vouches for no user"},
		"two users":                {"GET", "/me", "", signed, []string{"ada", "eve"}, 400, "only one X-User"},
		"two users in one line":    {"GET", "/me", "", signed, []string{"ada, eve"}, 400, "only one X-User"},
		"two users of a WebSocket": {"POST", "/socket", whoami, signed, []string{"ada", "eve"}, 400, "only one X-User"},
		"straight to the origin":   {"GET", "/me", "", "", []string{"ada"}, 403, "GRIP proxy only"},
		"forged":                   {"GET", "/me", "", sign(t, "other", "fastly:OURS", time.Minute), []string{"ada"}, 403, "GRIP proxy only"},
		"another service":          {"GET", "/me", "", sign(t, "changeme", "fastly:OTHER", time.Minute), []string{"ada"}, 403, "GRIP proxy only"},
		"expired":                  {"GET", "/me", "", sign(t, "changeme", "fastly:OURS", -time.Minute), []string{"ada"}, 403, "GRIP proxy only"},
	} {
		header := http.Header{"Grip-Sig": {tt.sig}, "X-User": tt.user, "Content-Type": {"application/websocket-events"}}
		resp, answer := send(t, tt.method, url+tt.path, header, tt.body)
		if resp.StatusCode != tt.status || !strings.Contains(answer, tt.answer) {
			t.Errorf("%s: got %s, %s; want %d, %s", name, resp.Status, answer, tt.status, tt.answer)
		}
	}
	// Without a key, anybody can pretend to be the proxy.
	header := http.Header{"Grip-Sig": {"any"}, "X-User": {"ada"}}
	if resp, answer := send(t, "GET", startOrigin(t, "", nil)+"/me", header, ""); resp.StatusCode != 401 {
		t.Errorf("without a verify-key: got %s, %s", resp.Status, answer)
	}
}

// /echo shows the headers of one client, so no cache may keep it for the next.
func TestEchoIsNotCached(t *testing.T) {
	resp, _ := send(t, "GET", startOrigin(t, "", nil)+"/echo", nil, "")
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q, want no-store", got)
	}
}

// Clients that publish at the same time and read on every kind of connection get all messages once, in
// the same order. A publish request that the proxy accepts slowly delays no other client.
func TestPublishAtOnce(t *testing.T) {
	const clients, each = 8, 20
	var mu sync.Mutex
	published := map[string]int{} // channel and id
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
		mu.Lock()
		defer mu.Unlock()
		for _, item := range body.Items {
			published[item.Channel+" "+item.ID]++
		}
	})
	proxied := http.Header{"Grip-Sig": {"any"}, "Content-Type": {"application/websocket-events"}}
	publish := func(text string) {
		if resp, answer := send(t, "POST", url+"/publish", nil, text); resp.StatusCode != 200 {
			t.Errorf("publish: %s, %s", resp.Status, answer)
		}
	}
	var slow, all sync.WaitGroup
	slow.Go(func() { publish("slow") })
	<-arrived
	for i := range clients {
		name := fmt.Sprint("client-", i)
		all.Go(func() {
			for j := range each {
				publish(fmt.Sprint(name, " ", j))
			}
		})
		all.Go(func() {
			texts := map[string]bool{}
			for last := beginning; len(texts) < 1+clients*each && !t.Failed(); {
				resp, answer := send(t, "GET", url+"/poll?after="+last+"&name="+name, proxied, "")
				var p polled
				if err := json.Unmarshal([]byte(answer), &p); err != nil || p.Gap {
					t.Errorf("poll: %s, %s", resp.Status, answer)
				}
				for _, m := range p.Messages {
					if m.Prev != last || texts[m.Text] {
						t.Errorf("%+v follows %s", m, last)
					}
					texts[m.Text], last = true, m.ID
				}
				if p.Last != last {
					t.Errorf("the answer says to go on after %s, not %s", p.Last, last)
				}
			}
		})
		all.Go(func() {
			for range each {
				send(t, "GET", url+"/events?name="+name, proxied, "")
				send(t, "POST", url+"/socket?name="+name, proxied, "OPEN\r\nTEXT 5\r\nhello\r\nCLOSE 2\r\n\x03\xe8\r\n")
				send(t, "GET", url+"/who", nil, "")
			}
		})
	}
	all.Wait()
	close(release)
	slow.Wait()
	for message, n := range published {
		if n != 1 || len(published) != 4*(1+clients*each) {
			t.Errorf("%s, one of %d, was published %d times", message, len(published), n)
		}
	}
}

// If publishing fails, the origin logs one line without the key. The client learns no more than the status.
func TestPublishFails(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	url := startOrigin(t, "key=TOKEN", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "TOKEN\nis not valid", http.StatusUnauthorized)
	})
	resp, answer := send(t, "POST", url+"/publish", nil, "hello")
	if want := "was not published: the GRIP proxy refused it with status 401\n"; resp.StatusCode != 502 || !strings.HasSuffix(answer, want) {
		t.Errorf("the client gets %s, %s", resp.Status, answer)
	}
	got := logged.String()
	if !strings.Contains(got, `publish to "demo": publishing was refused with status 401`) || strings.Count(got, "\n") != 1 || strings.Contains(got, "TOKEN") {
		t.Errorf("it logs %s", got)
	}
}

func TestTrustPages(t *testing.T) {
	for _, bad := range []string{"", "localhost:7676", "http://localhost:7676/", "http://localhost:7676, http://a"} {
		if _, err := trustPages(bad); err == nil || !strings.HasPrefix(err.Error(), "-trust: ") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestHistoryAfter(t *testing.T) {
	h := &newOrigin().history
	h.channels["c"] = &channelLog{epoch: "now"}
	for _, text := range []string{"one", "two", "three"} {
		h.add("c", text, accept)
	}
	// A message that check refuses is not kept, and gets no id.
	if _, err := h.add("c", "refused", func(message) error { return errors.New("no") }); err == nil {
		t.Error("add returned no error for a message that check refuses")
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
		{"c", "nonsense", " one two three", "none-0", "now-3", true},
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

// A client that asks for messages that the history no longer has learns of the gap. Asking adds no
// channel, so it removes none either.
func TestHistoryBounds(t *testing.T) {
	h := &newOrigin().history
	for i := range 1010 {
		h.add("many", fmt.Sprint(i), accept)
	}
	if messages, start, _, gap := h.after("many", "none-0"); len(messages) != 1000 || start != messages[0].Prev || !gap {
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
	if len(h.channels) != 100 || h.channels["many"] != nil || h.channels["large"] == nil {
		t.Errorf("%d channels; is the oldest still there: %t", len(h.channels), h.channels["many"] != nil)
	}
}

// startOrigin starts an origin whose GRIP_URL has this query. It publishes to the handler, in place of a proxy.
func startOrigin(t *testing.T, query string, publish http.HandlerFunc) (url string) {
	t.Helper()
	proxy := httptest.NewServer(publish)
	t.Cleanup(proxy.Close)
	o := newOrigin()
	var err error
	if o.grip, err = grip.ParseURL(proxy.URL+"/?"+query, ""); err != nil {
		t.Fatal(err)
	}
	if o.pages, err = trustPages("http://localhost:7676"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(o.handler())
	t.Cleanup(server.Close)
	return server.URL
}

func send(t *testing.T, method, url string, header http.Header, body string) (resp *http.Response, answer string) {
	req := httptest.NewRequest(method, url, strings.NewReader(body))
	req.RequestURI, req.Header = "", header
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, string(content)
}

func sign(t *testing.T, key, issuer string, life time.Duration) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": issuer, "exp": time.Now().Add(life).Unix()}
	sig, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func accept(message) error { return nil }
