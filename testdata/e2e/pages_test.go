package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestPages sends requests like those of browsers, for pages of the app, under each of its names, and for pages of
// other sites. In all cases the Host header at the app's origin is the override host.
func TestPages(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	_, port, _ := strings.Cut(p.addr, ":")
	p.addr = "0.0.0.0:" + port
	startDemo(t, p, "TRUST=http://demo.test")
	p.addr = "127.0.0.1:" + port

	hosts := []string{"localhost:" + port}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			hosts = append(hosts, net.JoinHostPort(n.IP.String(), port))
		}
	}

	t.Run("own", func(t *testing.T) {
		checkPage(t, p, "", http.StatusOK) // a program that is not a browser
		for _, host := range hosts {
			checkPage(t, p, "http://"+host, http.StatusOK)
		}
		checkPage(t, p, "http://"+p.Origin, http.StatusOK) // a page that comes directly from the origin
		checkPage(t, p, "http://demo.test", http.StatusOK)
	})
	t.Run("other", func(t *testing.T) {
		for _, origin := range []string{"https://example.com", "http://localhost:1", "http://example.com:" + port, "null"} {
			checkPage(t, p, origin, http.StatusForbidden)
		}
		p.waitForLog(t, `refused a page of "https://example.com"; if this page is yours, add its origin to -trust, or use make demo TRUST="https://example.com"`)
	})
	t.Run("browser", func(t *testing.T) { testPagesInBrowser(t, p, hosts) })
}

// checkPage publishes and opens a WebSocket, as a browser does for a page from this origin.
func checkPage(t *testing.T, p *project, origin string, want int) {
	t.Helper()
	if got := fetch(t, "POST", p.url("/publish?channel=raw"), "hello", "Origin", origin); got.status != want {
		t.Errorf("a page of %q published and got status %d, want %d", origin, got.status, want)
	}
	conn, resp, err := websocket.Dial(withPatience(t), "ws://"+p.addr+"/socket", &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {origin}},
	})
	if err == nil {
		conn.CloseNow()
	}
	if (err == nil) != (want == http.StatusOK) || err != nil && resp.StatusCode != want {
		t.Errorf("a page of %q opened a WebSocket and got %v", origin, err)
	}
}

// In a real browser, the page publishes and has all its connections, under each name of the app. A page of another site
// can do neither.
func testPagesInBrowser(t *testing.T, p *project, hosts []string) {
	path, err := local.Browser(t.Context())
	if err != nil {
		t.Skip(err) // TestLive/page reports this, and fails in CI
	}
	ctx := newBrowser(t, path)
	for _, host := range hosts {
		text := "from " + host
		err := chromedp.Do(ctx, chromedp.Navigate("http://"+host+"/?channel=own"),
			chromedp.WaitVisible(chromedp.CSS(`#socket[data-state="connected"]`)),
			chromedp.SetValue(chromedp.CSS("#text"), text), chromedp.SendKeys(chromedp.CSS("#text"), "\r"),
			chromedp.PollFunction[chromedp.Void](`(text) => document.querySelector('#socket .messages').textContent.includes(text)`,
				chromedp.WithPollingArgs(text), chromedp.WithPollingTimeout(patience)))
		if err != nil {
			t.Fatalf("the page at %s: %v", host, err)
		}
	}

	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
	}))
	defer other.Close()
	if err := chromedp.Do(ctx, chromedp.Navigate(other.URL)); err != nil {
		t.Fatal(err)
	}
	for _, host := range hosts {
		opened, err := chromedp.Run(ctx, chromedp.Evaluate[bool](strings.ReplaceAll(`
			fetch('http://HOST/publish?channel=other', { method: 'POST', mode: 'no-cors', body: 'hello' }).then(() =>
				new Promise((resolve) => {
					const socket = new WebSocket('ws://HOST/socket?channel=other');
					socket.onopen = () => resolve(true);
					socket.onclose = () => resolve(false);
				}))`, "HOST", host), chromedp.EvalAwaitPromise))
		if err != nil || opened {
			t.Errorf("a page of %s opened a WebSocket at %s: %t, %v", other.URL, host, opened, err)
		}
	}
	if got := fetch(t, "GET", p.url("/poll?channel=other&after="), ""); !strings.Contains(got.body, `"last": "none-0"`) {
		t.Errorf("a page of %s published: %s", other.URL, got.body)
	}
}
