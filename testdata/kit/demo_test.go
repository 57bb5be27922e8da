package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

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
	got := invitation("localhost:7676", "a page", probe(t.Context(), app.Listener.Addr().String()))
	const want = `
Open http://localhost:7676/ in a browser: a page.
Or try these commands, each in another terminal.

  A message to all of them, and to the page:
    curl -d hello http://localhost:7676/publish

The page's WebSocket (GET /socket) stays closed: it was answered with 200 OK ().

The page's event stream (GET /events) stays closed: main.go does not hand it off.

The page's long-poll (GET /poll) stays closed: it was answered with 403 Forbidden (Not for you.).

After you change`
	if !strings.HasPrefix(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// The demo goes on after the program that reads its output has ended.
func TestOutput(t *testing.T) {
	defer func(stdout *os.File) { os.Stdout = stdout }(os.Stdout)
	os.Stdout = nil // writing returns an error
	if n, err := new(output).Write([]byte("a line")); n != 6 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}
