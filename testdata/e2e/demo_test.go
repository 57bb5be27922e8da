package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// invitation is the last line that `make demo` prints when it is ready.
const invitation = "Press Ctrl-C here to stop everything"

// TestDemo runs `make demo`, opens its page, and ends it in each way in which a person can. Nothing is
// left behind.
func TestDemo(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	ports := append(addrs(p.publishPort, 4), p.addr, p.origin, loopback(p.proxyPort))
	slowBuild := fmt.Sprint("sleep ", p.publishPort) // takes hours
	runs := func(command string) bool { return exec.Command("pgrep", "-f", command).Run() == nil }
	run := func() *program {
		return start(t, p.dir, nil, "make", "demo", "ADDR="+p.addr)
	}
	// end sends a signal to the process group, as a terminal does, or to a program in it.
	end := func(demo *program, signal string) {
		t.Helper()
		sh(t, ".", `pkill -g "$1" `+signal, strconv.Itoa(demo.Process.Pid))
		<-demo.done
		eventually(t, signal+" ends all programs", func() bool {
			return !runs(p.addr) && !runs(slowBuild) && !slices.ContainsFunc(ports, listens)
		})
	}

	demo := run()
	demo.wait(t, invitation)
	testPage(t, site{strings.Replace(p.base, "127.0.0.1", "localhost", 1)})
	second := sh(t, p.dir, `! make demo ADDR="$1"`, p.addr)
	for _, addr := range ports {
		if _, port, _ := strings.Cut(addr, ":"); !strings.Contains(second, "localhost:"+port) {
			t.Errorf("a second demo does not name port %s:\n%s", port, second)
		}
	}
	end(demo, "-INT")

	// While it builds: a Ctrl-C, the end of the terminal, and kill.
	p.set(t, "scripts.build", slowBuild)
	for _, signal := range []string{"-INT", "-HUP", "-TERM -x origin"} {
		demo := run()
		eventually(t, "it builds", func() bool { return runs(slowBuild) })
		end(demo, signal)
	}
}

// testPage opens the demo's page in a real browser. All three panes must show each message once, in
// order, although their connections are dropped.
func testPage(t *testing.T, at site) {
	// A browser that runs as root, as in a container, needs NoSandbox. It opens only this page.
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), chromedp.Headless, chromedp.NoSandbox)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium or Chrome: %v", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 4*patience) // only now: the browser must not end with it
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

	run("open the page", chromedp.Navigate(at.base+"/"),
		waitFor("document.querySelectorAll('[data-state=connected]').length === 3", ""))
	drop()
	at.say(t, "", said[0])
	shown(1)
	run("publish with the keyboard", chromedp.SetValue(chromedp.CSS("#text"), said[1]),
		chromedp.SendKeys(chromedp.CSS("#text"), "\r"))
	shown(2)
	at.say(t, "", said[2])
	shown(3)
	run("each message has a latency", waitFor(`[...document.querySelectorAll('.messages li')].every((item) =>
		/ [0-9]+ ms$/.test(item.textContent))`, ""))
	for i := range 150 {
		if i%50 == 0 { // the panes connect again meanwhile
			drop()
		}
		said = append(said, strconv.Itoa(i))
		at.say(t, "", strconv.Itoa(i))
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	shown(len(said))
}

// waitFor waits until a condition, in JavaScript, is true for text.
func waitFor(condition, text string) chromedp.Action[chromedp.Void] {
	return chromedp.PollFunction[chromedp.Void]("(text) => "+condition,
		chromedp.WithPollingArgs(text), chromedp.WithPollingTimeout(patience))
}
