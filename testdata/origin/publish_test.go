package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// startOrigin starts an origin that publishes to the handler publish, in place of a GRIP proxy. The query is that of
// its GRIP_URL.
func startOrigin(t *testing.T, query string, publish http.HandlerFunc) (url string) {
	t.Helper()
	proxy := httptest.NewServer(publish)
	t.Cleanup(proxy.Close)
	config, err := grip.ParseURL(proxy.URL+"/?"+query, "")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := trustPages("http://localhost:7676")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{grip: config, history: newHistory(), presence: newPresence(), pages: pages}
	server := httptest.NewServer(o.handler())
	t.Cleanup(server.Close)
	return server.URL
}

// call sends a request, as the proxy does, and returns the answer.
func call(t *testing.T, method, url, body string) (status int, answer []byte) {
	t.Helper()
	return callReader(t, method, url, strings.NewReader(body))
}

func callReader(t *testing.T, method, url string, body io.Reader) (status int, answer []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only a failing test waits this long
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	req.Header.Set(grip.HeaderSig, "any")
	req.Header.Set("Content-Type", grip.EventsType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, answer
}

// checkOrder checks that each message has the id of the message before it.
func checkOrder(t *testing.T, start string, messages []message) {
	t.Helper()
	for _, m := range messages {
		if m.Prev != start {
			t.Errorf("%q has the id %s and follows %s, want %s", m.Text, m.ID, m.Prev, start)
		}
		start = m.ID
	}
}

// Several clients publish at the same time, and use every kind of connection. All get the messages in the same order.
// No message is missing, and none arrives twice. Each message is published once.
func TestPublishAtOnce(t *testing.T) {
	const clients, each = 8, 20
	var mu sync.Mutex
	published := map[string]int{} // channel and id
	url := startOrigin(t, "key=TOKEN", func(_ http.ResponseWriter, r *http.Request) {
		var body struct{ Items []grip.Item }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, item := range body.Items {
			published[item.Channel+" "+item.ID]++
		}
	})
	var all sync.WaitGroup
	for i := range clients {
		name := fmt.Sprint("client-", i)
		all.Go(func() { // publishes
			for j := range each {
				if status, answer := call(t, "POST", url+"/publish?name="+name, fmt.Sprint(name, " ", j)); status != http.StatusOK {
					t.Errorf("publish: %d, %s", status, answer)
				}
			}
		})
		all.Go(func() { // reads all of it
			var got []message
			for last := beginning; len(got) < clients*each && !t.Failed(); {
				status, answer := call(t, "GET", url+"/poll?after="+last+"&name="+name, "")
				var p polled
				if err := json.Unmarshal(answer, &p); err != nil || status != http.StatusOK || p.Gap {
					t.Errorf("poll: %d, %s", status, answer)
				}
				got, last = append(got, p.Messages...), p.Last
			}
			checkOrder(t, beginning, got)
			texts := map[string]bool{}
			for _, m := range got {
				texts[m.Text] = true
			}
			if len(texts) != clients*each {
				t.Errorf("%d different messages of %d", len(texts), clients*each)
			}
		})
		all.Go(func() { // connects and disconnects
			for range each {
				call(t, "GET", url+"/events?name="+name, "")
				call(t, "POST", url+"/socket?name="+name, "OPEN\r\nTEXT 5\r\nhello\r\nCLOSE 2\r\n\x03\xe8\r\n")
				call(t, "GET", url+"/who", "")
			}
		})
	}
	all.Wait()
	if len(published) != clients*each*4 {
		t.Errorf("%d messages in their formats were published, want %d", len(published), clients*each*4)
	}
	for message, n := range published {
		if n != 1 {
			t.Errorf("%s was published %d times", message, n)
		}
	}
}

// A slow publisher does not delay other clients. A message that the proxy accepts slowly does not either.
func TestSlowPublisher(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	url := startOrigin(t, "key=TOKEN", func(_ http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); bytes.Contains(body, []byte("slow proxy")) {
			close(arrived)
			<-release
		}
	})
	var slow sync.WaitGroup
	publish := func(body io.Reader) {
		slow.Go(func() {
			if status, answer := callReader(t, "POST", url+"/publish", body); status != http.StatusOK {
				t.Errorf("publish: %d, %s", status, answer)
			}
		})
	}
	body, writer := io.Pipe()
	publish(body)
	io.WriteString(writer, "slow ") // returns when the HTTP client has begun to send the request
	publish(strings.NewReader("slow proxy"))
	<-arrived
	for _, text := range []string{"one", "two"} {
		if status, answer := call(t, "POST", url+"/publish", text); status != http.StatusOK {
			t.Errorf("publish: %d, %s", status, answer)
		}
	}
	check := func(want ...string) {
		t.Helper()
		_, answer := call(t, "GET", url+"/poll?after="+beginning, "")
		var p polled
		if err := json.Unmarshal(answer, &p); err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, m := range p.Messages {
			texts = append(texts, m.Text)
		}
		if !slices.Equal(texts, want) {
			t.Errorf("got %q, want %q", texts, want)
		}
		checkOrder(t, beginning, p.Messages)
	}
	check("slow proxy", "one", "two")
	io.WriteString(writer, "client")
	writer.Close()
	close(release)
	slow.Wait()
	check("slow proxy", "one", "two", "slow client")
}

// A full history removes messages while clients read it. A client gets all messages without a gap, or learns that
// there is a gap.
func TestFullHistory(t *testing.T) {
	h, many := newHistory(), newHistory()
	fits := func(message) error { return nil }
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() { // adds more messages than one channel keeps
			for range maxMessages / 2 {
				h.add("full", strings.Repeat("x", 100), fits)
			}
		})
		all.Go(func() { // adds more channels than the limit
			for j := range maxChannels {
				channel := fmt.Sprint("channel-", i, "-", j)
				many.add(channel, "hello", fits)
				if messages, _, _, _ := many.after(channel, beginning); len(messages) > 1 { // 0, if the channel was removed again
					t.Errorf("%s has %d messages", channel, len(messages))
				}
			}
		})
		all.Go(func() {
			for after := beginning; !strings.HasSuffix(after, fmt.Sprint("-", 4*(maxMessages/2))); {
				messages, start, last, gap := h.after("full", after)
				if start != after && !gap {
					t.Errorf("after %s: the messages begin after %s, and there is no gap", after, start)
				}
				checkOrder(t, start, messages)
				after = last
			}
		})
	}
	all.Wait()
	if messages, _, _, gap := h.after("full", beginning); len(messages) != maxMessages || !gap {
		t.Errorf("%d messages, gap %t", len(messages), gap)
	}
	if len(many.channels) != maxChannels {
		t.Errorf("%d channels", len(many.channels))
	}
}

// If publishing fails, the origin logs one line. It says what to change, and it has no key. The client gets an error
// without the proxy's address.
func TestPublishFails(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	url := startOrigin(t, "key=TOKEN", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "TOKEN\nis not valid")
	})
	status, answer := call(t, "POST", url+"/publish", "hello")
	if status != http.StatusBadGateway || !strings.Contains(string(answer), "refused it with status 401") || strings.Contains(string(answer), "TOKEN") {
		t.Errorf("the client gets %d, %s", status, answer)
	}
	if got := logged.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `publish to "demo": publishing was refused with status 401`) ||
		!strings.Contains(got, "put a valid one there") || strings.Contains(got, "TOKEN") {
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
