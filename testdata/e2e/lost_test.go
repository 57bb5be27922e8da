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

// This test publishes a message every 20 ms. It begins before the first subscription to the channel. Clients of every
// kind connect during this time. About a second after the first subscription, Pushpin sends all the requests that it
// holds to the origin again. Clients that know the id of their last message also disconnect, at once and then after a
// few messages, and connect again. In the end, each client must have every message from its first one on, once and in
// order.
func testNothingLost(t *testing.T, p *project) {
	const messages = 200
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	published := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		published <- publishNumbers(ctx, p, messages, started)
	}()
	select {
	case <-started:
	case err := <-published:
		t.Fatal(err)
	}

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
				time.Sleep(time.Duration(i) * 300 * time.Millisecond) // they connect one after another
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

// publishNumbers publishes the numbers up to last, and then "end". It closes started after the first few.
func publishNumbers(ctx context.Context, p *project, last int, started chan<- struct{}) error {
	for i := 1; i <= last+1; i++ {
		text := strconv.Itoa(i)
		if i == last+1 {
			text = "end"
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url("/publish?channel=lost"), strings.NewReader(text))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("publish %s: %s", text, resp.Status)
		}
		if i == 5 {
			close(started)
		}
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	return nil
}

// inOrder checks the texts. They must be consecutive numbers up to the last one, and then "end".
func inOrder(ctx context.Context, texts <-chan string, last int) error {
	previous := 0
	for {
		select {
		case text := <-texts:
			if text == "end" && previous == last {
				return nil
			}
			n, err := strconv.Atoi(text)
			if err != nil {
				return fmt.Errorf("got %q after %d", text, previous)
			}
			if previous != 0 && n != previous+1 {
				return fmt.Errorf("got %d after %d", n, previous)
			}
			previous = n
		case <-ctx.Done():
			return fmt.Errorf("no message came after %d", previous)
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
		if line == "stream open" || line == "" { // an empty line is a keep-alive
			return nil
		}
		return send(ctx, texts, line)
	})
}

// errLeft says that a client has disconnected, and will connect again.
var errLeft = errors.New("left")

// comeBack connects a client again and again. Each time the client sends the id of its last message. It disconnects at
// once the first time, and then after every tenth message.
func comeBack(connect func(last *string, leave func() error) error) error {
	var last string
	for taken := 0; ; taken = 0 {
		first := last == ""
		leave := func() error {
			if taken++; first || taken > 10 {
				return errLeft
			}
			return nil
		}
		if err := connect(&last, leave); !errors.Is(err, errLeft) {
			return err
		}
	}
}

func followEvents(ctx context.Context, p *project, texts chan<- string) error {
	return comeBack(func(last *string, leave func() error) error {
		return followLines(ctx, p.url("/events?channel=lost&after="+*last), func(line string) error {
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				return nil
			}
			var m struct {
				message
				Start string
				Gap   bool
			}
			if err := json.Unmarshal([]byte(data), &m); err != nil || m.Gap {
				return fmt.Errorf("got %s, %w", data, err)
			}
			if m.Start != "" {
				*last = m.Start
				return leave()
			}
			*last = m.ID
			if err := send(ctx, texts, m.Text); err != nil {
				return err
			}
			return leave()
		})
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

// followSocket does the same as the page. It asks for the messages after its last one when it is connected, and when a
// message does not follow the last one.
func followSocket(ctx context.Context, p *project, texts chan<- string) error {
	seen := map[string]bool{}
	return comeBack(func(last *string, leave func() error) error {
		conn, _, err := websocket.Dial(ctx, "ws://"+p.addr+"/socket?channel=lost", nil)
		if err != nil {
			return err
		}
		defer conn.CloseNow()
		var early []message // messages that came before the origin's first answer
		ask := func() error {
			return conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"after":%q}`, *last))
		}
		take := func(m message) error {
			switch {
			case *last == "":
				early = append(early, m)
			case m.Prev == *last:
				*last, seen[m.ID] = m.ID, true
				if err := send(ctx, texts, m.Text); err != nil {
					return err
				}
				return leave()
			case !seen[m.ID]:
				return ask()
			}
			return nil
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
			if err := json.Unmarshal(content, &m); err != nil || m.Gap {
				return fmt.Errorf("got %s, %w", content, err)
			}
			todo := []message{m.message}
			if m.Start != "" {
				if *last == "" {
					*last = m.Start
				}
				if err := leave(); err != nil {
					return err
				}
				todo, early = early, nil
			}
			for _, m := range todo {
				if err := take(m); err != nil {
					return err
				}
			}
		}
	})
}
