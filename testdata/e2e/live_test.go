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
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

var liveURL = flag.String("url", "", "test the demo's origin behind the app at this `URL`, and start nothing")

// TestLive tests the demo's origin behind the app: in Viceroy and Pushpin, or with -url on Fastly.
// In both cases it only uses what a client can reach.
func TestLive(t *testing.T) {
	at := site{strings.TrimSuffix(*liveURL, "/")}
	if *liveURL == "" {
		needsDefault(t)
		t.Parallel()
		p := newProject(t)
		at = p.site
		start(t, ".", []string{"GRIP_URL=" + p.gripURL()}, "go", "run", "../origin", "-addr", p.origin,
			"-trust", at.base).wait(t, "origin: listening on ")
		p.serve(t)
	}
	// A mistake in the set-up would make all tests fail, so the first failure ends them.
	if !t.Run("set-up", func(t *testing.T) { testSetUp(t, at) }) {
		return
	}
	t.Run("nothing is lost", func(t *testing.T) { testNothingLost(t, at) })
	t.Run("socket", func(t *testing.T) { testSocket(t, at) })
}

// testSetUp checks that POST is forwarded, that GET and HEAD are handed off, and that messages
// arrive. If one of these fails, the test says what to do.
func testSetUp(t *testing.T, at site) {
	testEcho(t, at, "POST", "hello")
	testEcho(t, at, "GET", "")
	testEcho(t, at, "POST", mebibyte)
	if status, _ := at.fetch(t, "HEAD", "/poll?after=", ""); status != http.StatusOK {
		t.Fatalf("HEAD /poll was answered with %d: does the condition in main.go hand it off?", status)
	}
	const text, said = `<b>"bold"</b> & \ ☃`, `{.*"text":"<b>\\"bold\\"</b> & \\\\ ☃y+",.*}`
	channel, long := "?channel="+rand.Text(), text+strings.Repeat("y", 16_000)
	at.checkMessages(t, func() { at.say(t, channel, long) }, map[string]string{
		"/stream" + channel: `^stream open\s+` + regexp.QuoteMeta(long) + "\n",
		"/events" + channel: "\nid: .*-.*\ndata: " + said + "\n",
		"/poll" + channel:   `(?s)"messages":.*☃y+",.*"gap": ?false`, // also from the history
		"/socket" + channel: "^" + said + "$",
	})
}

// testEcho sends a request to /echo, where the origin reports what it received.
func testEcho(t *testing.T, at site, method, body string) {
	t.Helper()
	status, answer := at.fetch(t, method, "/echo?a=b", body, "Grip-Sig", "forged")
	var seen struct {
		Target, Host string
		Header       http.Header
		BodyBytes    int
		ViaFanout    bool
	}
	json.Unmarshal([]byte(answer), &seen)
	service, _ := url.Parse(at.base)
	why := ""
	switch handsOff := method == "GET"; {
	case status == http.StatusServiceUnavailable && handsOff:
		why = "failed: enable Fanout for the service (fastly products --enable=fanout)"
	case status == http.StatusInternalServerError:
		why = "failed: does the service have a backend named origin? " +
			"The app's log has the command that creates it (fastly log-tail)"
	case status > http.StatusInternalServerError:
		why = "failed: no origin answers at the address of the backend origin. " +
			"Start it, and check the backend's address, port and TLS"
	case seen.Target != "/echo?a=b" || seen.BodyBytes != len(body):
		why = "was not answered by the demo's origin: check the URL and the backend's address"
	case seen.Host == service.Host:
		why = "reached the origin with the Host of the service: " +
			"set the Override Host of the backend origin to the origin's own host"
	case !handsOff && seen.ViaFanout:
		why = "was handed off: the app must forward it"
	case handsOff && seen.Header.Get("Grip-Sig") == "forged":
		why = "was not handed off: does the condition in main.go hand it off?"
	case handsOff && !seen.ViaFanout:
		why = "was handed off, but the origin does not accept the proxy's signature: " +
			"check verify-iss in the origin's GRIP_URL, which names the service, and its key"
	}
	if why != "" {
		t.Fatalf("%s /echo %s (the answer: %d, %.80q)", method, why, status, answer)
	}
}

// checkMessages connects to each target, and publishes again and again, because a subscription starts a
// moment after its connection opens. What the client gets must match the pattern.
func (at site) checkMessages(t *testing.T, publish func(), want map[string]string) {
	t.Helper()
	ctx := withPatience(t)
	for target, pattern := range want {
		read := make(chan string, 1)
		go func() { read <- at.read(ctx, target, pattern) }()
		eventually(t, "the response to GET "+target, func() bool {
			publish()
			time.Sleep(200 * time.Millisecond) // this sets the rate; it does not wait for anything
			return len(read) > 0
		})
		if got := <-read; !regexp.MustCompile(pattern).MatchString(got) {
			t.Fatalf("GET %s got %.100q, and not what was published: check that the app hands it off, "+
				"and that the origin's GRIP_URL publishes to this service", target, got)
		}
	}
}

