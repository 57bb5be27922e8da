package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func fill(t *testing.T, h *history, channel string, texts ...string) (ids []string) {
	t.Helper()
	for _, text := range texts {
		m, err := h.add(channel, text, func(message) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

func TestHistoryAfter(t *testing.T) {
	h := newHistory()
	ids := fill(t, h, "c", "one", "two", "three")
	tests := []struct {
		name, channel, id string
		texts             string
		start, last       string
		gap               bool
	}{
		{"a new client", "c", "", "", ids[2], ids[2], false},
		{"from the beginning", "c", beginning, "one two three", beginning, ids[2], false},
		{"from the first", "c", ids[0], "two three", ids[0], ids[2], false},
		{"from the last", "c", ids[2], "", ids[2], ids[2], false},
		{"from a future id", "c", strings.Replace(ids[2], "-3", "-4", 1), "one two three", beginning, ids[2], true},
		{"from before a restart", "c", "other-2", "one two three", beginning, ids[2], true},
		{"from nonsense", "c", "nonsense", "one two three", beginning, ids[2], true},
		{"a new client of a new channel", "new", "", "", beginning, beginning, false},
		{"from the beginning of a new channel", "new", beginning, "", beginning, beginning, false},
		{"from before a restart, of a new channel", "new", "other-2", "", beginning, beginning, true},
	}
	for _, tt := range tests {
		messages, start, last, gap := h.after(tt.channel, tt.id)
		var texts []string
		prev := start
		for _, m := range messages {
			if m.Prev != prev {
				t.Errorf("%s: %q follows %s, want %s", tt.name, m.Text, m.Prev, prev)
			}
			prev = m.ID
			texts = append(texts, m.Text)
		}
		if got := strings.Join(texts, " "); got != tt.texts || start != tt.start || last != tt.last || gap != tt.gap {
			t.Errorf("%s: got %q, %q, %q, %t", tt.name, got, start, last, gap)
		}
	}
}

// A message that check refuses is not kept, and gets no id.
func TestHistoryCheck(t *testing.T) {
	h := newHistory()
	if _, err := h.add("c", "refused", func(message) error { return errors.New("no") }); err == nil {
		t.Error("add returned no error for a message that check refuses")
	}
	ids := fill(t, h, "c", "one")
	if messages, _, _, _ := h.after("c", beginning); len(messages) != 1 || messages[0].ID != ids[0] || messages[0].Prev != beginning {
		t.Errorf("got %+v", messages)
	}
}

// The history has limits for messages, bytes and channels. A client that asks for messages that were removed learns
// that there is a gap. A question for messages adds no channel, and so removes no other.
func TestHistoryBounds(t *testing.T) {
	h := newHistory()
	for i := range maxMessages + 10 {
		fill(t, h, "many", fmt.Sprint(i))
	}
	if messages, _, _, gap := h.after("many", beginning); len(messages) != maxMessages || !gap {
		t.Errorf("%d messages, gap %t", len(messages), gap)
	}
	for range 20 {
		fill(t, h, "large", strings.Repeat("\x01", 10_000)) // as JSON, each is six times as long
	}
	messages, _, _, gap := h.after("large", beginning)
	if size := len(compactJSON(messages)); size > maxBytes+len(messages)+1 || len(messages) < 5 || !gap {
		t.Errorf("%d large messages of %d bytes, gap %t", len(messages), size, gap)
	}

	for i := range maxChannels {
		h.after(fmt.Sprint("asked for ", i), "")
	}
	if len(h.channels) != 2 {
		t.Errorf("asking made %d channels", len(h.channels))
	}
	h.channels["many"].messages[maxMessages-1].At-- // so this channel's last message is the oldest
	for i := range maxChannels - 1 {
		fill(t, h, fmt.Sprint(i), "hello")
	}
	if len(h.channels) != maxChannels || h.channels["many"] != nil || h.channels["large"] == nil {
		t.Errorf("%d channels; is the oldest still there: %t", len(h.channels), h.channels["many"] != nil)
	}
}
