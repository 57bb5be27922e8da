package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// This test publishes a message every 20 ms. It begins before the first subscription to the channel. Clients of every
// kind connect during this time. About a second after the first subscription, Pushpin sends all the requests that it
// holds to the origin again. Clients that know the id of their last message also disconnect, at once and then after
// every ten messages, and connect again. In the end, each client must have every message from its first one on, once
// and in order.
func testNothingLost(t *testing.T, p *project) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	kinds := map[string]connection{"stream": lostStream, "events": lostEvents, "poll": lostPoll, "socket": lostSocket}
	results := make(chan error)
	clients := 0
	for i := 1; i <= 200; i++ {
		say(t, p, "lost", strconv.Itoa(i))
		if i >= 5 && clients < 5*len(kinds) && i%15 == 5 { // they connect one after another
			for kind, connect := range kinds {
				clients++
				go func() {
					err := follow(ctx, p, connect, 200)
					if err != nil {
						err = fmt.Errorf("%s, connected after message %d: %w", kind, i, err)
					}
					results <- err
				}()
			}
		}
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	say(t, p, "lost", "end")
	for range clients {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// connection connects a client, which has got the messages up to the one with the id last, and calls got with the id and
// text of each message that arrives. The text is empty if it is only an id. If got returns an error, the client leaves.
type connection func(ctx context.Context, p *project, last string, got func(id, text string) error) error

var (
	errLeft = errors.New("left")
	errEnd  = errors.New("the end")
)

// follow connects a client again and again. Its messages must be consecutive numbers up to end, and then "end".
func follow(ctx context.Context, p *project, connect connection, end int) error {
	last, previous := "", 0
	for connections := 0; ; connections++ {
		taken := 0
		err := connect(ctx, p, last, func(id, text string) error {
			last = id
			if text != "" {
				n, err := strconv.Atoi(text)
				switch {
				case text == "end" && previous == end:
					return errEnd
				case err != nil || previous != 0 && n != previous+1:
					return fmt.Errorf("got %q after %d", text, previous)
				}
				previous, taken = n, taken+1
			}
			if id != "" && (connections == 0 || taken == 10) {
				return errLeft
			}
			return nil
		})
		if errors.Is(err, errEnd) {
			return nil
		}
		if err != nil && !errors.Is(err, errLeft) {
			return fmt.Errorf("after message %d: %w", previous, err)
		}
	}
}

func lostStream(ctx context.Context, p *project, _ string, got func(id, text string) error) error {
	return eachLine(ctx, p.url("/stream?channel=lost"), func(line string) error {
		if line == "stream open" {
			return nil
		}
		return got("", line) // an empty line is a keep-alive
	})
}

func lostEvents(ctx context.Context, p *project, last string, got func(id, text string) error) error {
	return eachLine(ctx, p.url("/events?channel=lost&after="+last), func(line string) error {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			return nil
		}
		var m message
		if err := json.Unmarshal([]byte(data), &m); err != nil || m.Gap {
			return fmt.Errorf("got %s, %w", data, err)
		}
		return got(m.ID+m.Start, m.Text)
	})
}

func eachLine(ctx context.Context, url string, got func(line string) error) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	lines, err := openLines(ctx, url)
	for err == nil && lines.Scan() {
		err = got(lines.Text())
	}
	return cmp.Or(err, io.EOF)
}

func lostPoll(ctx context.Context, p *project, last string, got func(id, text string) error) error {
	answer, err := poll(ctx, p, "channel=lost&after="+last)
	if err != nil || answer.Gap {
		return fmt.Errorf("got %+v, %w", answer, err)
	}
	for _, m := range answer.Messages {
		if err := got(m.ID, m.Text); err != nil && !errors.Is(err, errLeft) {
			return err
		}
	}
	return got(answer.Last, "")
}

// lostSocket does the same as the page. It asks for the messages after its last one when it is connected, and when a
// message does not follow the last one.
func lostSocket(ctx context.Context, p *project, last string, got func(id, text string) error) error {
	conn, _, err := websocket.Dial(ctx, "ws://"+p.addr+"/socket?channel=lost", nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	ask := func() error { return conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"after":%q}`, last)) }
	seen := map[string]bool{}
	if err := ask(); err != nil {
		return err
	}
	for {
		_, content, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		var m message
		if err := json.Unmarshal(content, &m); err != nil || m.Gap {
			return fmt.Errorf("got %s, %w", content, err)
		}
		switch {
		case m.Start != "":
			last = cmp.Or(last, m.Start)
			err = got(last, "")
		case m.Prev == last:
			last, seen[m.ID] = m.ID, true
			err = got(m.ID, m.Text)
		case !seen[m.ID]:
			err = ask()
		}
		if err != nil {
			return err
		}
	}
}
