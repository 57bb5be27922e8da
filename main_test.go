package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fastly/compute-sdk-go/fsthttp"
	"github.com/fastly/compute-sdk-go/fsttest"
)

// TestHandle sends each request in testdata/handoffs.txt to the handler. Outside Wasm, a handoff and
// a Send both fail, and the log says which of them was tried. The tests in testdata/e2e send the
// same requests to the app in Viceroy.
func TestHandle(t *testing.T) {
	const table = "testdata/handoffs.txt"
	content, err := os.ReadFile(table)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this project has no " + table)
	} else if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(content), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		t.Run(line, func(t *testing.T) {
			row, err := parseRow(line)
			if err != nil {
				t.Fatalf("%s:%d: %v", table, i+1, err)
			}
			w := fsttest.NewRecorder()
			logged := captureLog(func() { handle(context.Background(), w, row.request) })
			to := strconv.Itoa(w.Code)
			if strings.Contains(logged, "handoff to Fanout") {
				to = "fanout"
			} else if strings.Contains(logged, "send to backend") {
				to = "origin"
			}
			if to != row.to {
				t.Errorf("%s:%d: %q went to %s", table, i+1, line, to)
			}
		})
	}
}

// row is a line of handoffs.txt.
type row struct {
	to      string // where the request must go: "fanout", "origin", or a status that the app answers
	request *fsthttp.Request
}

// parseRow parses a line with three columns and, after them, a header line or nothing.
func parseRow(line string) (row, error) {
	var columns [3]string
	rest := line
	for i := range columns {
		columns[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " \t"), " ")
	}
	to, method, target, header := columns[0], columns[1], columns[2], strings.TrimSpace(rest)
	name, value, isHeader := strings.Cut(header, ":")
	switch status, _ := strconv.Atoi(to); {
	case to != "fanout" && to != "origin" && (status < 200 || status > 599):
		return row{}, fmt.Errorf("column 1 is %q, but must be fanout, origin or a status such as 401", to)
	case method == "" || strings.ContainsAny(method, ":/"):
		return row{}, fmt.Errorf("column 2 is %q, but must be a method such as GET", method)
	case !strings.HasPrefix(target, "/"):
		return row{}, fmt.Errorf("column 3 is %q, but must be a target that begins with /", target)
	case header != "" && (!isHeader || strings.ContainsAny(name, " \t")):
		return row{}, fmt.Errorf("after column 3 comes %q, but it must be a header such as Accept: */*", header)
	}
	r, err := fsthttp.NewRequest(method, "http://example.com/", nil)
	if err == nil {
		r.URL, err = parseRequestURI("http://example.com" + target) // as the app does
	}
	if isHeader && err == nil {
		r.Header.Set(name, strings.TrimSpace(value))
	}
	return row{to, r}, err
}

func TestParseRow(t *testing.T) {
	for line, want := range map[string]string{
		"edge GET /":               `column 1 is "edge"`,
		"GET / fanout":             `column 1 is "GET"`,
		"1 GET /":                  `column 1 is "1"`,
		"fanout":                   `column 2 is ""`,
		"fanout / GET":             `column 2 is "/"`,
		"fanout GET":               `column 3 is ""`,
		"origin GET Accept: */*":   `column 3 is "Accept:"`,
		"401 GET / -":              `after column 3 comes "-"`,
		"fanout GET / Accept */*":  `after column 3 comes "Accept */*"`,
		"fanout GET / a b Fanout:": `after column 3 comes "a b Fanout:"`,
	} {
		if _, err := parseRow(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got the error %v, want %s", line, err, want)
		}
	}
	got, err := parseRow("fanout  GET  /x  Upgrade:  h2c, websocket ")
	if err != nil || got.to != "fanout" || got.request.URL.Path != "/x" ||
		got.request.Header.Get("Upgrade") != "h2c, websocket" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestUpgradesToWebSocket(t *testing.T) {
	tests := []struct {
		lines []string
		want  bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"websocket"}, true},
		{[]string{"WebSocket"}, true},
		{[]string{" \twebsocket\t "}, true},
		{[]string{"h2c, websocket"}, true},
		{[]string{"websocket,h2c"}, true},
		{[]string{",, websocket ,"}, true},
		{[]string{"h2c", "websocket"}, true}, // RFC 9110 section 5.3
		{[]string{"h2c"}, false},
		{[]string{"websocketx"}, false},
		{[]string{"xwebsocket"}, false},
		{[]string{"web", "socket"}, false},
		{[]string{"websocket/13"}, false},
		{[]string{"websocket; h2c"}, false},
		{[]string{`"websocket"`}, false},
	}
	for _, tt := range tests {
		r := &fsthttp.Request{Method: "GET", Header: fsthttp.Header{"Upgrade": tt.lines}}
		if got := upgradesToWebSocket(r); got != tt.want {
			t.Errorf("Upgrade %q: got %t, want %t", tt.lines, got, tt.want)
		}
		if r.Method = "POST"; upgradesToWebSocket(r) {
			t.Errorf("POST, Upgrade %q: got true", tt.lines)
		}
	}
}

