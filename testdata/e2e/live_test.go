package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

var liveURL = flag.String("url", "", "test the demo's origin behind the app at this `URL`, and start nothing")

// TestLive tests the demo's origin behind the app: in Viceroy and Pushpin, or with -url on Fastly.
// In both cases it only uses what a client can reach.
func TestLive(t *testing.T) {
	at := site{*liveURL}
	var p *project
	if *liveURL == "" {
		needsDefault(t)
		t.Parallel()
		p = newProject(t)
		runOrigin(t, p, p.origin, []string{"GRIP_URL=" + p.gripURL()}, "-poll-timeout=5s", "-keep-alive=1s", "-next=5s")
		p.serve(t)
		at = p.site
	} else if u, err := url.Parse(*liveURL); err != nil || u.Host == "" {
		t.Fatalf("-url=%s: the URL must be that of the service, such as https://www.example.com", *liveURL)
	}
	// Each mistake in the set-up makes many tests fail, so the first one ends them.
	if t.Run("set-up", func(t *testing.T) { testSetUp(t, at) }) {
		t.Run("bodies", func(t *testing.T) { testBodies(t, at) })
		t.Run("nothing is lost", func(t *testing.T) { testNothingLost(t, at) })
		t.Run("events", func(t *testing.T) { testEvents(t, at) })
		t.Run("poll", func(t *testing.T) { testPoll(t, at) })
		t.Run("socket", func(t *testing.T) { testSocket(t, at) })
		t.Run("stream", func(t *testing.T) { testStream(t, at) })
		if p != nil {
			t.Run("page", func(t *testing.T) { testPage(t, p) })
		}
	}
}

// echo is what the demo's origin answers at /echo.
type echo struct {
	Method, Target, Host string
	Header               http.Header
	BodyBytes            int
	ViaFanout            bool
}

// testSetUp checks that GET and HEAD are handed off, that POST is forwarded, and that messages arrive.
// If something is not set up, the test says what to do.
func testSetUp(t *testing.T, at site) {
	var got echo
	for _, method := range []string{"GET", "HEAD", "POST"} {
		answer := at.fetch(t, method, "/echo?a=b", "", "Grip-Sig", "forged")
		request := method + " /echo"
		switch {
		case answer.status == http.StatusServiceUnavailable && method != "POST":
			t.Fatalf("%s was answered with 503: enable Fanout for the service (fastly products --enable=fanout)", request)
		case answer.status == http.StatusInternalServerError:
			t.Fatalf("%s was answered with 500: has the service a backend with the name origin? "+
				"The app's log has the command that creates it (fastly log-tail)", request)
		case answer.status >= 502:
			t.Fatalf("%s was answered with %d (%.80q): no origin answers at the address of the backend origin. "+
				"Start it, and check the backend's address, port and TLS", request, answer.status, answer.body)
		case answer.status != http.StatusOK:
			t.Fatalf("%s was answered with %d (%.80q): that is not the demo's origin", request, answer.status, answer.body)
		case method == "HEAD":
			continue
		}
		got = echo{}
		if err := json.Unmarshal([]byte(answer.body), &got); err != nil || got.Method != method || got.Target != "/echo?a=b" {
			t.Fatalf("%s: the answer %.200q is not that of the demo's origin", request, answer.body)
		}
		if u, _ := url.Parse(at.base); got.Host == u.Host {
			t.Errorf("the origin sees the Host %s of the service: set the Override Host of the backend origin "+
				"to the origin's own host", got.Host)
		}
		switch sig := got.Header.Get(grip.HeaderSig); {
		case method == "POST" && got.ViaFanout:
			t.Fatal("POST /echo was handed off: the app must forward it")
		case method == "GET" && sig == "forged":
			t.Fatal("GET /echo was not handed off: does the condition in main.go hand it off?")
		case method == "GET" && sig == "":
			t.Fatal("GET /echo was not handed off: is Fanout enabled?")
		case method == "GET" && !got.ViaFanout:
			t.Fatal("GET /echo was handed off, but the origin does not accept the proxy's signature: " +
				"check verify-iss in the origin's GRIP_URL, which names the service, and its key")
		}
	}
	channel := rand.Text()
	stream := at.open(t, "/events?channel="+channel)
	stream.until("event: start")
	id := "id: " + at.say(t, channel, "hello").ID
	for stream.Scan() && stream.Text() != id { // until the patience ends
	}
	if stream.Text() != id {
		t.Fatal("POST /publish was accepted, but the message does not arrive: " +
			"check that the origin's GRIP_URL publishes to this service")
	}
}

