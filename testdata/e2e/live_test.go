package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestLive tests each endpoint of the demo's origin through the app, Viceroy and Pushpin, then its page, and then the
// origins in other languages.
func TestLive(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	origin := runOrigin(t, p, p.Origin, []string{"GRIP_URL=" + p.GripURL()}, "-poll-timeout=5s", "-keep-alive=1s", "-next=5s")
	app := p.serve(t)

	// This must be the first test: it needs a channel without subscriptions.
	t.Run("nothing is lost", func(t *testing.T) { testNothingLost(t, p) })
	t.Run("events", func(t *testing.T) { testEvents(t, p) })
	t.Run("poll", func(t *testing.T) { testPoll(t, p) })
	t.Run("socket", func(t *testing.T) { testSocketEdges(t, p) })
	t.Run("publish", func(t *testing.T) { testPublish(t, p) })
	t.Run("who", func(t *testing.T) { testWho(t, p) })
	t.Run("streams", func(t *testing.T) { testStreams(t, p) })
	t.Run("events only", func(t *testing.T) { testEventsOnly(t, p) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, p, "GET /stream", "GET /events", "GET /poll", "POST /socket") })
	t.Run("production", func(t *testing.T) {
		testProduction(t, p.log, func(addr, gripURL, verifyKey string) {
			runOrigin(t, p, addr, []string{"GRIP_URL=" + gripURL, "GRIP_VERIFY_KEY=" + verifyKey})
		}, "publishing was refused with status 401", "publish: no response from the GRIP proxy")
	})
	t.Run("page", func(t *testing.T) { testPage(t, p) })

	origin.Stop()
	testOrigins(t, p, app)
}

// An event stream gets keep-alives. A client that connects again gets the missed messages, in order.
func testEvents(t *testing.T, p *project) {
	ctx, leave := context.WithCancel(withPatience(t))
	stream := open(t, ctx, p.url("/events?channel=events"))
	start := stream.event().Start
	stream.until(": keep-alive")
	first := say(t, p, "events", "first")
	stream.want(first)
	leave()

	second, third := say(t, p, "events", "second"), say(t, p, "events", "third")
	for _, tt := range []struct {
		name, query, lastEventID, start string
		gap                             bool
		missed                          []message
	}{
		{"a browser that reconnects", "", first.ID, first.ID, false, []message{second, third}},
		{"the page", "&after=" + first.ID, "", first.ID, false, []message{second, third}},
		{"a client that has got only the start", "", start, start, false, []message{first, second, third}},
		{"a client with an unknown id", "", "other-7", start, true, []message{first, second, third}},
	} {
		stream := open(t, withPatience(t), p.url("/events?channel=events"+tt.query), "Last-Event-ID", tt.lastEventID)
		stream.want(message{Start: tt.start, Gap: tt.gap})
		stream.want(tt.missed...)
	}
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
		defer close(held)
		for {
			answer, err := poll(ctx, p, "channel=poll&after="+want[1].ID)
			if err != nil || len(answer.Messages) > 0 {
				held <- answer
				return
			}
		}
	}()
	third := say(t, p, "poll", "third")
	if got := <-held; !slices.Equal(got.Messages, []message{third}) || got.Last != third.ID {
		t.Errorf("held: got %+v, want %+v", got, third)
	}
	if answer, err := poll(ctx, p, "channel=poll&after=other-7"); err != nil || !answer.Gap || len(answer.Messages) != 3 {
		t.Errorf("from an unknown id: got %+v, %v", answer, err)
	}
}

