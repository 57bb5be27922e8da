package e2e

import (
	"go/format"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecipes applies each of the README's recipes, as it is printed, to a new project's main.go, and
// sees which door requests take there.
func TestRecipes(t *testing.T) {
	aboutTheKit(t)
	t.Parallel()
	type request struct {
		line, headers string
		fanout        bool
	}
	const plain, upgrade = "Accept: */*", "Upgrade: websocket"
	recipes := map[string][]request{ // by what the README says before it
		"Only requests that have a header `fanout`:": {
			{"GET /", plain, false},
			{"GET /?fanout", "X-Fanout: 1", false},
			{"GET /", "Fanout: 1", true},
			{"HEAD /", "fanout: 1", true},
			{"POST /", "Fanout: 1", false},
			{"GET /", upgrade, true},
		},
		"Only below a path:": {
			{"GET /", plain, false},
			{"GET /live", plain, false},
			{"GET /x/live/", plain, false},
			{"GET /?/live/", plain, false},
			{"GET /live/", plain, true},
			{"GET /live/50%off?x", plain, true},
			{"HEAD /live/x", plain, true},
			{"POST /live/x", plain, false},
			{"GET /", upgrade, true},
		},
		"Only clients that accept Server-Sent Events, as a browser's `EventSource` does:": {
			{"GET /", plain, false},
			{"GET /", "Accept: text/html, */*", false},
			{"GET /", "Accept: text/event-stream", true},
			{"GET /", "Accept: application/json, text/event-stream", true},
			{"POST /", "Accept: text/event-stream", false},
			{"GET /", upgrade, true},
		},
		"Only WebSockets:": {
			{"GET /", plain, false},
			{"GET /", "Upgrade: websocket", true},
			{"GET /", "Upgrade: WebSocket", true},
			{"GET /", "Upgrade: h2c, websocket", true},
			{"GET /", "Upgrade: websocket,h2c", true},
			{"GET /", "Upgrade: h2c\r\nUpgrade: websocket", true},
			{"GET /", "Upgrade: websocketx", false},
			{"GET /", "Upgrade: h2c", false},
			{"HEAD /", "Upgrade: websocket", false},
			{"POST /", "Upgrade: websocket", false},
		},
		"All but static assets:": {
			{"GET /", plain, true},
			{"HEAD /x/static/", plain, true},
			{"GET /static/app.js", plain, false},
			{"HEAD /static/app.js?v=1", plain, false},
			{"POST /", plain, false},
			{"GET /static/", upgrade, true},
		},
	}
	for _, b := range readme(t) {
		if b.lang != "go" {
			continue
		}
		requests, ok := recipes[b.intro]
		if !ok {
			t.Errorf("README.md:%d: there are no requests here to try the recipe with, %q", b.line, b.intro)
			continue
		}
		delete(recipes, b.intro)
		t.Run(strings.Trim(b.intro, ":"), func(t *testing.T) {
			t.Parallel()
			p := newProject(t)
			p.edit(t, "main.go", handsOffAll, todo+b.text)
			content, err := os.ReadFile(filepath.Join(p.dir, "main.go"))
			if err != nil {
				t.Fatal(err)
			}
			if formatted, err := format.Source(content); err != nil || string(formatted) != string(content) {
				t.Errorf("with it, main.go is not as gofmt would have it: %v", err)
			}
			w := serveWire(t, p)
			for _, r := range requests {
				w.roundTrip(t, r.line+" HTTP/1.1\r\nHost: example.com\r\n"+r.headers+"\r\nConnection: close\r\n\r\n")
				got, fanout := w.arrived(t)
				if fanout != r.fanout || got.line != r.line+" HTTP/1.1" {
					t.Errorf("%s, %q: arrived as %q, handed off: %t, want %t", r.line, r.headers, got.line, fanout, r.fanout)
				}
			}
		})
	}
	for intro := range recipes {
		t.Errorf("README.md has no recipe %q", intro)
	}
}
