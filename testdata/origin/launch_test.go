package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// The demo reads its addresses from fastly.toml and the command, and names those that it cannot use.
func TestNewDemo(t *testing.T) {
	t.Chdir(t.TempDir())
	listener, err := net.Listen("tcp6", "[::1]:0") // as if only the IPv6 address were taken
	if err != nil {
		t.Skip(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for _, tt := range []struct{ origin, proxy, addr, want string }{
		{"127.0.0.1:2", "3", "0.0.0.0:8", "localhost:8,127.0.0.1:8"},
		{"127.0.0.1:2", "3", "192.0.2.1:8", "192.0.2.1:8"},
		{"127.0.0.1:2", "3", "8", `"8" is not host:port`},
		{"127.0.0.1:2", port, "127.0.0.1:" + port, "in use: port " + port + ", " + port + "\n"},
		{"127.0.0.1", "3", "127.0.0.1:8", "set url to an address"},
	} {
		toml := "[local_server.backends.origin]\nurl = \"http://" + tt.origin + "\"\n" +
			"[local_server.pushpin]\nproxy_port = " + tt.proxy + "\npublish_port = 4\n"
		os.WriteFile("fastly.toml", []byte(toml), 0o644)
		d, err := newDemo([]string{"fastly", "compute", "serve", "--addr=" + tt.addr})
		got := fmt.Sprint(err)
		if err == nil {
			got = strings.Join(d.names(), ",")
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%v: got %s", tt, got)
		}
	}
}

// The invitation leaves out what does not work, and says why. Only the refusal by the demo's
// origin means that main.go does not hand off a connection.
func TestInvitation(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refusals := map[string]string{"/events": "through the GRIP proxy only", "/poll": "Not for you."}
		if text := refusals[r.URL.Path]; text != "" {
			http.Error(w, text, http.StatusForbidden)
		} // for /socket, a 200 and no WebSocket
	}))
	defer app.Close()
	got := (&demo{app: app.Listener.Addr().String(), origin: "localhost:3000"}).invitation()
	const want = `/publish

The page's event stream (GET /events) stays closed: main.go does not hand it off.

The page's WebSocket (GET /socket) stays closed: it was answered with 200 OK ().

The page's long-poll (GET /poll) stays closed: it was answered with 403 Forbidden (Not for you.).
`
	if !strings.Contains(got, want) || strings.Contains(got, "/events\n") || strings.Contains(got, "ws://") {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
