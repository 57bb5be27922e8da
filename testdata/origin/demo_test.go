package main

import (
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
	const backend = "[local_server.backends.origin]\nurl = \"http://127.0.0.1:2\"\n"
	const pushpin = "[local_server.pushpin]\nproxy_port = 3\npublish_port = 4\n"
	for _, tt := range []struct{ toml, arg, names, err string }{
		{backend + pushpin, "--addr=127.0.0.1:8", "localhost:8,127.0.0.1:8", ""},
		{backend + pushpin, "--addr=0.0.0.0:8", "localhost:8,127.0.0.1:8", ""},
		{backend + pushpin, "--addr=192.0.2.1:8", "192.0.2.1:8", ""},
		{backend + pushpin, "--addr=8", "", `"8" is not host:port`},
		{backend + pushpin, "--addr=127.0.0.1:" + port, "", "already in use: port " + port + "\n"},
		{backend + strings.Replace(pushpin, "3", port, 1), "", "", port},
		{strings.Replace(backend, ":2", "", 1), "", "", "set url to an address"},
	} {
		os.WriteFile("fastly.toml", []byte(tt.toml), 0o644)
		d, err := newDemo([]string{"fastly", "compute", "serve", tt.arg})
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: got %v; want %q", tt.arg, err, tt.err)
			}
		} else if err != nil || strings.Join(d.names(), ",") != tt.names || d.origin != "127.0.0.1:2" || d.publish != 4 {
			t.Errorf("%q: got %+v, %v", tt.arg, d, err)
		}
	}
}

// The invitation leaves out what does not work, and says why. Only the refusal by the demo's origin means that main.go
// does not hand off a connection.
func TestInvitation(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/socket":
			w.WriteHeader(http.StatusOK) // and no WebSocket
		case "/events":
			http.Error(w, "this endpoint works through the GRIP proxy only: connect to the app", http.StatusForbidden)
		case "/poll":
			http.Error(w, "Not for you.", http.StatusForbidden)
		}
	}))
	defer app.Close()
	d := &demo{app: app.Listener.Addr().String(), origin: "localhost:3000"}
	got := strings.ReplaceAll(d.invitation(), d.names()[0], "APP")
	const want = `
Open http://APP/ in a browser: three live connections to the demo's origin (http://localhost:3000/).
Or try these commands, each in another terminal.

  A message to all of them, and to the page:
    curl -d hello http://APP/publish

The page's event stream (GET /events) stays closed: main.go does not hand it off.

The page's WebSocket (GET /socket) stays closed: it was answered with 200 OK ().

The page's long-poll (GET /poll) stays closed: it was answered with 403 Forbidden (Not for you.).

After you change`
	if !strings.HasPrefix(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