// A WebSocket answers pings, accepts a subprotocol, and closes with the client's code. It echoes what is no command.
func testSocketEdges(t *testing.T, p *project) {
	ctx := withPatience(t)
	conn := dialSocket(t, ctx, p, "", "other", "fanout-demo")
	if got := conn.Subprotocol(); got != "fanout-demo" {
		t.Errorf("the subprotocol is %q", got)
	}
	if got := dialSocket(t, ctx, p, "", "other").Subprotocol(); got != "" {
		t.Errorf("the subprotocol is %q, and the client offered another", got)
	}
	go conn.Read(ctx) // the library handles a pong only while it reads
	if err := conn.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := dialSocket(t, ctx, p, "").Close(4321, "a reason"); err != nil { // waits for a close with the same code
		t.Errorf("close: %v", err)
	}

	largest := strings.Repeat("x", 32<<10-2) // see the origin's maxEcho
	first, second := say(t, p, "missed", "first"), say(t, p, "missed", "second")
	for _, tt := range []struct {
		name, query string
		send        []string
		want        string // part of the last answer, or of the error if there is none
	}{
		{"close by the origin", "", []string{`{"close":4001,"reason":"bye"}`}, `status = StatusCode(4001) and reason = "bye"`},
		{"close with 1005", "", []string{`{"close":1005}`}, "1000, or a code from 3000 to 4999"},
		{"close with 2999", "", []string{`{"close":2999}`}, "1000, or a code from 3000 to 4999"},
		{"close with 5000", "", []string{`{"close":5000}`}, "1000, or a code from 3000 to 4999"},
		{"125 bytes", "", []string{largest[:125]}, largest[:125]},
		{"126 bytes", "", []string{largest[:126]}, largest[:126]},
		{"the largest echo", "", []string{largest}, largest},
		{"one byte more", "", []string{largest + "x"}, "StatusMessageTooBig"},
		{"more than 64 KiB", "", []string{strings.Repeat("x", 64<<10+1)}, "StatusMessageTooBig"},
		{"attributes", "name=ann", []string{"one", "two", `{"whoami":true}`}, `"echoed":2,"name":"ann"`},
		{"attributes of another", "name=bob", []string{`{"whoami":true}`}, `"echoed":0,"name":"bob"`},
		{"a new client", "channel=missed", []string{`{"after":""}`}, `{"gap":false,"start":"` + second.ID + `"}`},
		{"a client that was away", "channel=missed", []string{`{"after":"` + first.ID + `"}`}, `{"gap":false,"start":"` + first.ID + `"}`},
		{"an unknown id", "channel=missed", []string{`{"after":"other-7"}`}, `{"gap":true,"start":"` + first.Prev + `"}`},
	} {
		conn, got := dialSocket(t, ctx, p, tt.query), ""
		for _, text := range tt.send {
			got = talk(ctx, conn, text)
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %.200q, want %.200q", tt.name, got, tt.want)
		}
	}
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
		if got := fetch(t, "POST", p.url("/publish"), tt.body); got.status != tt.status || !strings.Contains(got.body, tt.says) {
			t.Errorf("%s: got status %d, %s", tt.name, got.status, got.body)
		}
	}
	// HTML arrives unchanged, like any other text, and so does a large message.
	ctx := withPatience(t)
	stream := open(t, ctx, p.url("/events?channel=publish"))
	stream.event()
	for _, text := range []string{`<img src=x onerror="alert(1)"> & "quotes" \ ☃`, strings.Repeat("y", 16_000)} {
		stream.want(say(t, p, "publish", text))
	}
	// A publish request of 64 KiB arrives complete.
	conn := dialSocket(t, ctx, p, "channel=size")
	talk(ctx, conn, "is it open?")
	c, err := grip.ParseURL(p.GripURL(), "")
	if err != nil {
		t.Fatal(err)
	}
	const around = len(`{"items":[{"channel":"size","formats":{"ws-message":{"content":""}}}]}`)
	want := strings.Repeat("z", grip.MaxPublish-around)
	if err := c.Publish(ctx, grip.Item{Channel: "size", Formats: grip.Formats{WSMessage: &grip.WSMessage{Content: want}}}); err != nil {
		t.Error(err)
	}
	if _, got, err := conn.Read(ctx); err != nil || string(got) != want {
		t.Errorf("64 KiB: got %d bytes, %v", len(got), err)
	}
}

// The origin knows which clients are connected, and how, and when a WebSocket has ended.
func testWho(t *testing.T, p *project) {
	open(t, withPatience(t), p.url("/events?channel=who&name=ann")).event()
	conn := dialSocket(t, withPatience(t), p, "channel=who&name=bob")
	for _, want := range []string{
		`[{"name":"ann","transport":"events"},{"name":"bob","transport":"socket"}]`,
		`[{"name":"ann","transport":"events"}]`,
	} {
		var got string
		for deadline := time.Now().Add(patience); got != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %s, want %s", got, want)
			}
			got = strings.Join(strings.Fields(fetch(t, "GET", p.url("/who?channel=who"), "").body), "")
		}
		conn.CloseNow()
	}
}

// A stream gets the messages of its own channel, and those that are published directly to the proxy.
func testStreams(t *testing.T, p *project) {
	stream := open(t, withPatience(t), p.url("/stream"))
	stream.until("stream open")
	say(t, p, "never.heard-of_it", "for another")
	say(t, p, "demo", "for this one")
	got := stream.until("for this one") // so the subscriptions have started
	p.publish(t, `"http-stream":{"content":"directly\n"}`)
	got = append(got, stream.until("directly")...)
	if got := strings.Join(got, ""); got != "for this onedirectly" { // there may be keep-alives, too
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"a,b", "a:b", "a+b", "a%0d%0ab", strings.Repeat("a", 65), "é"} {
		for _, path := range []string{"/stream", "/events", "/poll", "/who"} {
			if got := fetch(t, "GET", p.url(path+"?channel="+bad), ""); got.status != http.StatusBadRequest {
				t.Errorf("%s, channel %q: status %d", path, bad, got.status)
			}
		}
	}
}

