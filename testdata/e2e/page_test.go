package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// picture is the README's picture of the page. `PICTURE=1 make e2e` makes it again.
const picture = "../page.png"

// testPage opens the live page in a real browser. It publishes there, and checks that all three panes show the message.
// It drops each connection, and checks that it comes back with the missed messages.
func testPage(t *testing.T, p *project) {
	path, err := local.Browser(t.Context())
	if err != nil {
		skipOrFail(t, "the live page is NOT TESTED: %v", err)
	}
	ctx := newBrowser(t, path)
	panes := []string{"socket", "events", "poll"}
	run := func(what string, steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	connected := func() {
		t.Helper()
		for _, pane := range panes {
			run(pane+" connects", chromedp.WaitVisible(chromedp.CSS("#"+pane+`[data-state="connected"]`)))
		}
	}
	drop := func() {
		t.Helper()
		for _, pane := range panes {
			run("drop "+pane, chromedp.Click(chromedp.CSS("#"+pane+" .drop")),
				chromedp.WaitVisible(chromedp.CSS("#"+pane+`[data-state="reconnecting"]`)))
		}
	}
	// is waits until a condition, in JavaScript, is true for text.
	is := func(what, condition, text string) {
		t.Helper()
		run(what+": "+text, chromedp.PollFunction[chromedp.Void]("(text) => "+condition,
			chromedp.WithPollingArgs(text), chromedp.WithPollingTimeout(patience)))
	}
	// shows waits until each pane shows the text once, with a latency.
	shows := func(text string) {
		t.Helper()
		is("all panes show", `[...document.querySelectorAll('.messages')].every((list) => {
			const found = [...list.children].filter((item) => item.firstChild.textContent === text);
			return found.length === 1 && / [0-9]+ ms$/.test(found[0].textContent);
		})`, text)
	}

	run("open the page", chromedp.EmulateViewport(1200, 750), chromedp.Navigate(p.url("/?name=ann")))
	connected()
	// Drop each connection two times, before the first message. Each pane comes back, and misses no message.
	drop()
	drop()
	say(t, p, "demo", "while nobody was there")
	connected()
	shows("while nobody was there")
	run("publish with the keyboard", chromedp.SetValue(chromedp.CSS("#text"), "hello from the page"),
		chromedp.SendKeys(chromedp.CSS("#text"), "\r"))
	shows("hello from the page")
	say(t, p, "demo", "hello from curl")
	shows("hello from curl")
	for _, who := range []string{"ann (you)", "WebSocket", "event stream", "long-poll"} {
		is("it shows who is connected", "document.querySelector('#who li')?.textContent.includes(text)", who)
	}

	shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("PICTURE") != "" {
		if err := os.WriteFile(picture, shot, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(shot) > 200<<10 {
		t.Errorf("the picture has %d bytes: too many for a README", len(shot))
	}

	const hostile = `<b id="hostile">&amp;</b>`
	say(t, p, "demo", hostile)
	shows(hostile)
	is("it shows HTML as text", "!document.getElementById(text)", "hostile")
	drop()
	say(t, p, "demo", "while they were away")
	connected()
	shows("while they were away")
	// Nothing stores a message that is published directly to the proxy. A long-poll between two requests misses it.
	for there, deadline := false, time.Now().Add(patience); !there; {
		p.publish(t, `"http-stream":{"content":"data: directly\n\n"},"http-response":{"body":"directly"},"ws-message":{"content":"directly"}`)
		there, err = chromedp.Run(ctx, chromedp.Evaluate[bool](`new Promise((resolve) => setTimeout(resolve, 200)).then(() =>
			[...document.querySelectorAll('.messages')].every((list) => list.textContent.includes('directly')))`, chromedp.EvalAwaitPromise))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("published directly to the proxy: not all panes show it, %v", err)
		}
	}

	run("on a phone", chromedp.EmulateViewport(360, 740))
	is("it fits the screen", "document.documentElement.scrollWidth <= innerWidth", "")
}

// newBrowser starts a browser, and ends it with the test.
func newBrowser(t *testing.T, path string) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), chromedp.ExecPath(path),
		chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		// A browser that runs as root, as in a container, needs this option. It opens only the tests' pages.
		chromedp.NoSandbox,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // this starts the browser; a timeout here would also end it later
		t.Fatalf("start %s: %v", path, err)
	}
	ctx, cancel = context.WithTimeout(ctx, 4*patience)
	t.Cleanup(cancel)
	return ctx
}
