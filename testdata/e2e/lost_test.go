package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// This test publishes a message every 20 ms. It begins before the first subscription to the
// channel. Event streams connect during this time. About a second after the first subscription,
// Pushpin sends all the requests that it holds to the origin again. The clients also
// disconnect, at once and then after every ten messages, and connect again. In the end, each
// client must have every message from its first one on, once and in order. testPage does this
// with long-polls and WebSockets.
func testNothingLost(t *testing.T, p *project) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var clients sync.WaitGroup
	for i := 1; i <= 200; i++ {
		say(t, p, "lost", strconv.Itoa(i))
		if i >= 5 && i < 85 && i%5 == 0 { // they connect one after another
			clients.Go(func() {
				if err := follow(ctx, p); err != nil {
					t.Errorf("the client that connected after message %d: %v", i, err)
				}
			})
		}
		time.Sleep(20 * time.Millisecond) // this sets the rate; it does not wait for anything
	}
	clients.Wait()
}

// follow connects a client again and again. Its messages must be consecutive numbers up to 200.
func follow(ctx context.Context, p *project) error {
	last, previous := "", 0
	for connections := 0; previous < 200; connections++ {
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		lines, err := openLines(ctx, p.url("/events?channel=lost&after="+last))
		for events := 0; err == nil && previous < 200 && events < 1+10*min(connections, 1); {
			if !lines.Scan() {
				return fmt.Errorf("after %d, the stream ended: %v", previous, lines.Err())
			}
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var m message
			err = json.Unmarshal([]byte(data), &m)
			n, _ := strconv.Atoi(m.Text)
			if m.Gap || (events == 0) != (m.Start != "") || events > 0 && previous > 0 && n != previous+1 {
				return fmt.Errorf("after %d: got %s", previous, data)
			}
			last, previous = m.ID+m.Start, max(previous, n)
			events++
		}
		leave()
		if err != nil {
			return err
		}
	}
	return nil
}
