package e2e

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// testPage opens the demo's page in a real browser. It publishes there, and checks that all three
// panes show the message. It drops each connection, and checks that it comes back with the missed
// messages.
func testPage(t *testing.T, p *project) {
	ctx := newBrowser(t)
	run := func(what string, steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	drop := func() {
		t.Helper()
		for _, pane := range []string{"#socket", "#events", "#poll"} {
			run("drop "+pane, chromedp.Click(chromedp.CSS(pane+" .drop")),
				chromedp.WaitVisible(chromedp.CSS(pane+"[data-state=reconnecting]")))
		}
	}
	// shows waits until each pane shows the text once, with a latency.
	shows := func(text string) {
		t.Helper()
		run("all panes show "+text, until(`[...document.querySelectorAll('.messages')].every((list) => {
			const found = [...list.children].filter((item) => item.firstChild.textContent === text);
			return found.length === 1 && / [0-9]+ ms$/.test(found[0].textContent);
		})`, text, patience))
	}

	run("open the page", chromedp.EmulateViewport(1200, 750), chromedp.Navigate(p.base+"/"),
		until("document.querySelectorAll('[data-state=connected]').length === 3", "", patience))
	// Drop each connection two times, before the first message. Each pane comes
	// back, and misses no message.
	drop()
	drop()
	p.say(t, "demo", "while nobody was there")
	shows("while nobody was there")
	run("publish with the keyboard", chromedp.SetValue(chromedp.CSS("#text"), "hello from the page"),
		chromedp.SendKeys(chromedp.CSS("#text"), "\r"))
	shows("hello from the page")
	p.say(t, "demo", "hello from curl")
	shows("hello from curl")
	if os.Getenv("PICTURE") != "" { // `PICTURE=1 make test` makes the README's picture again
		run("the usual address", until(`!document.querySelectorAll('code').forEach((code) =>
			code.textContent = code.textContent.replace(location.host, text))`, "localhost:7676", patience))
		shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("../page.png", shot, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	const hostile = `<b id="hostile">&amp;</b>`
	p.say(t, "demo", hostile)
	shows(hostile)
	run("it shows HTML as text", until("!document.getElementById(text)", "hostile", patience))
	// Publish while the panes are away and connect again. Each shows
	// these messages once, in order.
	drop()
	var numbers []string
	for i := range 150 {
		numbers = append(numbers, p.say(t, "demo", strconv.Itoa(i)).Text)
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	run("all panes show all numbers", until(`[...document.querySelectorAll('.messages')].every((list) =>
		[...list.children].map((item) => item.firstChild.textContent).filter((t) => t - 0 >= 0).join() === text)`,
		strings.Join(numbers, ","), patience))
	// Nothing stores a message that is published directly to the proxy. A long-poll
	// between two requests misses it.
	direct := until(`[...document.querySelectorAll('.messages')].every((list) => list.innerText.includes(text))`,
		"directly", 200*time.Millisecond)
	for chromedp.Do(ctx, direct) != nil {
		if ctx.Err() != nil {
			t.Fatal("not all panes show what is published directly to the proxy")
		}
		p.publish(t, "demo", grip.Formats{
			HTTPStream:   &grip.HTTPStream{Content: "data: directly\n\n"},
			HTTPResponse: &grip.HTTPResponse{Body: "directly"},
			WSMessage:    &grip.WSMessage{Content: "directly"},
		})
	}
	run("it fits a phone's screen", chromedp.EmulateViewport(360, 740),
		until("document.documentElement.scrollWidth <= innerWidth", "", patience))
}

// until waits until a condition, in JavaScript, is true for text.
func until(condition, text string, within time.Duration) chromedp.Action[chromedp.Void] {
	return chromedp.PollFunction[chromedp.Void]("(text) => "+condition,
		chromedp.WithPollingArgs(text), chromedp.WithPollingTimeout(within))
}

// newBrowser starts a browser and ends it with the test.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.Headless,
		// A browser that runs as root, as in a container, needs this option. It opens only the
		// tests' pages.
		chromedp.NoSandbox,
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // this starts the browser; a timeout here would also end it later
		t.Fatalf("start Chromium or Chrome: %v", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 4*patience)
	t.Cleanup(cancel)
	return ctx
}
