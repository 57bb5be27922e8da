package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// TestSelective runs an app that hands off WebSockets, and of the rest only requests with the header
// "fanout", as the README shows at the TODO: here it is the Upgrade header that chooses the door.
func TestSelective(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.edit(t, "main.go", "before setting useFanout to true\n\t\tuseFanout = true\n",
		"before setting useFanout to true\n\t\tif r.Header.Get(\"fanout\") != \"\" {\n\t\t\tuseFanout = true\n\t\t}\n")
	origin := startRawOrigin(t, p.Origin)
	p.serve(t)

	tests := []struct {
		name, method string
		headers      []string
		fanout       bool
		accepted     bool // as a WebSocket, by Pushpin: Debian's 1.36 knows only the lower case, alone
	}{
		{"lower case", "GET", []string{"Upgrade: websocket"}, true, true},
		{"mixed case", "GET", []string{"Upgrade: WebSocket"}, true, false},
		{"list", "GET", []string{"Upgrade: h2c, websocket"}, true, false},
		{"list without spaces", "GET", []string{"Upgrade: websocket,h2c"}, true, false},
		{"two lines", "GET", []string{"Upgrade: h2c", "Upgrade: websocket"}, true, false},
		{"longer name", "GET", []string{"Upgrade: websocketx"}, false, false},
		{"another protocol", "GET", []string{"Upgrade: h2c"}, false, false},
		{"no upgrade", "GET", nil, false, false},
		{"HEAD", "HEAD", []string{"Upgrade: websocket"}, false, false},
		{"POST", "POST", []string{"Upgrade: websocket"}, false, false},
		{"the condition", "GET", []string{"Fanout: 1"}, true, false},
		{"the condition for HEAD", "HEAD", []string{"Fanout: 1"}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The origin accepts a WebSocket; where Pushpin made none of the request, that is any response.
			arrived := origin.expect(t.Name(), "HTTP/1.1 200 OK\r\nContent-Type: "+grip.EventsType+"\r\nContent-Length: 6\r\nConnection: close\r\n\r\nOPEN\r\n")
			conn := p.dial(t)
			fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: example.com\r\nX-Test: %s\r\nConnection: Upgrade\r\nContent-Length: 0\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
				tt.method, t.Name(), strings.Join(append(tt.headers, ""), "\r\n"))
			status := make([]byte, len("HTTP/1.1 101"))
			if _, err := io.ReadFull(conn, status); err != nil {
				t.Fatal(err)
			}

			got := await(t, arrived)
			if got.viaFanout() != tt.fanout {
				t.Errorf("the request arrived through Fanout: %t, want %t", got.viaFanout(), tt.fanout)
			}
			if tt.accepted && (string(status) != "HTTP/1.1 101" || got.body != "OPEN\r\n") {
				t.Errorf("status %q, and the origin got %q: not a WebSocket over HTTP", status, got.body)
			}
		})
	}
}
