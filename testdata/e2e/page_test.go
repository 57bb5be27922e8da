package e2e

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// testPage opens the demo's page in a real browser. All three panes must show each message once, in
// order, although their connections are dropped.
func testPage(t *testing.T, p *project) {
	// A browser that runs as root, as in a container, needs NoSandbox. It opens only this page.
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), chromedp.Headless, chromedp.NoSandbox)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium or Chrome: %v", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 4*patience) // before the start, it would end the browser
	defer cancel()
	run := func(what string, steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	drop := func() {
		for _, pane := range []string{"#socket", "#events", "#poll"} {
			run("drop "+pane, chromedp.Click(chromedp.CSS(pane+" .drop")),
				waitFor("document.querySelector(text).dataset.state === 'reconnecting'", pane))
		}
	}
	said := []string{"while nobody was there", "from the page", "<b>&amp;</b>"}
	shown := func(messages int) {
		t.Helper()
		run("all panes show the messages", waitFor(`[...document.querySelectorAll('.messages')].every((list) =>
			[...list.children].map((item) => item.firstChild.textContent).join() === text)`,
			strings.Join(said[:messages], ",")))
	}

	run("open the page", chromedp.Navigate(p.base+"/"),
		waitFor("document.querySelectorAll('[data-state=connected]').length === 3", ""))
	drop()
	p.say(t, "", said[0])
	shown(1)
	run("publish with the keyboard", chromedp.SetValue(chromedp.CSS("#text"), said[1]),
		chromedp.SendKeys(chromedp.CSS("#text"), "\r"))
	shown(2)
	p.say(t, "", said[2])
	shown(3)
	run("each message has a latency", waitFor(`[...document.querySelectorAll('.messages li')].every((item) =>
		/ [0-9]+ ms$/.test(item.textContent))`, ""))
	drop()
	for i := range 150 { // while the panes are away and connect again
		said = append(said, strconv.Itoa(i))
		p.say(t, "", strconv.Itoa(i))
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	shown(len(said))
}

// waitFor waits until a condition, in JavaScript, is true for text.
func waitFor(condition, text string) chromedp.Action[chromedp.Void] {
	return chromedp.PollFunction[chromedp.Void]("(text) => "+condition,
		chromedp.WithPollingArgs(text), chromedp.WithPollingTimeout(patience))
}
