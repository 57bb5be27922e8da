package e2e

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// TestPages sends what browsers send for pages of the app, under each of its names, and for pages
// of other sites. The Host header at the app's origin is always the override host.
func TestPages(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	_, port, _ := strings.Cut(p.addr, ":")
	p.addr = "0.0.0.0:" + port
	startDemo(t, p, "TRUST=http://demo.test")
	p.addr = "127.0.0.1:" + port

	pages := map[string]int{
		"":                           200, // a program that is not a browser
		"http://localhost:" + port:   200,
		"http://" + p.Origin:         200, // a page that comes directly from the origin
		"http://demo.test":           200,
		"https://example.com":        403,
		"http://localhost:1":         403,
		"http://example.com:" + port: 403,
		"null":                       403,
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			pages["http://"+net.JoinHostPort(n.IP.String(), port)] = 200
		}
	}
	for page, want := range pages {
		if got := fetch(t, "POST", p.url("/publish"), "hello", "Origin", page); got.status != want {
			t.Errorf("a page of %q published and got status %d, want %d", page, got.status, want)
		}
		conn, resp, err := websocket.Dial(withPatience(t), "ws://"+p.addr+"/socket",
			&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {page}}})
		if err == nil {
			conn.CloseNow()
		}
		if (err == nil) != (want == 200) || err != nil && resp.StatusCode != want {
			t.Errorf("a page of %q opened a WebSocket and got %v", page, err)
		}
	}
	p.waitForLog(t, `refused a page of "https://example.com"; if this page is yours, add its origin to -trust, `+
		`or use make demo TRUST="https://example.com"`)
}
