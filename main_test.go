package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fastly/compute-sdk-go/fsthttp"
	"github.com/fastly/compute-sdk-go/fsttest"
)

// TestHandle sends each request in testdata/handoffs.txt to the handler. Outside Wasm, a handoff
// and a Send both fail, and the log says which of them was tried.
func TestHandle(t *testing.T) {
	const table = "testdata/handoffs.txt"
	content, err := os.ReadFile(table)
	if err != nil {
		t.Skip(err) // a project may have no testdata
	}
	// A line has where the request must go, or the status of the app's own answer; its method; its
	// target; and the name and the value of its header, if it has one.
	pattern := regexp.MustCompile(
		`^(fanout|origin|[2-5]\d\d)\s+([^\s:/]+)\s+(/\S*)(?:\s+([^\s:]+):\s*(.*))?$`)
	for i, line := range strings.Split(string(content), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		t.Run(line, func(t *testing.T) {
			row := pattern.FindStringSubmatch(line)
			if row == nil {
				t.Fatalf("%s:%d: %q must be fanout, origin or a status; a method; "+
					"a target such as /; and at most one header such as Accept: */*", table, i+1, line)
			}
			r, _ := fsthttp.NewRequest(row[2], "/", nil)
			r.URL, _ = parseRequestURI("http://example.com" + row[3]) // as the app does
			if row[4] != "" {
				r.Header.Set(row[4], row[5])
			}
			w := fsttest.NewRecorder()
			logged := captureLog(func() { handle(context.Background(), w, r) })
			to := strconv.Itoa(w.Code)
			if strings.Contains(logged, "handoff to Fanout") {
				to = "fanout"
			} else if strings.Contains(logged, "send to backend") {
				to = "origin"
			}
			if to != row[1] {
				t.Errorf("%s:%d: %q went to %s", table, i+1, line, to)
			}
			if row[2] == "POST" && to == "origin" && r.SendPollIntervalFn == nil {
				t.Error("Send does not use pollInterval")
			}
		})
	}
}

// Each line of a value is a line of the header (RFC 9110 section 5.3).
func TestUpgradesToWebSocket(t *testing.T) {
	for value, want := range map[string]bool{
		"websocket": true, "WebSocket": true, "h2c,, \twebsocket\t ,": true, "h2c\nwebsocket": true,
		"": false, "h2c": false, "xwebsocket": false, "web\nsocket": false,
		"websocket/13": false, "websocket; h2c": false, `"websocket"`: false,
	} {
		header := fsthttp.Header{"Upgrade": strings.Split(value, "\n")}
		if upgradesToWebSocket(&fsthttp.Request{Method: "GET", Header: header}) != want {
			t.Errorf("Upgrade: %q must count: %v", value, want)
		}
	}
}

// TestApp in testdata/e2e tests the other fields. Viceroy itself removes Transfer-Encoding.
func TestRemoveHopByHop(t *testing.T) {
	h := fsthttp.Header{"Connection": {"close, x-a"}, "Transfer-Encoding": {"x"}, "X-A": {"1"}}
	if removeHopByHop(h); len(h) > 0 {
		t.Errorf("%q stays", h)
	}
}

// For any target, the condition sees the path that most origins see, and Send sends the target as
// it came, unless the app has changed its path. To try random targets: go test -fuzz=.
func FuzzTarget(f *testing.F) {
	const malformed = "/%61dmin/50%off/%%41%4/%2%35/%e9/%"
	if got := unescape(malformed); got != "/admin/50%off/%A%4/%25/\xe9/%" {
		f.Errorf("unescape(%q) = %q", malformed, got)
	}
	for _, target := range []string{
		malformed + "?100%", "/a%2Fb", "//x|y?", "/%zz?", "/caf\xe9??#", "/:@/\x00?\n",
	} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		target = "/" + target
		u, err := parseRequestURI("http://example.com" + target)
		path, query, _ := strings.Cut(target, "?")
		if err != nil || u.Path != unescape(path) || u.RawQuery != query {
			t.Fatalf("%q: got %#v, %v", target, u, err)
		}
		changed := *u
		changed.Path = "/new" + u.Path
		if keepRawPath(&changed); changed.Opaque != "" {
			t.Errorf("%q is sent as it came, although the app has changed its path", target)
		}
		if keepRawPath(u); u.String() != "http://example.com"+target {
			t.Errorf("%q is sent as %q", target, u)
		}
	})
}

