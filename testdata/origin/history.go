package main

import (
	"cmp"
	"crypto/rand"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// message is a message as clients get it.
type message struct {
	ID   string `json:"id"`
	Prev string `json:"prev"` // the id of the message before it on the channel
	Text string `json:"text"`
	At   int64  `json:"at"` // the time of publishing, in milliseconds since 1970
}

const (
	maxChannels = 100       // with a history, at the same time
	maxBytes    = 512 << 10 // of messages as JSON, in the history of each; Pushpin accepts 1 MB at once
)

// beginning is the id before the first message of a channel.
const beginning = "none-0"

// history keeps the last messages of each channel for clients that missed them. It is
// in memory: an origin with more than one process needs a database instead.
type history struct {
	mu       sync.Mutex
	channels map[string]*channelLog
}

func newHistory() *history { return &history{channels: map[string]*channelLog{}} }

type channelLog struct {
	epoch    string    // part of the ids, so that they differ from those before a restart
	count    int       // of all messages so far
	messages []message // the last of them
	bytes    int       // size of messages as JSON
}

func (l *channelLog) id(n int) string {
	if n == 0 {
		return beginning
	}
	return l.epoch + "-" + strconv.Itoa(n)
}

// add adds a message and returns it with its id, or an error if it is too large to be published.
func (h *history) add(channel, text string) (message, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.channels[channel]
	if l == nil {
		l = &channelLog{epoch: strings.ToLower(rand.Text()[:8])}
	}
	m := message{l.id(l.count + 1), l.id(l.count), text, time.Now().UnixMilli()}
	if _, err := grip.Encode(items(channel, m)...); err != nil {
		return message{}, err
	}
	if len(h.channels) == maxChannels && h.channels[channel] == nil { // forget the oldest
		names := slices.Collect(maps.Keys(h.channels))
		delete(h.channels, slices.MinFunc(names, func(a, b string) int {
			return cmp.Compare(h.channels[a].lastAt(), h.channels[b].lastAt())
		}))
	}
	h.channels[channel] = l
	l.count++
	l.messages = append(l.messages, m)
	l.bytes += len(compactJSON(m))
	for l.bytes > maxBytes {
		l.bytes -= len(compactJSON(l.messages[0]))
		l.messages = slices.Delete(l.messages, 0, 1)
	}
	return m, nil
}

func (l *channelLog) lastAt() int64 { return l.messages[len(l.messages)-1].At }

// after returns the messages after the one with the id. start is the id before
// the first of them, and last the id of the channel's last message. Without an id
// it returns no messages, because a new client gets only new ones. If the history
// does not know the id, or no longer has some of the messages, it returns all
// that it has, and gap is true.
func (h *history) after(channel, id string) (messages []message, start, last string, gap bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.channels[channel]
	if l == nil {
		return nil, beginning, beginning, id != "" && id != beginning
	}
	last = l.id(l.count)
	if id == "" {
		return nil, last, last, false
	}
	first := l.count - len(l.messages) // how many the history no longer has
	for n := first; n <= l.count; n++ {
		if l.id(n) == id {
			return slices.Clone(l.messages[n-first:]), id, last, false
		}
	}
	return slices.Clone(l.messages), l.id(first), last, true
}
