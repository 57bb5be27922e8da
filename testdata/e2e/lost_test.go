package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A message is published every 20 ms, from before the first subscription to the channel on. Clients
// of every kind come while that goes on, about a second of it being the time when Pushpin asks the
// origin again for all that it holds. Each must end up with every message from its first on, once,
// and in order.
func testNothingLost(t *testing.T, p *project) {
	const messages = 200
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	published := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		for i := range messages {
			text := strconv.Itoa(i + 1)
			if status, body := post(t, p.url("/publish?channel=lost"), text); status != 200 {
				published <- fmt.Errorf("publish %s: status %d, %s", text, status, body)
				return
			}
			if i == 5 {
				close(started)
			}
			time.Sleep(20 * time.Millisecond)
		}
		published <- nil
	}()
	<-started

	kinds := map[string]func(context.Context, *project, chan<- string) error{
		"stream": followStream, "events": followEvents, "poll": followPoll, "socket": followSocket,
	}
	type result struct {
		name string
		err  error
	}
	results := make(chan result)
	const clients = 5 // of each kind
	for i := range clients {
		for kind, follow := range kinds {
			go func() {
				time.Sleep(time.Duration(i) * 300 * time.Millisecond) // they come one after the other
				texts := make(chan string)
				go func() {
					defer close(texts)
					if err := follow(ctx, p, texts); err != nil && ctx.Err() == nil {
						texts <- "error: " + err.Error()
					}
				}()
				results <- result{fmt.Sprint(kind, " ", i+1), inOrder(ctx, texts, messages)}
			}()
		}
	}
	for range clients * len(kinds) {
		if r := <-results; r.err != nil {
			t.Errorf("%s: %v", r.name, r.err)
		}
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
}

// inOrder returns an error unless the texts are numbers, each one more than the one before it, up to
// the last.
func inOrder(ctx context.Context, texts <-chan string, last int) error {
	previous := 0
	for {
		select {
		case text := <-texts:
			n, err := strconv.Atoi(text)
			if err != nil {
				return fmt.Errorf("got %q after %d", text, previous)
			}
			if previous != 0 && n != previous+1 {
				return fmt.Errorf("got %d after %d", n, previous)
			}
			if n == last {
				return nil
			}
			previous = n
		case <-ctx.Done():
			return fmt.Errorf("nothing came after %d", previous)
		}
	}
}

func send(ctx context.Context, texts chan<- string, text string) error {
	select {
	case texts <- text:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func followLines(ctx context.Context, url string, take func(line string) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if err := take(lines.Text()); err != nil {
			return err
		}
	}
	return errors.Join(errors.New("the stream ended"), lines.Err())
}

func followStream(ctx context.Context, p *project, texts chan<- string) error {
	return followLines(ctx, p.url("/stream?channel=lost"), func(line string) error {
		if line == "stream open" || line == "" { // the empty one is a keep-alive
			return nil
		}
		return send(ctx, texts, line)
	})
}

func followEvents(ctx context.Context, p *project, texts chan<- string) error {
	return followLines(ctx, p.url("/events?channel=lost"), func(line string) error {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			return nil
		}
		var m message
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			return err
		}
		return send(ctx, texts, m.Text)
	})
}

func followPoll(ctx context.Context, p *project, texts chan<- string) error {
	query := "channel=lost"
	for {
		answer, err := poll(ctx, p, query)
		if err != nil {
			return err
		}
		if answer.Gap {
			return errors.New("a gap")
		}
		for _, m := range answer.Messages {
			if err := send(ctx, texts, m.Text); err != nil {
				return err
			}
		}
		query = "channel=lost&after=" + answer.Last
	}
}

// followSocket does what the page does: it asks for what comes after its last message once it is
// connected, and when the next one does not follow it.
func followSocket(ctx context.Context, p *project, texts chan<- string) error {
	conn, _, err := websocket.Dial(ctx, "ws://"+p.addr+"/socket?channel=lost", nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	last, seen := "", map[string]bool{}
	ask := func() error {
		return conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"after":%q}`, last))
	}
	if err := ask(); err != nil {
		return err
	}
	for {
		_, content, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		var m struct {
			message
			Start string
			Gap   bool
		}
		if err := json.Unmarshal(content, &m); err != nil {
			return err
		}
		switch {
		case m.Gap:
			return errors.New("a gap")
		case m.Start != "":
			last = m.Start
		case m.Prev == last:
			last, seen[m.ID] = m.ID, true
			if err := send(ctx, texts, m.Text); err != nil {
				return err
			}
		case last != "" && !seen[m.ID]:
			if err := ask(); err != nil {
				return err
			}
		}
	}
}