// Send polls at most 190 times in the 15 s that a backend may take, and finds a response soon.
func TestPollInterval(t *testing.T) {
	elapsed := time.Duration(0)
	for polls := 0; elapsed < 15*time.Second; polls++ {
		wait := pollInterval(polls)
		most := 2*time.Millisecond + elapsed*3/100 + time.Microsecond
		if wait > most || polls == 190 {
			t.Fatalf("after %d polls and %v, it waits %v, want at most %v", polls, elapsed, wait, most)
		}
		elapsed += wait
	}
}

// The query of this request is a secret.
var secretQuery = &fsthttp.Request{Method: "POST", URL: &url.URL{Path: "/x", RawQuery: "token=secret"}}

// If the body cannot be appended, the process ends with one line in the log. If respond returned,
// the SDK would end the response as if it were whole.
func TestRespondCannotAppend(t *testing.T) {
	if os.Getenv("CANNOT_APPEND") != "" {
		// The recorder can append only a body that a backend has sent.
		resp := &fsthttp.Response{StatusCode: 200, Header: fsthttp.NewHeader()}
		respond(fsttest.NewRecorder(), secretQuery, resp)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRespondCannotAppend$")
	cmd.Env = append(os.Environ(), "CANNOT_APPEND=1")
	out, err := cmd.CombinedOutput()
	const want = `POST "/x": send the response to the client: `
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), want) {
		t.Errorf("got %v and the log %q, want status 1 and %q", err, out, want)
	}
}

// A failure gives the client a plain status, and the log one line with the cause.
func TestFailures(t *testing.T) {
	const (
		send          = `send to backend "origin": %v`
		createBackend = send + "; to create the backend: fastly service backend create --name=origin "
		handoff       = `handoff to Fanout, backend "origin": %v`
		enableFanout  = handoff + "; to enable Fanout: fastly products --enable=fanout"
	)
	for _, tt := range []struct {
		fail   func(fsthttp.ResponseWriter, *fsthttp.Request, error)
		err    error
		status int
		logged string
	}{
		{sendFailed, fsthttp.SendError{Tag: fsthttp.SendErrorHTTPResponseTimeout}, 504, send},
		{sendFailed, fsthttp.SendError{Tag: fsthttp.SendErrorConnectionTimeout}, 504, send},
		{sendFailed, fsthttp.SendError{Tag: fsthttp.SendErrorDNSTimeout}, 504, send},
		{sendFailed, fsthttp.SendError{Tag: fsthttp.SendErrorConnectionRefused}, 502, send},
		{sendFailed, io.EOF, 502, send},
		{sendFailed, fsthttp.SendError{Tag: fsthttp.SendErrorDestinationNotFound}, 500, createBackend},
		{sendFailed, fsthttp.ErrBackendNotFound, 500, createBackend},
		{handoffFailed, io.EOF, 503, handoff},
		{handoffFailed, fsthttp.ErrFanoutNotEnabled, 503, enableFanout},
	} {
		w, err := fsttest.NewRecorder(), fmt.Errorf("poll: %w", tt.err)
		logged := captureLog(func() { tt.fail(w, secretQuery, err) })
		header, text := w.HeaderMap, fsthttp.StatusText(tt.status)
		got := fmt.Sprint(w.Code, header["Cache-Control"], len(header), " ", w.Body, logged)
		want := fmt.Sprintf("%d [no-store] 3 %s\nPOST \"/x\": "+tt.logged, tt.status, text, err)
		if !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 2 || strings.Contains(got, "secret") {
			t.Errorf("got %s; want %s", got, want)
		}
	}
}

// captureLog runs f and returns what it logs.
func captureLog(f func()) string {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	log.SetFlags(0)
	defer log.SetOutput(os.Stderr)
	f()
	return logged.String()
}
