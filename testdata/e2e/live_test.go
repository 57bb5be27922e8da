package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestLive tests each endpoint of the demo's origin through the app, Viceroy and Pushpin, then
// its page, and then the origins in other languages. What the origin refuses, and its commands on
// a WebSocket, are in the origin's own tests.
func TestLive(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	env := []string{"GRIP_URL=" + p.GripURL()}
	origin := runOrigin(t, p, p.Origin, env, "-poll-timeout=5s", "-keep-alive=1s", "-next=5s")
	p.serve(t)

	// This must be the first test: it needs a channel without subscriptions.
	t.Run("nothing is lost", func(t *testing.T) { testNothingLost(t, p) })
	t.Run("events", func(t *testing.T) { testEvents(t, p) })
	t.Run("poll", func(t *testing.T) { testPoll(t, p) })
	t.Run("socket", func(t *testing.T) { testSocket(t, p) })
	t.Run("stream", func(t *testing.T) { testStream(t, p) })
	t.Run("refusals", func(t *testing.T) {
		testRefusals(t, p, "GET /stream", "GET /events", "GET /poll", "POST /socket")
	})
	t.Run("production", func(t *testing.T) {
		testProduction(t, p.log, func(addr, gripURL, verifyKey string) {
			runOrigin(t, p, addr, []string{"GRIP_URL=" + gripURL, "GRIP_VERIFY_KEY=" + verifyKey})
		}, `publish to "demo": publishing was refused with status 401`,
			"publish: no response from the GRIP proxy")
	})
	t.Run("page", func(t *testing.T) { testPage(t, p) })

	origin.Stop()
	testOrigins(t, p)
}

// A message is published every 20 ms. This begins before the first subscription to the
// channel. Event streams connect during this time. About a second after the first subscription,
// Pushpin sends all the requests that it holds to the origin again. The clients also
// disconnect, at once and then after every ten messages, and connect again. In the end, each
// client must have every message from its first one on, once and in order. testPage does this
// with long-polls and WebSockets.
func testNothingLost(t *testing.T, p *project) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var clients sync.WaitGroup
	for i := 1; i <= 200; i++ {
		say(t, p, "lost", strconv.Itoa(i))
		if i >= 5 && i < 85 && i%5 == 0 { // they connect one after another
			clients.Go(func() {
				if err := follow(ctx, p); err != nil {
					t.Errorf("the client that connected after message %d: %v", i, err)
				}
			})
		}
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	clients.Wait()
}

// follow connects a client again and again. Its messages must be consecutive numbers up to 200.
func follow(ctx context.Context, p *project) error {
	last, previous, dropped := "", 0, 0
	for connections := 0; previous < 200; connections++ {
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		lines, err := openLines(ctx, p.url("/events?channel=lost&after="+last))
		for events := 0; err == nil && previous < 200 && events < 1+10*min(connections, 1); {
			if !lines.Scan() {
				if dropped++; dropped > 2 { // Pushpin 1.36 may drop one
					return fmt.Errorf("after %d, the stream ended again: %v", previous, lines.Err())
				}
				break
			}
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var m message
			err = json.Unmarshal([]byte(data), &m)
			n, _ := strconv.Atoi(m.Text)
			if m.Gap || (events == 0) != (m.Start != "") || events > 0 && previous > 0 && n != previous+1 {
				return fmt.Errorf("after %d: got %s", previous, data)
			}
			last, previous = m.ID+m.Start, max(previous, n)
			events++
		}
		leave()
		if err != nil {
			return err
		}
	}
	return nil
}

// An event stream gets keep-alives. A client that connects again gets
// the missed messages, in order.
func testEvents(t *testing.T, p *project) {
	url := p.url("/events?channel=events")
	stream := open(t, url)
	stream.until(`data: {"start":"none-0","gap":false}`)
	stream.until(": keep-alive")
	first := say(t, p, "events", `<b>"bold"</b> & \ ☃`)
	stream.until("id: " + first.ID)
	stream.until(`data: {"id":"` + first.ID + `","prev":"none-0","text":"<b>\"bold\"</b> & \\ ☃","at":`)
	second := say(t, p, "events", strings.Repeat("y", 16_000))
	stream.until("id: " + second.ID)

	stream = open(t, url+"&after=other-7", "Last-Event-ID", first.ID) // a browser keeps the URL
	stream.until(`data: {"start":"` + first.ID + `","gap":false}`)
	stream.until("id: " + second.ID)

	stream = open(t, url+"&after=other-7")
	stream.until(`data: {"start":"none-0","gap":true}`)
	stream.until("id: " + first.ID)
}