// Messages are published while event streams connect and disconnect, each at its own pace. Each gets all
// messages, once and in order. About a second after the first subscription to a channel, Pushpin sends
// all the requests that it holds to the origin again. testPage does this with all kinds of connection.
func testNothingLost(t *testing.T, at site) {
	channel, end := "?channel="+rand.Text(), 150
	event := regexp.MustCompile(`id: (.*)\ndata: .*"text":"(.*?)"`)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var clients sync.WaitGroup
	t.Cleanup(clients.Wait) // after cancel, if say fails
	for i := range 16 {
		clients.Go(func() {
			next, last := 1, "none-0" // the id before the first message
			some := fmt.Sprintf(`(?s)("text".*){%d}|"text":"%d"`, 5+i, end)
			for next <= end && ctx.Err() == nil {
				got := at.read(ctx, "/events"+channel+"&after="+last, some)
				for _, m := range event.FindAllStringSubmatch(got, -1) {
					if last = m[1]; m[2] != strconv.Itoa(next) {
						t.Errorf("message %s arrived in place of message %d", m[2], next)
						return
					}
					next++
				}
			}
			if next <= end {
				t.Errorf("only %d messages arrived", next-1)
			}
		})
	}
	for i := range end {
		at.say(t, channel, strconv.Itoa(i+1))
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	clients.Wait()
}

// A WebSocket echoes what it gets, answers pings, and closes with a code.
func testSocket(t *testing.T, at site) {
	ctx, conn := withPatience(t), checkEcho(t, at)
	closed := make(chan error, 1)
	go func() { // the library handles a pong only while it reads
		_, _, err := conn.Read(ctx)
		closed <- err
	}()
	if err := conn.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	conn.Write(ctx, websocket.MessageText, []byte(`{"close":4001,"reason":"bye"}`))
	want := `status = StatusCode(4001) and reason = "bye"`
	if got := fmt.Sprint(<-closed); !strings.Contains(got, want) {
		t.Errorf("closed with %q, want %q", got, want)
	}
}

// checkEcho opens a WebSocket and checks that it echoes messages with any content.
func checkEcho(t *testing.T, at site) *websocket.Conn {
	t.Helper()
	ctx := withPatience(t)
	conn, _, err := websocket.Dial(ctx, at.base+"/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	for text, kind := range map[string]websocket.MessageType{
		"":                            websocket.MessageText,
		`c:{"type":"detach"}`:         websocket.MessageText, // c: begins a control message to Pushpin
		strings.Repeat("x", 32<<10-2): websocket.MessageText, // see the origin's maxEcho
		"\x00\xff\r\n":                websocket.MessageBinary,
	} {
		conn.Write(ctx, kind, []byte(text))
		got, message, err := conn.Read(ctx)
		if err != nil || got != kind || string(message) != text {
			t.Errorf("%.50q came back as a %v %.200q, %v", text, got, message, err)
		}
	}
	return conn
}

// site is where the tests reach the demo's origin.
type site struct{ base string }

// say publishes a text as a page of the site does. channel is "" or "?channel=" and a name.
func (at site) say(t testing.TB, channel, text string) {
	t.Helper()
	status, answer := at.fetch(t, "POST", "/publish"+channel, text, "Origin", at.base)
	if status != http.StatusOK {
		t.Fatalf("POST /publish was answered with %d (%.200q): check PUBLISH_TOKEN (401), that the origin runs "+
			"with -trust %s (403), or the key in its GRIP_URL (502)", status, answer, at.base)
	}
}

// fetch sends a request, and returns the response's status and body. header has names and values, in turn.
func (at site) fetch(t testing.TB, method, target, body string, header ...string) (int, string) {
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
	return resp.StatusCode, string(content)
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

// lines returns the lines of a response that does not end by itself, but when ctx does.
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

// read returns the lines of a response up to the one that completes the pattern, or that is the last.
// At /socket, it opens a WebSocket instead, returns the next message, and closes the WebSocket. If the
// close is not answered with the same code, the text ends with the error.
func (at site) read(ctx context.Context, target, pattern string) (text string) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	if strings.HasPrefix(target, "/socket") {
		conn, _, err := websocket.Dial(ctx, at.base+target, nil)
		if err != nil {
			return err.Error()
		}
		_, message, err := conn.Read(ctx)
		if err = errors.Join(err, conn.Close(4321, "")); err != nil {
			text = err.Error()
		}
		return string(message) + text
	}
	lines, err := at.lines(ctx, target)
	if err != nil {
		return err.Error()
	}
	for complete := regexp.MustCompile(pattern); !complete.MatchString(text) && lines.Scan(); {
		text += lines.Text() + "\n"
	}
	return text
}
