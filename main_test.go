package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/fastly/compute-sdk-go/fsthttp"
	"github.com/fastly/compute-sdk-go/fsttest"
)

// Off Wasm there is no platform to hand off or send to, so both doors fail, each in a way of its
// own: that tells which one a request took, and shows both error paths. What happens beyond the
// doors is tested in testdata/e2e, on the real chain.
func TestHandle(t *testing.T) {
	const viaFanout, viaSend = fsthttp.StatusServiceUnavailable, fsthttp.StatusBadGateway
	tests := []struct {
		method, path, upgrade string
		want                  int
	}{
		{"GET", "/", "", viaFanout},
		{"GET", "/", "websocket", viaFanout},
		{"GET", "/", "h2c", viaFanout},
		{"HEAD", "/", "", viaFanout},
		{"POST", "/", "", viaSend},
		{"POST", "/", "websocket", viaSend},
		{"PUT", "/", "", viaSend},
		{"PATCH", "/", "", viaSend},
		{"DELETE", "/", "", viaSend},
		{"OPTIONS", "/", "", viaSend},
		{"PURGE", "/", "", viaSend},
		{"get", "/", "", viaSend}, // methods are case-sensitive: RFC 9110 section 9.1
	}
	for _, tt := range tests {
		t.Run(strings.TrimSpace(tt.method+" "+tt.path+" "+tt.upgrade), func(t *testing.T) {
			r, err := fsthttp.NewRequest(tt.method, "http://example.com"+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.upgrade != "" {
				r.Header.Set("Upgrade", tt.upgrade)
			}
			w := fsttest.NewRecorder()
			logged := captureLog(t, func() { handle(context.Background(), w, r) })

			if w.Code != tt.want {
				t.Errorf("status %d, want %d: it took another door; if you changed which requests main.go hands off, change this table with it", w.Code, tt.want)
			}
			if got, want := w.Body.String(), fsthttp.StatusText(tt.want)+"\n"; got != want {
				t.Errorf("body %q, want %q: nothing of the cause is for the client", got, want)
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
				t.Errorf("log %q says how to enable Fanout, which was not the cause", logged)
			}
		})
	}
}

// The platform tells why there was no response; the status tells the client what that means for it.
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
		{fsthttp.ErrBackendNotFound, 500, "; if there is none: fastly backend create --name=origin "},
		{because(fsthttp.SendError{Tag: fsthttp.SendErrorDestinationNotFound}), 500, "; if there is none: fastly backend create --name=origin "},
	}
	for _, tt := range tests {
		var status int
		logged := captureLog(t, func() { status = sendFailed(tt.err) })
		if status != tt.status || !strings.Contains(logged, tt.logged) {
			t.Errorf("%v: got status %d and the log %q", tt.err, status, logged)
		}
	}
}

// captureLog returns what f logs.
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
