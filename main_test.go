package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/url"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fastly/compute-sdk-go/fsthttp"
	"github.com/fastly/compute-sdk-go/fsttest"
)

// TestHandle sends each request in testdata/handoffs.txt to the handler. Outside Wasm, a handoff
// and a Send both fail, and the log says which of them was tried. The tests in testdata/e2e send
// the same requests to the app in Viceroy.
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
		"1 GET /":                  `column 1 is "1"`,
		"fanout / GET":             `column 2 is "/"`,
		"fanout":                   `column 2 is ""`,
		"fanout GET":               `column 3 is ""`,
		"origin GET Accept: */*":   `column 3 is "Accept:"`,
		"401 GET / -":              `after column 3 comes "-"`,
		"fanout GET / a b Fanout:": `after column 3 comes "a b Fanout:"`,
	} {
		if _, err := parseRow(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got the error %v, want %s", line, err, want)
		}
	}
	got, err := parseRow("599  GET  /x  Upgrade:  h2c, websocket ")
	if err != nil || got.to != "599" || got.request.URL.Path != "/x" ||
		got.request.Header.Get("Upgrade") != "h2c, websocket" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Each line of a value is a line of the header (RFC 9110 section 5.3).
func TestUpgradesToWebSocket(t *testing.T) {
	upgrades := func(value string) bool {
		header := fsthttp.Header{"Upgrade": strings.Split(value, "\n")}
		return upgradesToWebSocket(&fsthttp.Request{Method: "GET", Header: header})
	}
	for _, value := range []string{"websocket", "WebSocket", "h2c,, \twebsocket\t ,", "h2c\nwebsocket"} {
		if !upgrades(value) {
			t.Errorf("Upgrade: %q does not count", value)
		}
	}
	for _, value := range []string{"", "h2c", "websocketx", "xwebsocket", "web\nsocket", "websocket/13", "websocket; h2c", `"websocket"`} {
		if upgrades(value) {
			t.Errorf("Upgrade: %q counts", value)
		}
	}
}

// TestApp tests the fields of one connection, but Viceroy itself removes Transfer-Encoding.
func TestRemoveHopByHop(t *testing.T) {
	h := fsthttp.Header{
		"Connection":        {"close, x-a"},
		"Transfer-Encoding": {"chunked"},
		"X-A":               {"1"},
		"X-B":               {"2"},
	}
	removeHopByHop(h)
	if want := (fsthttp.Header{"X-B": {"2"}}); !reflect.DeepEqual(h, want) {
		t.Errorf("got %q, want %q", h, want)
	}
}

// The condition sees what most origins see of a path with malformed escapes, which net/url rejects.
func TestParseRequestURI(t *testing.T) {
	for target, path := range map[string]string{
		"/a%2Fb":       "/a/b", // net/url accepts this one
		"/50%off":      "/50%off",
		"/%":           "/%",
		"/%61dmin/%zz": "/admin/%zz",
		"/%%41%4":      "/%A%4",
		"/%2%35":       "/%25",
		"/%zz/%e9":     "/%zz/\xe9",
	} {
		u, err := parseRequestURI("http://example.com" + target + "?100%")
		if err != nil || u.Scheme != "http" || u.Host != "example.com" || u.Path != path ||
			u.RawPath != target || u.RawQuery != "100%" {
			t.Errorf("%s: got %#v, %v", target, u, err)
		}
	}
}

// Send looks at most 700 times in the 15 s that a backend may take, and finds a response soon.
func TestPollInterval(t *testing.T) {
	r := &fsthttp.Request{URL: &url.URL{}}
	prepare(r)
	looks, elapsed := 0, time.Duration(0)
	for ; elapsed < 15*time.Second; looks++ {
		wait := r.SendPollIntervalFn(looks)
		if most := 4*time.Millisecond + elapsed/100; wait > most {
			t.Errorf("after %v the next look is in %v, want at most %v", elapsed, wait, most)
		}
		elapsed += wait
	}
	if looks < 600 || looks > 700 {
		t.Errorf("%d looks in %v, want 600 to 700", looks, elapsed)
	}
}

// secretQuery is a request whose query is a secret.
var secretQuery = &fsthttp.Request{Method: "POST", URL: &url.URL{Path: "/x", RawQuery: "token=secret"}}

// If the body cannot be appended, the process ends with one line in the log. If respond returned,
// the SDK would end the response as if it were whole.
func TestRespondCannotAppend(t *testing.T) {
	if os.Getenv("CANNOT_APPEND") != "" {
		log.SetFlags(0)
		// The recorder can append only a body that a backend has sent.
		resp := &fsthttp.Response{StatusCode: 200, Header: fsthttp.NewHeader()}
		respond(fsttest.NewRecorder(), secretQuery, resp)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRespondCannotAppend$")
	cmd.Env = append(os.Environ(), "CANNOT_APPEND=1")
	out, err := cmd.CombinedOutput()
	const want = `POST "/x": append the body from backend "origin": ` +
		"non-Response Body passed to ResponseWriter.Append\n"
	if cmd.ProcessState.ExitCode() != 1 || string(out) != want {
		t.Errorf("got %v and the log %q, want exit status 1 and %q", err, out, want)
	}
}

// A failure gives the client a plain status, and the log one line with the cause.
func TestFailures(t *testing.T) {
	const (
		send          = `send to backend "origin": %v`
		createBackend = send + "; to create the backend: fastly backend create --name=origin " +
			"--address=HOST --port=443 --version=latest --autoclone"
		handoff      = `handoff to Fanout, backend "origin": %v`
		enableFanout = handoff + "; to enable Fanout: fastly products --enable=fanout"
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
		{sendFailed, fsthttp.SendError{Tag: fsthttp.SendErrorTLSCertificateError}, 502, send},
		{sendFailed, io.EOF, 502, send},
		{sendFailed, fsthttp.SendError{Tag: fsthttp.SendErrorDestinationNotFound}, 500, createBackend},
		{sendFailed, fsthttp.ErrBackendNotFound, 500, createBackend},
		{handoffFailed, io.EOF, 503, handoff},
		{handoffFailed, fsthttp.ErrFanoutNotEnabled, 503, enableFanout},
	} {
		w, err := fsttest.NewRecorder(), fmt.Errorf("poll: %w", tt.err)
		logged := captureLog(func() { tt.fail(w, secretQuery, err) })
		if want := fmt.Sprintf(`POST "/x": `+tt.logged+"\n", err); logged != want {
			t.Errorf("got the log %q, want %q", logged, want)
		}
		want := fsthttp.Header{
			"Cache-Control":          {"no-store"},
			"Content-Type":           {"text/plain; charset=utf-8"},
			"X-Content-Type-Options": {"nosniff"},
		}
		if w.Code != tt.status || w.Body.String() != fsthttp.StatusText(tt.status)+"\n" ||
			!reflect.DeepEqual(w.HeaderMap, want) {
			t.Errorf("%v: got status %d, %q, %q; want %d", err, w.Code, w.HeaderMap, w.Body, tt.status)
		}
	}
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
