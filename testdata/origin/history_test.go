package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestHistoryAfter(t *testing.T) {
	h := &history{channels: map[string]*channelLog{"c": {epoch: "now"}}}
	for _, text := range []string{"one", "two", "three"} {
		h.add("c", text, accept)
	}
	// A message that check refuses is not kept, and gets no id.
	if _, err := h.add("c", "refused", func(message) error { return io.EOF }); err != io.EOF {
		t.Errorf("got %v for a message that check refuses", err)
	}
	for _, tt := range []struct {
		channel, id string
		texts       string
		start, last string
		gap         bool
	}{
		{"c", "", "", "now-3", "now-3", false}, // a new client
		{"c", "none-0", " one two three", "none-0", "now-3", false},
		{"c", "now-1", " two three", "now-1", "now-3", false},
		{"c", "now-3", "", "now-3", "now-3", false},
		{"c", "now-4", " one two three", "none-0", "now-3", true},
		{"c", "old-2", " one two three", "none-0", "now-3", true}, // from before a restart
		{"new", "", "", "none-0", "none-0", false},
		{"new", "none-0", "", "none-0", "none-0", false},
		{"new", "old-2", "", "none-0", "none-0", true},
	} {
		messages, start, last, gap := h.after(tt.channel, tt.id)
		var texts string
		for _, m := range messages {
			texts += " " + m.Text
		}
		if texts != tt.texts || start != tt.start || last != tt.last || gap != tt.gap {
			t.Errorf("%s after %q: got %q, %q, %q, %t", tt.channel, tt.id, texts, start, last, gap)
		}
	}
}

// A client that asks for messages that the history no longer has learns of the gap. Asking adds
// no channel, so it removes none either.
func TestHistoryBounds(t *testing.T) {
	h := &history{}
	for range 1010 {
		h.add("many", "hello", accept)
	}
	messages, start, _, gap := h.after("many", "none-0")
	known, _, _, _ := h.after("many", start)
	h.add("many", "hello", accept) // removes the first message, but not from what after returned
	if len(messages) != 1000 || start != messages[0].Prev || start != known[0].Prev || !gap {
		t.Errorf("%d messages after %s, gap %t", len(messages), start, gap)
	}
	for range 20 {
		h.add("large", strings.Repeat("\x01", 10_000), accept) // as JSON, each is six times as long
	}
	if messages, _, _, gap := h.after("large", "none-0"); len(messages) != 8 || !gap {
		t.Errorf("%d large messages, gap %t", len(messages), gap)
	}
	h.channels["many"].messages[999].At-- // so this channel's last message is the oldest
	for i := range 99 {
		h.after(fmt.Sprint("asked for ", i), "")
		h.add(fmt.Sprint(i), "hello", accept)
	}
	h.add("98", "hello", accept) // removes none: the channel is there
	if len(h.channels) != 100 || h.channels["many"] != nil || h.channels["large"] == nil {
		t.Errorf("%d channels; is the oldest still there: %t", len(h.channels), h.channels["many"] != nil)
	}
}

func accept(message) error { return nil }
