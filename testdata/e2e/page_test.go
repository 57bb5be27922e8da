package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
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
	var said []string
	say := func(text string) {
		p.say(t, "", text)
		said = append(said, text)
	}
	shown := func(what string) {
		t.Helper()
		run(what, waitFor(`[...document.querySelectorAll('.messages')].every((list) =>
			[...list.children].map((item) => item.firstChild.textContent).join() === text)`,
			strings.Join(said, ",")))
	}

	run("open the page", chromedp.Navigate(p.base+"/"),
		waitFor("document.querySelectorAll('[data-state=connected]').length === 3", ""))
	drop()
	drop() // again, before the first message
	say("while nobody was there")
	shown("all panes come back")
	run("publish with the keyboard", chromedp.SetValue(chromedp.CSS("#text"), "from the page"),
		chromedp.SendKeys(chromedp.CSS("#text"), "\r"))
	said = append(said, "from the page")
	shown("all panes show what the page published")
	say(`<b>&amp;</b>`)
	shown("all panes show HTML as text")
	run("each message has a latency", waitFor(`[...document.querySelectorAll('.messages li')].every((item) =>
		/ [0-9]+ ms$/.test(item.textContent))`, ""))
	drop()
	for i := range 150 { // while the panes are away and connect again
		say(strconv.Itoa(i))
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	shown("all panes show all numbers")
	// Nothing stores this message, and a long-poll between two requests misses it.
	directly := waitFor(`[...document.querySelectorAll('.messages')].every((list) =>
		list.innerText.includes(text))`, "directly")
	got := publishUntil(func() { p.publishDirectly(t, "directly") },
		func() string { return fmt.Sprint(chromedp.Do(ctx, directly)) })
	if got != "<nil>" {
		t.Errorf("not all panes show what is published directly to the proxy: %s", got)
	}
}

// publishDirectly publishes a text to the channel demo, directly to Pushpin.
func (p *project) publishDirectly(t *testing.T, text string) {
	t.Helper()
	p.publish(t, "demo", grip.Formats{
		HTTPStream:   &grip.HTTPStream{Content: "data: " + text + "\n\n"},
		HTTPResponse: &grip.HTTPResponse{Body: text},
		WSMessage:    &grip.WSMessage{Content: text},
	})
}

// waitFor waits until a condition, in JavaScript, is true for text.
func waitFor(condition, text string) chromedp.Action[chromedp.Void] {
	return chromedp.PollFunction[chromedp.Void]("(text) => "+condition,
		chromedp.WithPollingArgs(text), chromedp.WithPollingTimeout(patience))
}