// A long-poll waits for a message, or for its timeout. A client with an
// unknown id gets its answer at once.
func testPoll(t *testing.T, p *project) {
	started := time.Now()
	got := fetch(t, "GET", p.url("/poll?channel=poll"), "")
	if got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("caches may keep the answer: %v", got.header)
	}
	if strings.Join(strings.Fields(got.body), "") != `{"messages":[],"last":"none-0","gap":false}` {
		t.Errorf("after the timeout: got %s", got.body)
	}
	waited := time.Since(started)
	if waited < 4900*time.Millisecond || waited > 20*time.Second { // the default is 25 s
		t.Errorf("the timeout of 5s came after %v", waited)
	}
	got = fetch(t, "GET", p.url("/poll?channel=poll&after=other-7"), "")
	if strings.Join(strings.Fields(got.body), "") != `{"messages":[],"last":"none-0","gap":true}` {
		t.Errorf("from an unknown id: got %s", got.body)
	}
}

// A WebSocket accepts a subprotocol, answers pings and keeps attributes. It
// closes with a code of either side.
func testSocket(t *testing.T, p *project) {
	ctx := withPatience(t)
	conn := dialSocket(t, ctx, p, "name=ann", "other", "fanout-demo")
	if got := conn.Subprotocol(); got != "fanout-demo" {
		t.Errorf("the subprotocol is %q", got)
	}
	largest := strings.Repeat("x", 32<<10-2) // see the origin's maxEcho
	for _, tt := range []struct{ send, want string }{
		{"one", "one"},
		{largest, largest},
		{`{"whoami":true}`, `"echoed":2,"name":"ann"`},
		{`{"close":4001,"reason":"bye"}`, `status = StatusCode(4001) and reason = "bye"`},
	} {
		if got := talk(ctx, conn, tt.send); !strings.Contains(got, tt.want) {
			t.Errorf("%.50s: got %.200q, want %.200q", tt.send, got, tt.want)
		}
	}

	conn = dialSocket(t, ctx, p, "", "other") // fails if the origin accepts what was not offered
	talk(ctx, conn, "is it open?")
	// A publish request of 64 KiB arrives complete.
	const around = len(`{"items":[{"channel":"demo","formats":{"ws-message":{"content":""}}}]}`)
	want := strings.Repeat("z", 64<<10-around)
	p.publish(t, `"ws-message":{"content":"`+want+`"}`)
	if _, got, err := conn.Read(ctx); err != nil || string(got) != want {
		t.Errorf("64 KiB: got %d bytes, %v", len(got), err)
	}
	go conn.Read(ctx) // the library handles a pong only while it reads
	if err := conn.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := conn.Close(4321, "a reason"); err != nil { // waits for a close with the same code
		t.Errorf("close: %v", err)
	}
}

// A stream gets the messages of its own channel, and those that are
// published directly to the proxy.
func testStream(t *testing.T, p *project) {
	stream := open(t, p.url("/stream"))
	stream.until("stream open")
	say(t, p, "never.heard-of_it", "for another")
	say(t, p, "demo", "for this one")
	got := stream.until("for this one") // so the subscriptions have started
	p.publish(t, `"http-stream":{"content":"directly\n"}`)
	got = append(got, stream.until("directly")...)
	if got := strings.Join(got, ""); got != "for this onedirectly" { // there may be keep-alives, too
		t.Errorf("got %q", got)
	}
}

// runOrigin runs the demo's origin until the test ends.
func runOrigin(t *testing.T, p *project, addr string, env []string, args ...string) *local.Process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "origin")
	p.run(t, ".", "go", "build", "-o", path, "../origin")
	cmd := exec.Command(path, append([]string{"-addr", addr, "-trust", "http://" + p.addr}, args...)...)
	cmd.Env = env
	origin, err := local.Start(cmd, p.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(origin.Stop)
	if _, err := origin.WaitForListener(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	return origin
}

// message is a message of the demo's origin, or its first answer to a
// client, which has Start and Gap.
type message struct {
	ID, Text, Start string
	Gap             bool
}

// say publishes a text through the app and returns the message.
func say(t *testing.T, p *project, channel, text string) message {
	t.Helper()
	got := fetch(t, "POST", p.url("/publish?channel="+channel), text)
	var m message
	err := json.Unmarshal([]byte(got.body), &m)
	if got.status != http.StatusOK || err != nil || m.Text != text {
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

// fetch sends a request. header has names and values, in turn; an empty value is not sent.
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

// openLines opens a response that does not end, and returns its lines. It
// closes the response when ctx ends.
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

// open opens a stream. The stream ends with the test, or when its patience does.
func open(t *testing.T, url string, header ...string) lines {
	t.Helper()
	l, err := openLines(withPatience(t), url, header...)
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

func dialSocket(t *testing.T, ctx context.Context, p *project, query string, protocols ...string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(ctx, "ws://"+p.addr+"/socket?"+query,
		&websocket.DialOptions{Subprotocols: protocols})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// talk sends a text on a WebSocket and returns the text that comes next, or why none comes.
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
