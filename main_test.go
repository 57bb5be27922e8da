package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fastly/compute-sdk-go/fsthttp"
	"github.com/fastly/compute-sdk-go/fsttest"
)

// table is the file that lists which requests main.go hands off, and which it sends to the origin itself.
const table = "testdata/handoffs.txt"

// TestHandle calls the handler with each request of the table. Outside Wasm, a handoff and a Send both fail, but with
// different errors. So the error shows which of them the handler chose, and both error paths are tested.
// The tests in testdata/e2e run the requests in Viceroy, and test what happens next.
func TestHandle(t *testing.T) {
	content, err := os.ReadFile(table)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this project has no " + table)
	} else if err != nil {
		t.Fatal(err)
	}
	went := map[int]string{fsthttp.StatusServiceUnavailable: "fanout", fsthttp.StatusBadGateway: "origin"}
	row := regexp.MustCompile(`^(\S+) {2,}(/\S*) {2,}(-|\S+:.*?) {2,}(fanout|origin|[1-5]\d\d)$`)
	for i, line := range strings.Split(string(content), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		columns := row.FindStringSubmatch(line)
		if columns == nil {
			t.Errorf("%s:%d: %q must be a method, a target that begins with /, a header or -, and fanout, origin or a status, with two spaces or more in between", table, i+1, line)
			continue
		}
		t.Run(strings.Join(columns[1:4], " "), func(t *testing.T) {
			r, err := fsthttp.NewRequest(columns[1], "http://example.com"+columns[2], nil)
			if err != nil {
				t.Fatalf("%s:%d: %v", table, i+1, err)
			}
			if name, value, ok := strings.Cut(columns[3], ":"); ok {
				r.Header.Set(name, strings.TrimSpace(value))
			}
			w := fsttest.NewRecorder()
			logged := captureLog(t, func() { handle(context.Background(), w, r) })

			to, passedOn := went[w.Code]
			if !passedOn {
				to = strconv.Itoa(w.Code)
			}
			if to != columns[4] {
				t.Errorf("%s:%d: %s: it must go to %s, but it went to %s", table, i+1, strings.Join(columns[1:], "  "), columns[4], to)
			}
			if !passedOn {
				return // the app answered by itself
			}
			if got, want := w.Body.String(), fsthttp.StatusText(w.Code)+"\n"; got != want {
				t.Errorf("body %q, want %q: the client must not see the cause", got, want)
			}
			if got := w.HeaderMap.Get("Content-Type"); got != "text/plain; charset=utf-8" {
				t.Errorf("Content-Type %q, want plain text", got)
			}
			if got := w.HeaderMap.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q, want no-store", got)
			}
			if !strings.Contains(logged, `"origin"`) {
				t.Errorf("log %q does not name the backend", logged)
			}
			if strings.Contains(logged, "--enable=fanout") {
				t.Errorf("log %q says how to enable Fanout, but that was not the cause", logged)
			}
		})
	}
}

// sendFailed maps the platform's error to a status for the client, and to a log line for the operator.
func TestSendFailed(t *testing.T) {
	because := func(cause fsthttp.SendError) error { return fmt.Errorf("poll: %w", cause) }
	tests := []struct {
		err    error
		status int
		logged string
	}{
		{because(fsthttp.SendError{Tag: fsthttp.SendErrorHTTPResponseTimeout}), 504, `send to backend "origin"`},
		{because(fsthttp.SendError{Tag: fsthttp.SendErrorConnectionTimeout}), 504, `send to backend "origin"`},
		{because(fsthttp.SendError{Tag: fsthttp.SendErrorDNSTimeout}), 504, `send to backend "origin"`},
		{because(fsthttp.SendError{Tag: fsthttp.SendErrorConnectionRefused}), 502, `send to backend "origin"`},
		{because(fsthttp.SendError{Tag: fsthttp.SendErrorTLSCertificateError}), 502, `send to backend "origin"`},
		{errors.New("another"), 502, `send to backend "origin": another`},
		{fsthttp.ErrBackendNotFound, 500, "; if there is none, to make it: fastly backend create --name=origin "},
		{because(fsthttp.SendError{Tag: fsthttp.SendErrorDestinationNotFound}), 500, "; if there is none, to make it: fastly backend create --name=origin "},
	}
	for _, tt := range tests {
		var status int
		logged := captureLog(t, func() { status = sendFailed(tt.err) })
		if status != tt.status || !strings.Contains(logged, tt.logged) {
			t.Errorf("%v: got status %d and the log %q", tt.err, status, logged)
		}
	}
}

// captureLog runs f and returns its log.
func captureLog(t *testing.T, f func()) string {
	t.Helper()
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	f()
	return logged.String()
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
		{[]string{"WEBSOCKET"}, true},
		{[]string{" \twebsocket\t "}, true},
		{[]string{"h2c, websocket"}, true},
		{[]string{"websocket,h2c"}, true},
		{[]string{",, websocket ,"}, true},
		{[]string{"h2c", "websocket"}, true},
		{[]string{"h2c"}, false},
		{[]string{"websocketx"}, false},
		{[]string{"xwebsocket"}, false},
		{[]string{"web socket"}, false},
		{[]string{"web", "socket"}, false},
		{[]string{"websocket/13"}, false},
		{[]string{"websocket; h2c"}, false},
		{[]string{`"websocket"`}, false},
		{[]string{"h2c, WebSocket", "tls"}, true}, // RFC 9110 section 5.3
	}
	for _, tt := range tests {
		h := fsthttp.Header{"Upgrade": tt.lines}
		if got := upgradesToWebSocket(h); got != tt.want {
			t.Errorf("Upgrade %q: got %t, want %t", tt.lines, got, tt.want)
		}
	}
}