// The origin refuses what are no events of a WebSocket.
func testEventsOnly(t *testing.T, p *project) {
	key := []byte("viceroy_dev_signing_key_dont_use_in_production")
	sig := sign(t, jwt.SigningMethodHS256, key, "viceroy", time.Minute)
	for _, tt := range []struct {
		contentType, body string
		status            int
	}{
		{grip.EventsType, "OPEN\r\n", 200},
		{grip.EventsType, "OPEN", 400},
		{grip.EventsType, "TEXT 100000\r\n" + strings.Repeat("x", 0x100000) + "\r\n", 413},
		{"text/plain", "OPEN\r\n", 415},
	} {
		got := fetch(t, "POST", "http://"+p.Origin+"/socket", tt.body, grip.HeaderSig, sig, "Content-Type", tt.contentType)
		if got.status != tt.status {
			t.Errorf("%s %.20q: status %d, want %d", tt.contentType, tt.body, got.status, tt.status)
		}
	}
	if got := fetch(t, "GET", "http://"+p.Origin+"/socket", ""); got.status != http.StatusUpgradeRequired {
		t.Errorf("/socket without a WebSocket: status %d", got.status)
	}
}

// runOrigin runs the demo's origin until the test ends.
func runOrigin(t *testing.T, p *project, addr string, env []string, args ...string) *local.Process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "origin")
	p.run(t, ".", "go", "build", "-o", path, "../origin")
	cmd := exec.Command(path, append([]string{"-addr", addr, "-trust", "http://" + p.addr}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, p.log, p.log
	origin, err := local.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(origin.Stop)
	if _, err := origin.WaitForListener(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	return origin
}

// message is a message of the demo's origin, or its first answer to a client, which has Start and Gap.
type message struct {
	ID, Prev, Text, Start string
	At                    int64
	Gap                   bool
}

// say publishes a text through the app, and returns the message.
func say(t *testing.T, p *project, channel, text string) message {
	t.Helper()
	got := fetch(t, "POST", p.url("/publish?channel="+channel), text)
	var m message
	if err := json.Unmarshal([]byte(got.body), &m); got.status != http.StatusOK || err != nil || m.Text != text {
		t.Fatalf("publish: status %d, %s", got.status, got.body)
	}
	return m
}

// answer is the response to fetch.
type answer struct {
	status int
	header http.Header
	body   string
}

// fetch sends a request. header has names and values, in turn; an empty value is not sent. Without an answer, the test fails.
func fetch(t *testing.T, method, url, body string, header ...string) answer {
	t.Helper()
	resp, err := do(withPatience(t), method, url, body, header...)
	if err != nil {
		t.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return answer{resp.StatusCode, resp.Header, string(content)}
}

func do(ctx context.Context, method, url, body string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	return http.DefaultClient.Do(req)
}

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// openLines opens a response that does not end, and returns its lines. It closes the response when ctx ends.
func openLines(ctx context.Context, url string, header ...string) (*bufio.Scanner, error) {
	resp, err := do(ctx, "GET", url, "", header...)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return lines, nil
}

// lines are the lines of a response that does not end.
type lines struct {
	t *testing.T
	*bufio.Scanner
}

// open opens a stream. The stream ends when the context or the test ends.
func open(t *testing.T, ctx context.Context, url string, header ...string) lines {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	l, err := openLines(ctx, url, header...)
	if err != nil {
		t.Fatal(err)
	}
	return lines{t, l}
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

// event returns the next event. The first one has the id after which the messages begin.
func (l lines) event() (m message) {
	l.t.Helper()
	got := l.until("data: ")
	err := json.Unmarshal([]byte(strings.TrimPrefix(got[len(got)-1], "data: ")), &m)
	if err != nil || !slices.Contains(got, "id: "+m.ID+m.Start) {
		l.t.Fatalf("no event with an id: %q, %v", got, err)
	}
	return m
}

// want checks that these are the next messages.
func (l lines) want(messages ...message) {
	l.t.Helper()
	for _, want := range messages {
		if got := l.event(); got != want {
			l.t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// polled is the answer to a long-poll.
type polled struct {
	Messages []message
	Last     string
	Gap      bool
}

func poll(ctx context.Context, p *project, query string) (got polled, err error) {
	resp, err := do(ctx, "GET", p.url("/poll?"+query), "")
	if err != nil {
		return polled{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return polled{}, errors.New(resp.Status)
	}
	err = json.NewDecoder(resp.Body).Decode(&got)
	return got, err
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

// talk sends a text on a WebSocket, and returns the text that comes next, or why none comes.
func talk(ctx context.Context, conn *websocket.Conn, text string) string {
	if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		return err.Error()
	}
	_, answer, err := conn.Read(ctx)
	if err != nil {
		return err.Error()
	}
	return string(answer)
}