// The fields of one connection are removed, and no others (RFC 9110 section 7.6.1).
func TestRemoveHopByHop(t *testing.T) {
	h := fsthttp.NewHeader()
	for _, line := range []string{
		"Connection: close, x-first", "Connection: X-SECOND ,, Keep-Alive", "X-First: 1", "X-Second: 2",
		"X-Third: 3", "Proxy-Connection: close", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic",
		"Proxy-Authorization: Basic x", "TE: trailers", "Trailer: X-Third", "Transfer-Encoding: chunked",
		"Upgrade: h2c", "Content-Length: 5", "Set-Cookie: a=1", "Set-Cookie: b=2",
	} {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	removeHopByHop(h)
	want := fsthttp.Header{"X-Third": {"3"}, "Content-Length": {"5"}, "Set-Cookie": {"a=1", "b=2"}}
	if !maps.EqualFunc(h, want, slices.Equal[[]string]) {
		t.Errorf("got %q, want %q", h, want)
	}
}

func TestParseRequestURI(t *testing.T) {
	tests := []struct{ target, path, rawPath, query string }{
		{"/", "/", "", ""},
		{"/a%20b?c=%zz|", "/a b", "", "c=%zz|"},
		{"/a%2Fb", "/a/b", "/a%2Fb", ""},
		{"/x|y", "/x|y", "/x|y", ""},
		{"//host/path", "//host/path", "", ""},
		// net/url rejects these.
		{"/%zz", "/%zz", "/%zz", ""},
		{"/50%off?100%", "/50%off", "/50%off", "100%"},
		{"/%", "/%", "/%", ""},
		{"/%61dmin/%zz", "/admin/%zz", "/%61dmin/%zz", ""},
		{"/%%41%4", "/%A%4", "/%%41%4", ""},
		{"/%2%35", "/%25", "/%2%35", ""},
		{"/%zz/%e9", "/%zz/\xe9", "/%zz/%e9", ""},
	}
	for _, tt := range tests {
		u, err := parseRequestURI("http://example.com" + tt.target)
		if err != nil || u.Scheme != "http" || u.Host != "example.com" || u.Path != tt.path ||
			u.RawPath != tt.rawPath || u.RawQuery != tt.query {
			t.Errorf("%s: got %#v, %v", tt.target, u, err)
		}
	}
}

// The origin gets the path as the client spelled it, unless the app has changed Path.
func TestSpelling(t *testing.T) {
	tests := []struct{ target, path, sent string }{
		{"/a%2Fb?", "/a/b", "/a%2Fb?"},
		{"/x|y", "/x|y", "/x|y"},
		{"/50%off?q=%zz", "/50%off", "/50%off?q=%zz"},
		{"/%61dmin/%zz", "/admin/%zz", "/%61dmin/%zz"},
		{"/a%2Fb?q", "/new", "/new?q"},
		{"/50%off", "/new%", "/new%25"},
	}
	for _, tt := range tests {
		u, err := parseRequestURI("http://example.com" + tt.target)
		if err != nil {
			t.Fatal(err)
		}
		u.Path = tt.path
		u.Opaque = spelling(u)
		if want := "http://example.com" + tt.sent; u.String() != want {
			t.Errorf("%s with the path %s: got %s, want %s", tt.target, tt.path, u, want)
		}
	}
}

// Send looks at most 700 times in the 15 s that a backend may take, and finds a response soon.
func TestPollInterval(t *testing.T) {
	late := map[time.Duration]time.Duration{ // at most, for a response that comes then
		100 * time.Millisecond: 5 * time.Millisecond,
		time.Second:            12 * time.Millisecond,
		5 * time.Second:        26 * time.Millisecond,
	}
	looks, elapsed := 0, time.Duration(0)
	for ; elapsed < 15*time.Second; looks++ {
		wait := pollInterval(looks)
		for comes, most := range late {
			if elapsed < comes && elapsed+wait >= comes && wait > most {
				t.Errorf("a response after %v may be found %v late, want at most %v", comes, wait, most)
			}
		}
		elapsed += wait
	}
	if looks > 700 {
		t.Errorf("%d looks in %v", looks, elapsed)
	}
}

// A response keeps its Content-Length, but nothing else that is about the origin's connection.
func TestRespond(t *testing.T) {
	tests := []struct {
		name           string
		origin, client fsthttp.Header
		manual         bool // the framing
	}{
		{"length", fsthttp.Header{"Content-Length": {"5"}}, fsthttp.Header{"Content-Length": {"5"}}, true},
		{"chunks", fsthttp.Header{"Transfer-Encoding": {"chunked"}}, fsthttp.Header{}, false},
		{"length and chunks", fsthttp.Header{"Content-Length": {"3"}, "Transfer-Encoding": {"chunked"}}, fsthttp.Header{}, false},
		{"until close", fsthttp.Header{"X-A": {"1", "2"}}, fsthttp.Header{"X-A": {"1", "2"}}, false},
		{"a length that Connection names", fsthttp.Header{"Connection": {"content-length"}, "Content-Length": {"5"}}, fsthttp.Header{}, false},
		{"trailers", fsthttp.Header{"Trailer": {"X-T"}, "X-T": {"1"}}, fsthttp.Header{"X-T": {"1"}}, false},
	}
	for _, tt := range tests {
		w := &writer{ResponseRecorder: fsttest.NewRecorder()}
		resp := &fsthttp.Response{StatusCode: 203, Header: tt.origin, Body: io.NopCloser(strings.NewReader("hello"))}
		respond(w, newRequest(t), resp)
		if w.Code != 203 || w.Body.String() != "hello" || w.manual != tt.manual ||
			!maps.EqualFunc(w.HeaderMap, tt.client, slices.Equal[[]string]) {
			t.Errorf("%s: got status %d, %q, %q, manual framing %t", tt.name, w.Code, w.HeaderMap, w.Body, w.manual)
		}
	}
}

// writer appends the bodies of tests, and fails with the error if there is one.
type writer struct {
	*fsttest.ResponseRecorder
	manual bool
	err    error
}

func (w *writer) SetManualFramingMode(manual bool) { w.manual = manual }

func (w *writer) Append(body io.ReadCloser) error {
	if w.err != nil {
		return w.err
	}
	_, err := io.Copy(w, body)
	return err
}

// If the body cannot be appended, the process ends with one line in the log. If respond returned,
// the SDK would end the response as if it were whole.
func TestRespondCannotAppend(t *testing.T) {
	if os.Getenv("CANNOT_APPEND") != "" {
		w := &writer{ResponseRecorder: fsttest.NewRecorder(), err: errors.New("the client has gone")}
		respond(w, newRequest(t), &fsthttp.Response{StatusCode: 200, Header: fsthttp.NewHeader()})
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRespondCannotAppend$")
	cmd.Env = append(os.Environ(), "CANNOT_APPEND=1")
	out, err := cmd.CombinedOutput()
	const want = `POST "/x": append the body from backend "origin": the client has gone` + "\n"
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.HasSuffix(string(out), want) || strings.Count(string(out), "\n") != 1 {
		t.Errorf("got %v and the log %q, want exit status 1 and %q", err, out, want)
	}
}

// A failure gives the client a plain status, and the log one line with the cause.
func TestFailures(t *testing.T) {
	because := func(cause fsthttp.SendError) error { return fmt.Errorf("poll: %w", cause) }
	send := func(err error) func(fsthttp.ResponseWriter, *fsthttp.Request) {
		return func(w fsthttp.ResponseWriter, r *fsthttp.Request) { sendFailed(w, r, err) }
	}
	handoff := func(err error) func(fsthttp.ResponseWriter, *fsthttp.Request) {
		return func(w fsthttp.ResponseWriter, r *fsthttp.Request) { handoffFailed(w, r, err) }
	}
	switching := func(w fsthttp.ResponseWriter, r *fsthttp.Request) {
		respond(w, r, &fsthttp.Response{StatusCode: 101})
	}
	const create = "; to create the backend: fastly backend create --name=origin --address=HOST "
	const enable = "; to enable Fanout: fastly products --enable=fanout\n"
	tests := []struct {
		fails  func(fsthttp.ResponseWriter, *fsthttp.Request)
		status int
		logged string // after the method and the path
	}{
		{send(because(fsthttp.SendError{Tag: fsthttp.SendErrorHTTPResponseTimeout})), 504, `send to backend "origin": poll: `},
		{send(because(fsthttp.SendError{Tag: fsthttp.SendErrorConnectionTimeout})), 504, `send to backend "origin": poll: `},
		{send(because(fsthttp.SendError{Tag: fsthttp.SendErrorDNSTimeout})), 504, `send to backend "origin": poll: `},
		{send(because(fsthttp.SendError{Tag: fsthttp.SendErrorConnectionRefused})), 502, `send to backend "origin": poll: `},
		{send(because(fsthttp.SendError{Tag: fsthttp.SendErrorTLSCertificateError})), 502, `send to backend "origin": poll: `},
		{send(errors.New("another")), 502, `send to backend "origin": another` + "\n"},
		{send(fsthttp.ErrBackendNotFound), 500, `send to backend "origin": backend not found` + create},
		{send(because(fsthttp.SendError{Tag: fsthttp.SendErrorDestinationNotFound})), 500, create},
		{handoff(errors.New("another")), 503, `handoff to Fanout, backend "origin": another` + "\n"},
		{handoff(fsthttp.ErrFanoutNotEnabled), 503, enable},
		{switching, 502, `send to backend "origin": its final status is 101` + "\n"},
	}
	for _, tt := range tests {
		w := fsttest.NewRecorder()
		logged := captureLog(func() { tt.fails(w, newRequest(t)) })
		if !strings.HasPrefix(logged, `POST "/x": `) || !strings.Contains(logged, tt.logged) || strings.Count(logged, "\n") != 1 {
			t.Errorf("got the log %q, want the method, the path and %q", logged, tt.logged)
		}
		want := fsthttp.Header{
			"Cache-Control": {"no-store"}, "Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"},
		}
		if w.Code != tt.status || w.Body.String() != fsthttp.StatusText(tt.status)+"\n" ||
			!maps.EqualFunc(w.HeaderMap, want, slices.Equal[[]string]) {
			t.Errorf("%q: got status %d, %q, %q; want %d", tt.logged, w.Code, w.HeaderMap, w.Body, tt.status)
		}
	}
}

// newRequest returns a request whose query is a secret.
func newRequest(t *testing.T) *fsthttp.Request {
	t.Helper()
	u, err := url.Parse("http://example.com/x?token=secret")
	if err != nil {
		t.Fatal(err)
	}
	return &fsthttp.Request{Method: "POST", URL: u, Header: fsthttp.NewHeader()}
}

// captureLog runs f and returns what it logs.
func captureLog(f func()) string {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	log.SetFlags(0)
	defer log.SetOutput(os.Stderr)
	defer log.SetFlags(log.LstdFlags)
	f()
	return logged.String()
}
