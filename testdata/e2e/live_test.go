package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// TestLive tests each endpoint of the demo's origin through the app, Viceroy and Pushpin.
func TestLive(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	runOrigin(t, p, p.Origin, []string{"GRIP_URL=" + p.GripURL()}, "-poll-timeout=5s", "-keep-alive=1s", "-next=5s")
	p.serve(t)

	// This must be the first test: it needs a channel without subscriptions.
	t.Run("nothing is lost", func(t *testing.T) { testNothingLost(t, p) })
	t.Run("events", func(t *testing.T) { testEvents(t, p) })
	t.Run("poll", func(t *testing.T) { testPoll(t, p) })
	t.Run("socket", func(t *testing.T) { testSocketEdges(t, p) })
	t.Run("publish", func(t *testing.T) { testPublish(t, p) })
	t.Run("past the origin", func(t *testing.T) { testPastTheOrigin(t, p) })
	t.Run("who", func(t *testing.T) { testWho(t, p) })
	t.Run("names", func(t *testing.T) { testNames(t, p) })
	t.Run("past the proxy", func(t *testing.T) { testPastTheProxy(t, p) })
	t.Run("another publisher", func(t *testing.T) { testAnotherPublisher(t, p) })
}

var buildOrigin = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../bin/origin")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", path, "../origin").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the origin: %w: %s", err, out)
	}
	return path, nil
})

// runOrigin runs the demo's origin until the test ends.
func runOrigin(t *testing.T, p *project, addr string, env []string, args ...string) *chain.Process {
	t.Helper()
	path, err := buildOrigin()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"-addr", addr, "-trust", "http://" + p.addr}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, p.log, p.log
	origin, err := chain.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(origin.Stop)
	if _, err := origin.WaitForListener(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	return origin
}

// message is a message of the demo's origin.
type message struct {
	ID, Prev, Text string
	At             int64
}

// say publishes a text through the app, and returns the message.
func say(t *testing.T, p *project, channel, text string) message {
	t.Helper()
	status, body := post(t, p.url("/publish?channel="+channel), text)
	var m message
	if err := json.Unmarshal([]byte(body), &m); status != http.StatusOK || err != nil || m.Text != text {
		t.Fatalf("publish: status %d, %s", status, body)
	}
	return m
}

func post(t *testing.T, url, body string) (status int, answer string) {
	t.Helper()
	resp, err := http.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(content)
}

// lines reads the lines of a response that does not end.
type lines struct {
	t *testing.T
	*bufio.Scanner
}

// open opens a stream. The stream ends when the context or the test ends.
func open(t *testing.T, ctx context.Context, url string, header ...string) lines {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
	return lines{t, bufio.NewScanner(resp.Body)}
}

// until returns the lines up to the first one with the prefix.
func (l lines) until(prefix string) []string {
	l.t.Helper()
	var got []string
	for l.Scan() {
		got = append(got, l.Text())
		if strings.HasPrefix(l.Text(), prefix) {
			return got
		}
	}
	l.t.Fatalf("the stream ended without %q, with %v: %q", prefix, l.Err(), got)
	return nil
}

// start returns the first event, which has the id after which the messages begin.
func (l lines) start() (m struct {
	Start string
	Gap   bool
}) {
	l.t.Helper()
	got := l.until("data: ")
	if err := json.Unmarshal([]byte(strings.TrimPrefix(got[len(got)-1], "data: ")), &m); err != nil || m.Start == "" {
		l.t.Fatalf("no start event: %q, %v", got, err)
	}
	return m
}

