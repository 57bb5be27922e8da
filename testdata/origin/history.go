package main

import (
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// message is a message as clients get it.
type message struct {
	ID   string `json:"id"`
	Prev string `json:"prev"` // the id of the one before it on the channel
	Text string `json:"text"`
	At   int64  `json:"at"` // when it was published, in milliseconds since 1970
}

const (
	maxChannels = 100       // that have a history, at once
	maxMessages = 1000      // in the history of each
	maxBytes    = 512 << 10 // of them as JSON, in the history of each: Pushpin takes 1 MB at once
)

// beginning is the id before the first message of a channel.
const beginning = "none-0"

// history remembers the last messages of each channel: what a client missed while it was not
// connected, or while one answer was on its way and the next request was not. It is bounded, and it
// is in memory: an origin with more than one process would keep it in a database.
type history struct {
	mu       sync.Mutex
	channels map[string]*channelLog
}

type channelLog struct {
	epoch    string    // tells the ids of this log from those before a restart
	count    int       // of messages so far
	messages []message // the last of them
	bytes    int       // of these as JSON
}

func newHistory() *history { return &history{channels: map[string]*channelLog{}} }

func (l *channelLog) id(n int) string {
	if n == 0 {
		return beginning
	}
	return l.epoch + "-" + strconv.Itoa(n)
}

// number returns which message of this log has the id.
func (l *channelLog) number(id string) (n int, ok bool) {
	if id == beginning {
		return 0, true
	}
	epoch, number, _ := strings.Cut(id, "-")
	n, err := strconv.Atoi(number)
	return n, err == nil && epoch == l.epoch && n > 0 && n <= l.count
}

// add appends a message, and returns it with its id; if check returns an error it does neither.
func (h *history) add(channel, text string, check func(message) error) (message, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.channels[channel]
	if l == nil {
		l = &channelLog{epoch: strings.ToLower(rand.Text()[:8])}
	}
	m := message{ID: l.id(l.count + 1), Prev: l.id(l.count), Text: text, At: time.Now().UnixMilli()}
	if err := check(m); err != nil {
		return message{}, err
	}
	if len(h.channels) == maxChannels && h.channels[channel] == nil {
		h.forget()
	}
	h.channels[channel] = l
	l.count++
	l.messages = append(l.messages, m)
	l.bytes += len(compactJSON(m))
	for len(l.messages) > maxMessages || l.bytes > maxBytes {
		l.bytes -= len(compactJSON(l.messages[0]))
		l.messages = slices.Delete(l.messages, 0, 1)
	}
	return m, nil
}

// forget drops the channel that was published to the longest ago; h.mu is held.
func (h *history) forget() {
	oldest := ""
	for channel, l := range h.channels {
		if oldest == "" || l.lastAt() < h.channels[oldest].lastAt() {
			oldest = channel
		}
	}
	delete(h.channels, oldest)
}

func (l *channelLog) lastAt() int64 { return l.messages[len(l.messages)-1].At }

// after returns the messages after the one with the id, the id before the first of them, and the id of
// the last one there is. With no id it returns no messages: a new client starts with what comes next.
// If some are forgotten, or the id is not one of this channel, it returns those it has, and gap is true.
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
	n, ok := l.number(id)
	first := l.count - len(l.messages) // how many are forgotten
	if !ok || n < first {
		n, gap = first, true
	}
	return slices.Clone(l.messages[n-first:]), l.id(n), last, gap
}
