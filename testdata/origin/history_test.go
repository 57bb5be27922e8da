package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestHistoryAfter(t *testing.T) {
	h := &history{channels: map[string]*channelLog{"c": {epoch: "now"}}}
	for _, text := range []string{"one", "two", "three"} {
		h.add("c", text, accept)
	}
	for _, tt := range []struct{ channel, id, want string }{
		{"c", "", "[] now-3 now-3 false"}, // a new client
		{"c", "none-0", "[one two three] none-0 now-3 false"},
		{"c", "now-1", "[two three] now-1 now-3 false"},
		{"c", "now-3", "[] now-3 now-3 false"},
		{"c", "now-4", "[one two three] none-0 now-3 true"},
		{"c", "old-2", "[one two three] none-0 now-3 true"}, // from before a restart
		{"new", "", "[] none-0 none-0 false"},
		{"new", "none-0", "[] none-0 none-0 false"},
		{"new", "old-2", "[] none-0 none-0 true"},
	} {
		messages, start, last, gap := h.after(tt.channel, tt.id)
		var texts []string
		for _, m := range messages {
			texts = append(texts, m.Text)
		}
		if got := fmt.Sprint(texts, " ", start, " ", last, " ", gap); got != tt.want {
			t.Errorf("%s after %q: got %s, want %s", tt.channel, tt.id, got, tt.want)
		}
	}
}

// A client that asks for messages that the history no longer has learns of the gap.
func TestHistoryBounds(t *testing.T) {
	h := &history{}
	for range maxMessages + 10 {
		h.add("many", "hello", accept)
	}
	messages, start, _, gap := h.after("many", beginning)
	h.add("many", "hello", accept) // removes the first message, but not from messages
	if len(messages) != maxMessages || start != messages[0].Prev || !gap {
		t.Errorf("%d messages after %s, gap %t", len(messages), start, gap)
	}
	for range 20 {
		h.add("large", strings.Repeat("\x01", 10_000), accept) // six times as long in JSON
	}
	if messages, _, _, gap := h.after("large", beginning); len(messages) != 8 || !gap {
		t.Errorf("%d large messages, gap %t", len(messages), gap)
	}

	h.channels["many"].messages[maxMessages-1].At-- // now it is the oldest channel
	for i := range maxChannels - 1 {
		h.after(fmt.Sprint("asked for ", i), "") // adds no channel
		h.add(fmt.Sprint(i), "hello", accept)
	}
	h.add("0", "hello", accept)
	if len(h.channels) != maxChannels || h.channels["many"] != nil || h.channels["large"] == nil {
		t.Errorf("%d channels; is the oldest there: %t", len(h.channels), h.channels["many"] != nil)
	}
}

func accept(message) error { return nil }