func (l lines) event() (m message) {
	l.t.Helper()
	got := l.until("data: ")
	data := strings.TrimPrefix(got[len(got)-1], "data: ")
	if err := json.Unmarshal([]byte(data), &m); err != nil || len(got) < 2 || got[len(got)-2] != "id: "+m.ID {
		l.t.Fatalf("no event with an id: %q, %v", got, err)
	}
	return m
}

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// An event stream gets keep-alives. A client that connects again gets the missed messages, in order.
func testEvents(t *testing.T, p *project) {
	ctx, leave := context.WithCancel(withPatience(t))
	stream := open(t, ctx, p.url("/events?channel=events"))
	start := stream.start().Start
	stream.until(": keep-alive")
	want := say(t, p, "events", "first")
	if got := stream.event(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	leave()

	missed := []message{say(t, p, "events", "second"), say(t, p, "events", "third")}
	for _, stream := range []lines{
		open(t, withPatience(t), p.url("/events?channel=events"), "Last-Event-ID", want.ID),
		open(t, withPatience(t), p.url("/events?channel=events&after="+want.ID)),
	} {
		if at := stream.start(); at.Start != want.ID || at.Gap {
			t.Errorf("the stream starts at %+v, want %s", at, want.ID)
		}
		for _, want := range missed {
			if got := stream.event(); got != want {
				t.Errorf("missed: got %+v, want %+v", got, want)
			}
		}
	}

	// A client that has got no message, only the start event, misses no message either.
	stream = open(t, withPatience(t), p.url("/events?channel=events"), "Last-Event-ID", start)
	stream.start()
	if got := stream.event(); got != want {
		t.Errorf("from the start: got %+v, want %+v", got, want)
	}

	// For an unknown id, the origin reports a gap, and sends all messages that it has.
	stream = open(t, withPatience(t), p.url("/events?channel=events"), "Last-Event-ID", "other-7")
	if at := stream.start(); !at.Gap || at.Start != start {
		t.Errorf("after a gap the stream starts at %+v, want %s", at, start)
	}
	if got := stream.event(); got != want {
		t.Errorf("after a gap: got %+v, want %+v", got, want)
	}
}

type polled struct {
	Messages []message
	Last     string
	Gap      bool
}

func poll(ctx context.Context, p *project, query string) (answer polled, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/poll?"+query), nil)
	if err != nil {
		return polled{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return polled{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return polled{}, errors.New(resp.Status)
	}
	return answer, json.NewDecoder(resp.Body).Decode(&answer)
}

// A long-poll waits for a message, or for its timeout. If there are missed messages, the answer comes at once.
func testPoll(t *testing.T, p *project) {
	ctx := withPatience(t)
	started := time.Now()
	empty, err := poll(ctx, p, "channel=poll")
	if err != nil || len(empty.Messages) != 0 || empty.Last == "" {
		t.Fatalf("timeout: got %+v, %v", empty, err)
	}
	if waited := time.Since(started); waited < 4900*time.Millisecond || waited > 20*time.Second { // less than the default of 25 s
		t.Errorf("the timeout of 5s came after %v", waited)
	}

	if at, err := poll(ctx, p, "channel=poll&after="); err != nil || len(at.Messages) != 0 || at.Last != empty.Last {
		t.Errorf("the first id: got %+v, %v", at, err)
	}
	want := []message{say(t, p, "poll", "first"), say(t, p, "poll", "second")}
	answer, err := poll(ctx, p, "channel=poll&after="+empty.Last)
	if err != nil || !slices.Equal(answer.Messages, want) || answer.Last != want[1].ID {
		t.Errorf("missed: got %+v, %v", answer, err)
	}

	held := make(chan polled)
	go func() {
		for {
			answer, err := poll(ctx, p, "channel=poll&after="+want[1].ID)
			if err != nil || len(answer.Messages) > 0 {
				held <- answer
				return
			}
		}
	}()
	third := say(t, p, "poll", "third")
	if got := <-held; len(got.Messages) != 1 || got.Messages[0] != third || got.Last != third.ID {
		t.Errorf("held: got %+v, want %+v", got, third)
	}

	if answer, err := poll(ctx, p, "channel=poll&after=other-7"); err != nil || !answer.Gap || len(answer.Messages) != 3 {
		t.Errorf("from an unknown id: got %+v, %v", answer, err)
	}
}

func dialSocket(t *testing.T, ctx context.Context, p *project, query string, protocols ...string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(ctx, "ws://"+p.addr+"/socket?"+query, &websocket.DialOptions{Subprotocols: protocols})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func talk(t *testing.T, ctx context.Context, conn *websocket.Conn, text string) string {
	t.Helper()
	if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	_, answer, err := conn.Read(ctx)
	if err != nil {
		t.Fatalf("after %.100q: %v", text, err)
	}
	return string(answer)
}

// The other parts of a WebSocket: ping, close, subprotocols, sizes, attributes.
func testSocketEdges(t *testing.T, p *project) {
	ctx := withPatience(t)
	t.Run("ping", func(t *testing.T) {
		conn := dialSocket(t, ctx, p, "")
		go conn.Read(ctx) // the library handles a pong only while it reads
		if err := conn.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("close by the client", func(t *testing.T) {
		conn := dialSocket(t, ctx, p, "")
		if err := conn.Close(4321, "a reason"); err != nil { // waits for a close with the same code
			t.Error(err)
		}
	})
	t.Run("close by the origin", func(t *testing.T) {
		conn := dialSocket(t, ctx, p, "")
		if err := conn.Write(ctx, websocket.MessageText, []byte(`{"close":4001,"reason":"as you like"}`)); err != nil {
			t.Fatal(err)
		}
		var closed websocket.CloseError
		if _, _, err := conn.Read(ctx); !errors.As(err, &closed) || closed.Code != 4001 || closed.Reason != "as you like" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("close with an invalid code", func(t *testing.T) {
		conn := dialSocket(t, ctx, p, "")
		for _, code := range []string{"99", "1005", "1006", "1015", "2999", "5000"} {
			if got := talk(t, ctx, conn, `{"close":`+code+`}`); !strings.Contains(got, "1000, or a code from 3000 to 4999") {
				t.Errorf("%s: got %s", code, got)
			}
		}
	})
	t.Run("subprotocol", func(t *testing.T) {
		for _, tt := range []struct {
			offered []string
			want    string
		}{{[]string{"other", "fanout-demo"}, "fanout-demo"}, {[]string{"other"}, ""}, {nil, ""}} {
			if got := dialSocket(t, ctx, p, "", tt.offered...).Subprotocol(); got != tt.want {
				t.Errorf("offered %q: got %q, want %q", tt.offered, got, tt.want)
			}
		}
	})
	t.Run("sizes", func(t *testing.T) {
		conn := dialSocket(t, ctx, p, "")
		const largest = 32<<10 - 2 // see the origin's maxEcho
		for _, size := range []int{1, 125, 126, largest} {
			want := strings.Repeat("x", size)
			if got := talk(t, ctx, conn, want); got != want {
				t.Errorf("%d bytes came back as %d", size, len(got))
			}
		}
		for _, size := range []int{largest + 1, 64 << 10, 64<<10 + 1} {
			conn := dialSocket(t, ctx, p, "")
			if err := conn.Write(ctx, websocket.MessageText, []byte(strings.Repeat("x", size))); err != nil {
				t.Fatal(err)
			}
			if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
				t.Errorf("%d bytes: got %v, want a close with the code for too big", size, err)
			}
		}
	})
	t.Run("attribute", func(t *testing.T) {
		one, two := dialSocket(t, ctx, p, "name=one"), dialSocket(t, ctx, p, "name=two")
		talk(t, ctx, one, "hello")
		talk(t, ctx, one, "hello again")
		if got := talk(t, ctx, one, `{"whoami":true}`); !strings.Contains(got, `"echoed":2`) || !strings.Contains(got, `"name":"one"`) {
			t.Errorf("the first connection: %s", got)
		}
		if got := talk(t, ctx, two, `{"whoami":true}`); !strings.Contains(got, `"echoed":0`) || !strings.Contains(got, `"name":"two"`) {
			t.Errorf("the second connection: %s", got)
		}
	})
	t.Run("missed", func(t *testing.T) {
		first, second := say(t, p, "missed", "first"), say(t, p, "missed", "second")
		conn := dialSocket(t, ctx, p, "channel=missed")
		if got := talk(t, ctx, conn, `{"after":""}`); got != `{"gap":false,"start":"`+second.ID+`"}` {
			t.Errorf("a new client: %s", got)
		}
		if got := talk(t, ctx, conn, `{"after":"`+first.ID+`"}`); got != `{"gap":false,"start":"`+first.ID+`"}` {
			t.Errorf("a client that connects again: %s", got)
		}
		var got message
		if _, text, err := conn.Read(ctx); err != nil || json.Unmarshal(text, &got) != nil || got != second {
			t.Errorf("then got %+v, %v; want %+v", got, err, second)
		}
		if got := talk(t, ctx, conn, `{"after":"other-7"}`); got != `{"gap":true,"start":"`+first.Prev+`"}` {
			t.Errorf("from an unknown id: %s", got)
		}
	})
}

// /publish accepts valid messages, and says what is wrong with the others.
func testPublish(t *testing.T, p *project) {
	for _, tt := range []struct {
		name, body string
		status     int
		says       string
	}{
		{"empty", "", 400, "one line of text"},
		{"two lines", "a\nb", 400, "one line of text"},
		{"not UTF-8", "\xff", 400, "UTF-8"},
		{"too large for one publish request", strings.Repeat("x", 20_000), 413, "65536 are allowed"},
		{"larger than 64 KiB", strings.Repeat("x", 64<<10+1), 413, "larger than 64 KiB"},
	} {
		if status, body := post(t, p.url("/publish"), tt.body); status != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s: got status %d, %s", tt.name, status, body)
		}
	}
	// HTML arrives unchanged, like any other text.
	ctx := withPatience(t)
	stream := open(t, ctx, p.url("/events?channel=html"))
	stream.start()
	want := say(t, p, "html", `<img src=x onerror="alert(1)"> & "quotes" \ ☃`)
	if got := stream.event(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// Pushpin also accepts the largest message that the origin accepts, and the message arrives.
	size := 15_000
	for low, high := 0, 30_000; low < high; size = (low + high + 1) / 2 {
		if status, _ := post(t, p.url("/publish?channel=size"), strings.Repeat("x", size)); status == http.StatusOK {
			low = size
		} else {
			high = size - 1
		}
		if low == high {
			size = low
			break
		}
	}
	if size < 10_000 {
		t.Errorf("the largest message that can be published has %d bytes", size)
	}
	largest := strings.Repeat("y", size)
	conn := dialSocket(t, ctx, p, "channel=size")
	talk(t, ctx, conn, "is it open?")
	say(t, p, "size", largest)
	if _, got, err := conn.Read(ctx); err != nil || !strings.Contains(string(got), largest) {
		t.Errorf("the largest message: got %d bytes, %v", len(got), err)
	}
	if status, body := post(t, p.url("/publish?channel=size"), largest+"y"); status != http.StatusRequestEntityTooLarge {
		t.Errorf("one byte more: status %d, %s", status, body)
	}
	// A publish request of 64 KiB, with one format, arrives complete. With one byte more, it is not sent.
	c, err := grip.ParseURL(p.GripURL(), "")
	if err != nil {
		t.Fatal(err)
	}
	const around = len(`{"items":[{"channel":"size","formats":{"ws-message":{"content":""}}}]}`)
	item := grip.Item{Channel: "size", Formats: grip.Formats{WSMessage: &grip.WSMessage{Content: strings.Repeat("z", grip.MaxPublish-around)}}}
	if err := c.Publish(ctx, item); err != nil {
		t.Error(err)
	}
	if _, got, err := conn.Read(ctx); err != nil || string(got) != item.Formats.WSMessage.Content {
		t.Errorf("64 KiB: got %d bytes, %v", len(got), err)
	}
	whole := open(t, ctx, p.url("/stream?channel=size"))
	whole.until("stream open")
	line := strings.Repeat("z", grip.MaxPublish-around-1-len(`\n`)) // the 1 is the difference in length of http-stream and ws-message
	if err := c.Publish(ctx, grip.Item{Channel: "size", Formats: grip.Formats{HTTPStream: &grip.HTTPStream{Content: line + "\n"}}}); err != nil {
		t.Error(err)
	}
	if got := whole.until("z"); got[len(got)-1] != line {
		t.Errorf("64 KiB on a stream: got %d bytes", len(got[len(got)-1]))
	}
	item.Formats.WSMessage.Content += "z"
	if err := c.Publish(ctx, item); !errors.Is(err, grip.ErrTooLarge) {
		t.Errorf("64 KiB and one byte: got %v", err)
	}
}

// A message that is published directly to the proxy reaches every kind of connection.
func testPastTheOrigin(t *testing.T, p *project) {
	ctx := withPatience(t)
	stream, events := open(t, ctx, p.url("/stream")), open(t, ctx, p.url("/events"))
	stream.until("stream open")
	events.start()
	conn := dialSocket(t, ctx, p, "")
	talk(t, ctx, conn, "is it open?")
	say(t, p, "demo", "with an id") // so the subscriptions have started
	stream.until("with an id")
	events.event()
	if _, _, err := conn.Read(ctx); err != nil {
		t.Fatal(err)
	}

	p.publish(t, `"http-stream":{"content":"data: hello\n\n"},"ws-message":{"content":"hello"}`)
	stream.until("data: hello")
	events.until("data: hello")
	if _, got, err := conn.Read(ctx); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}

	after := say(t, p, "demo", "with an id again")
	stream.until(after.Text)
	if got := events.event(); got != after {
		t.Errorf("then: got %+v, want %+v", got, after)
	}
}

// The origin knows which clients are connected, and how, and when a WebSocket has ended.
func testWho(t *testing.T, p *project) {
	ctx, leave := context.WithCancel(withPatience(t))
	open(t, ctx, p.url("/events?channel=who&name=ann")).start()
	conn := dialSocket(t, ctx, p, "channel=who&name=bob")
	wait := func(want string) {
		t.Helper()
		for {
			resp, err := http.Get(p.url("/who?channel=who"))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			got := strings.Join(strings.Fields(string(body)), "")
			if err == nil && got == want {
				return
			}
			select {
			case <-ctx.Done():
				t.Fatalf("got %s, want %s", got, want)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	ann := `{"name":"ann","transport":"events"}`
	wait(`[` + ann + `,{"name":"bob","transport":"socket"}]`)
	conn.CloseNow()
	wait(`[` + ann + `]`)
	leave()
}

// A message reaches only its own channel. Invalid channel names are refused.
func testNames(t *testing.T, p *project) {
	ctx := withPatience(t)
	stream := open(t, ctx, p.url("/stream?channel=never.heard-of_it"))
	stream.until("stream open")
	say(t, p, "another", "not for this one")
	say(t, p, "never.heard-of_it", "for this one")
	if got := strings.Join(stream.until("for this one"), ""); got != "for this one" { // there may be keep-alives, too
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"a,b", "a:b", "a b", "a%0d%0ab", strings.Repeat("a", 65), "é"} {
		for _, path := range []string{"/stream", "/events", "/poll", "/who"} {
			resp, err := http.Get(p.url(path + "?channel=" + strings.ReplaceAll(bad, " ", "+")))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s, channel %q: %s", path, bad, resp.Status)
			}
		}
	}
}

// signed sends a request to the origin itself, with this Grip-Sig, and returns the response. An empty sig is left out.
func signed(t *testing.T, method, url, sig, contentType, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(withPatience(t), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if sig != "" {
		req.Header.Set(grip.HeaderSig, sig)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func sign(t *testing.T, method jwt.SigningMethod, key any, issuer string, life time.Duration) string {
	t.Helper()
	claims := jwt.RegisteredClaims{Issuer: issuer, ExpiresAt: jwt.NewNumericDate(time.Now().Add(life))}
	sig, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// The origin refuses requests that do not come through the proxy, unless they have a valid signature. It also checks the
// content of signed requests.
func testPastTheProxy(t *testing.T, p *project) {
	key := []byte("viceroy_dev_signing_key_dont_use_in_production")
	good := sign(t, jwt.SigningMethodHS256, key, "viceroy", time.Minute)
	for name, sig := range map[string]string{
		"none":           "",
		"forged":         sign(t, jwt.SigningMethodHS256, []byte("another key"), "viceroy", time.Minute),
		"expired":        sign(t, jwt.SigningMethodHS256, key, "viceroy", -time.Minute),
		"another issuer": sign(t, jwt.SigningMethodHS256, key, "me", time.Minute),
		"nonsense":       "nonsense",
	} {
		for _, path := range []string{"/stream", "/events", "/poll"} {
			resp := signed(t, "GET", "http://"+p.Origin+path, sig, "", "")
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "through the GRIP proxy only") {
				t.Errorf("signature %s, %s: %s, %s", name, path, resp.Status, body)
			}
		}
		if resp := signed(t, "POST", "http://"+p.Origin+"/socket", sig, grip.EventsType, "OPEN\r\n"); resp.StatusCode != http.StatusForbidden {
			t.Errorf("signature %s, /socket: %s", name, resp.Status)
		}
	}
	// The app adds no signature to the requests that it forwards.
	if resp := signed(t, "POST", p.url("/socket"), "forged", grip.EventsType, "OPEN\r\n"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a WebSocket's events, forwarded by the app: %s", resp.Status)
	}
	// A hold has the id of the client's last message. So the proxy notices messages between the answer and the hold.
	last := say(t, p, "holds", "hello").ID
	for _, name := range []string{"stream", "events", "poll"} {
		resp := signed(t, "GET", "http://"+p.Origin+"/"+name+"?channel=holds", good, "", "")
		want := []string{"holds", "holds:" + name + "; prev-id=" + last}
		if got := resp.Header[grip.HeaderChannel]; !slices.Equal(got, want) {
			t.Errorf("/%s holds with the channels %q, want %q", name, got, want)
		}
		if link := resp.Header.Get(grip.HeaderLink); name != "poll" && !strings.HasPrefix(link, "</"+name+"?channel=holds&") {
			t.Errorf("/%s has the link %q for missed messages", name, link)
		}
	}
	for _, tt := range []struct {
		contentType, body string
		status            int
	}{
		{grip.EventsType, "OPEN\r\n", 200},
		{grip.EventsType, "", 200},
		{grip.EventsType, "OPEN", 400},
		{grip.EventsType, "TEXT ffffffff\r\n", 400},
		{grip.EventsType, "NONSENSE\r\n", 400},
		{grip.EventsType, strings.Repeat("PING\r\n", 10_001), 400},
		{grip.EventsType, "TEXT 200000\r\n" + strings.Repeat("x", 0x200000) + "\r\n", 413},
		{"text/plain", "OPEN\r\n", 415},
	} {
		if resp := signed(t, "POST", "http://"+p.Origin+"/socket", good, tt.contentType, tt.body); resp.StatusCode != tt.status {
			t.Errorf("%s %.20q: %s, want %d", tt.contentType, tt.body, resp.Status, tt.status)
		}
	}
	if resp := signed(t, "GET", "http://"+p.Origin+"/socket", "", "", ""); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("/socket without a WebSocket: %s", resp.Status)
	}
}

// The same origin works with another publisher. The one here is configured like Fastly's, with a token, and with a public
// key for the signatures. If publishing fails, the answer says so.
func testAnotherPublisher(t *testing.T, p *project) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})

	requests, status := make(chan string, 10), http.StatusOK
	publisher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(body)
		w.WriteHeader(status)
	}))
	defer publisher.Close()
	addr := local(freePorts(t, 1))
	runOrigin(t, p, addr, []string{
		"GRIP_URL=" + publisher.URL + "/service/ID?key=TOKEN&verify-iss=fastly:ID",
		"GRIP_VERIFY_KEY=" + string(public),
	})

	sig := sign(t, jwt.SigningMethodES256, private, "fastly:ID", time.Minute)
	if resp := signed(t, "GET", "http://"+addr+"/stream", sig, "", ""); resp.StatusCode != 200 || resp.Header.Get(grip.HeaderHold) != "stream" {
		t.Errorf("signed by this publisher: %s", resp.Status)
	}
	sig = sign(t, jwt.SigningMethodHS256, []byte("viceroy_dev_signing_key_dont_use_in_production"), "viceroy", time.Minute)
	if resp := signed(t, "GET", "http://"+addr+"/stream", sig, "", ""); resp.StatusCode != http.StatusForbidden {
		t.Errorf("signed by the local Pushpin: %s", resp.Status)
	}

	publish := "http://" + addr + "/publish"
	if code, body := post(t, publish, "hello"); code != 200 {
		t.Errorf("publish: status %d, %s", code, body)
	}
	if got := <-requests; !strings.HasPrefix(got, `POST /service/ID/publish/ Bearer TOKEN {"items":[{"channel":"demo:`) {
		t.Errorf("the publish request was %s", got)
	}
	status = http.StatusForbidden
	if code, body := post(t, publish, "hello"); code != http.StatusBadGateway || !strings.Contains(body, "refused it with status 403") {
		t.Errorf("refused: status %d, %s", code, body)
	}
	publisher.Close()
	if code, body := post(t, publish, "hello"); code != http.StatusBadGateway || !strings.Contains(body, "does not answer") || strings.Contains(body, "127.0.0.1") {
		t.Errorf("down: status %d, %s", code, body)
	}
	p.waitForLog(t, "publish: no response from the GRIP proxy")
}