// A large upload arrives whole.
func testBodies(t *testing.T, at site) {
	var got echo
	answer := at.fetch(t, "POST", "/echo", mebibyte)
	if err := json.Unmarshal([]byte(answer.body), &got); err != nil || got.BodyBytes != len(mebibyte) {
		t.Errorf("of a POST with 1 MiB arrived %d bytes; the answer is %.200q", got.BodyBytes, answer.body)
	}
}

// Messages are published while event streams connect. About a second after the first subscription
// to a channel, Pushpin sends all the requests that it holds to the origin again. The clients also
// disconnect, at once and then after every ten messages, and connect again. In the end, each client
// must have every message from its first one on, once and in order. testPage does this with
// long-polls and WebSockets.
func testNothingLost(t *testing.T, at site) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*patience)
	defer cancel()
	const messages, clients = 150, 16
	channel, results := rand.Text(), make(chan error, clients)
	for i := 1; i <= messages; i++ {
		at.say(t, channel, strconv.Itoa(i))
		if i%5 == 0 && i <= 5*clients { // they connect one after another
			go func() { results <- at.follow(ctx, channel, messages) }()
		}
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	for range clients {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// follow connects a client again and again. Its messages must be consecutive numbers, up to the end.
func (at site) follow(ctx context.Context, channel string, end int) error {
	last, previous, dropped := "", 0, 0
	for connections := 0; previous < end; connections++ {
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		lines, err := at.lines(ctx, "/events?channel="+channel+"&after="+last)
		if err != nil {
			return err
		}
		for events := 0; previous < end && events < 1+10*min(connections, 1); {
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
			err := json.Unmarshal([]byte(data), &m)
			n, _ := strconv.Atoi(m.Text)
			if err != nil || m.Gap || (events == 0) != (m.Start != "") || events > 0 && previous > 0 && n != previous+1 {
				return fmt.Errorf("after %d: got %s (%v)", previous, data, err)
			}
			last, previous = m.ID+m.Start, max(previous, n)
			events++
		}
		leave()
	}
	return nil
}

// An event stream gets keep-alives. A client that connects again gets the missed messages, in order.
func testEvents(t *testing.T, at site) {
	channel := rand.Text()
	target := "/events?channel=" + channel
	stream := at.open(t, target)
	stream.until(`data: {"start":"none-0","gap":false}`)
	stream.until(": keep-alive")
	first := at.say(t, channel, `<b>"bold"</b> & \ ☃`)
	stream.until("id: " + first.ID)
	stream.until(`data: {"id":"` + first.ID + `","prev":"none-0","text":"<b>\"bold\"</b> & \\ ☃","at":`)
	second := at.say(t, channel, strings.Repeat("y", 16_000))
	stream.until("id: " + second.ID)

	stream = at.open(t, target+"&after=other-7", "Last-Event-ID", first.ID) // a browser keeps the URL
	stream.until(`data: {"start":"` + first.ID + `","gap":false}`)
	stream.until("id: " + second.ID)

	stream = at.open(t, target+"&after=other-7")
	stream.until(`data: {"start":"none-0","gap":true}`)
	stream.until("id: " + first.ID)
}

// A long-poll waits for its timeout, or for a message. With an unknown id, it does not wait.
func testPoll(t *testing.T, at site) {
	target := "/poll?channel=" + rand.Text()
	poll := func(target, want string) {
		t.Helper()
		got := at.fetch(t, "GET", target, "")
		if strings.Join(strings.Fields(got.body), "") != want || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %+v, want %s", target, got, want)
		}
	}
	before := time.Now()
	poll(target, `{"messages":[],"last":"none-0","gap":false}`)
	if waited := time.Since(before); waited < 4*time.Second {
		t.Errorf("the answer without a message came after %v", waited)
	}
	poll(target+"&after=other-7", `{"messages":[],"last":"none-0","gap":true}`)
}

// A WebSocket echoes texts and binary messages, answers pings, and closes with a code of either side.
func testSocket(t *testing.T, at site) {
	ctx := withPatience(t)
	channel := "channel=" + rand.Text()
	conn := at.socket(t, channel)
	largest := strings.Repeat("x", 32<<10-2) // see the origin's maxEcho
	for send, want := range map[string]string{
		"one":                 "one",
		largest:               largest,
		`c:{"type":"detach"}`: `c:{"type":"detach"}`, // to Pushpin, c: begins a control message
	} {
		if got := talk(ctx, conn, send); got != want {
			t.Errorf("%.50s: got %.200q, want %.200q", send, got, want)
		}
	}
	conn.Write(ctx, websocket.MessageBinary, []byte("\x00\xff\r\n"))
	if kind, got, err := conn.Read(ctx); kind != websocket.MessageBinary || string(got) != "\x00\xff\r\n" {
		t.Errorf("binary came back as %v %q, %v", kind, got, err)
	}
	got, want := talk(ctx, conn, `{"close":4001,"reason":"bye"}`), `status = StatusCode(4001) and reason = "bye"`
	if !strings.Contains(got, want) {
		t.Errorf("closed with %q, want %q", got, want)
	}

	conn = at.socket(t, channel)
	talk(ctx, conn, "is it open?")
	at.say(t, strings.TrimPrefix(channel, "channel="), "published")
	if _, got, err := conn.Read(ctx); err != nil || !strings.Contains(string(got), `"text":"published"`) {
		t.Errorf("got %q, %v, and not what was published", got, err)
	}
	go conn.Read(ctx) // the library handles a pong only while it reads
	if err := conn.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := conn.Close(4321, "a reason"); err != nil { // waits for a close with the same code
		t.Errorf("close: %v", err)
	}
}

// A stream gets the messages of its own channel.
func testStream(t *testing.T, at site) {
	channel := rand.Text()
	stream := at.open(t, "/stream?channel="+channel)
	stream.until("stream open")
	at.say(t, rand.Text(), "for another")
	at.say(t, channel, "for this one")
	if got := strings.Join(stream.until("for this one"), ""); got != "for this one" { // there may be keep-alives, too
		t.Errorf("got %q", got)
	}
}

// runOrigin runs the demo's origin at addr, with more variables, until the test ends.
func runOrigin(t testing.TB, p *project, addr string, env []string, args ...string) *program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "origin")
	sh(t, ".", `go build -o "$1" ../origin`, path)
	cmd := exec.Command(path, append([]string{"-addr", addr, "-trust", "http://" + p.addr}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	origin := start(t, p.log, cmd)
	origin.wait(t, "origin: listening on ")
	return origin
}

// site is where the tests reach the demo's origin.
type site struct{ base string }

// message is a message of the demo's origin, or its first answer to a client, which has Start and Gap.
type message struct {
	ID, Text, Start string
	Gap             bool
}

// say publishes a text through the app and returns the message.
func (at site) say(t testing.TB, channel, text string) (m message) {
	t.Helper()
	got := at.fetch(t, "POST", "/publish?channel="+channel, text)
	switch err := json.Unmarshal([]byte(got.body), &m); {
	case got.status == http.StatusUnauthorized:
		t.Fatalf("POST /publish was answered with 401 (%q): set PUBLISH_TOKEN to the origin's token", got.body)
	case got.status == http.StatusBadGateway:
		t.Fatalf("POST /publish was answered with 502 (%q): check the address and the key in the origin's GRIP_URL; "+
			"the origin's log has the cause", got.body)
	case got.status != http.StatusOK || err != nil || m.Text != text:
		t.Fatalf("POST /publish was answered with %d: %q", got.status, got.body)
	}
	return m
}

// answer is the response to fetch.
type answer struct {
	status int
	header http.Header
	body   string
}

// fetch sends a request. header has names and values, in turn.
func (at site) fetch(t testing.TB, method, target, body string, header ...string) answer {
	t.Helper()
	resp, err := at.do(withPatience(t), method, target, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s %s: the response broke off: %v", method, target, err)
	}
	return answer{resp.StatusCode, resp.Header, string(content)}
}

func (at site) do(ctx context.Context, method, target, body string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.base+target, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if token := os.Getenv("PUBLISH_TOKEN"); token != "" && strings.HasPrefix(target, "/publish") {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return http.DefaultClient.Do(req)
}

// lines opens a response that does not end, and returns its lines. It closes the response when ctx ends.
func (at site) lines(ctx context.Context, target string, header ...string) (*bufio.Scanner, error) {
	resp, err := at.do(ctx, "GET", target, "", header...)
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

// stream is a response that does not end.
type stream struct {
	t testing.TB
	*bufio.Scanner
}

// open opens a stream, which ends with the test, or when its patience does.
func (at site) open(t testing.TB, target string, header ...string) stream {
	t.Helper()
	lines, err := at.lines(withPatience(t), target, header...)
	if err != nil {
		t.Fatalf("GET %s: %v", target, err)
	}
	return stream{t, lines}
}

// until returns the lines up to the first one with the prefix.
func (s stream) until(prefix string) []string {
	s.t.Helper()
	var got []string
	for s.Scan() {
		got = append(got, s.Text())
		if strings.HasPrefix(s.Text(), prefix) {
			return got
		}
	}
	s.t.Fatalf("the stream ended without %q, with %v: %q", prefix, s.Err(), got)
	return nil
}

// socket opens a WebSocket, which ends with the test.
func (at site) socket(t testing.TB, query string) *websocket.Conn {
	t.Helper()
	conn, resp, err := websocket.Dial(withPatience(t), at.base+"/socket?"+query, nil)
	if err != nil {
		t.Fatalf("open a WebSocket: %v (%v)", err, resp)
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
