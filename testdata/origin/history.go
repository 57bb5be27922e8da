package main

import (
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// message is a message, in the form in which clients get it.
type message struct {
	ID   string `json:"id"`
	Prev string `json:"prev"` // the id of the message before it on the channel
	Text string `json:"text"`
	At   int64  `json:"at"` // the time of publishing, in milliseconds since 1970
}

const (
	maxChannels = 100       // with a history, at the same time
	maxMessages = 1000      // in the history of each
	maxBytes    = 512 << 10 // of messages as JSON, in the history of each; Pushpin accepts 1 MB at once
)

// beginning is the id before the first message of a channel.
const beginning = "none-0"

// history keeps the last messages of each channel, for clients that missed them. A client misses messages while it is
// not connected, and between the answer to one request and the next request. The history has limits, and it is in
// memory: an origin with more than one process needs a database instead.
type history struct {
	mu       sync.Mutex
	channels map[string]*channelLog
}

type channelLog struct {
	epoch    string    // part of the ids; they differ from those before a restart
	count    int       // of all messages so far
	messages []message // the last messages
	bytes    int       // size of messages as JSON
}

func newHistory() *history { return &history{channels: map[string]*channelLog{}} }

func (l *channelLog) id(n int) string {
	if n == 0 {
		return beginning
	}
	return l.epoch + "-" + strconv.Itoa(n)
}

// number returns the number of the message with the id, counted from 1. It is 0 for beginning.
func (l *channelLog) number(id string) (n int, ok bool) {
	if id == beginning {
		return 0, true
	}
	epoch, number, _ := strings.Cut(id, "-")
	n, err := strconv.Atoi(number)
	return n, err == nil && epoch == l.epoch && n > 0 && n <= l.count
}

// add adds a message, and returns it with its id. If check returns an error, add returns it and adds nothing.
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

// forget removes the channel whose last message is the oldest. The caller has locked h.mu.
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

// after returns the messages after the one with the id. It also returns start, the id of the message before the first
// of them, and last, the id of the channel's last message. Without an id it returns no messages: a new client gets
// only new ones. If the history no longer has some of the messages, or does not know the id, it returns all messages
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
	n, ok := l.number(id)
	first := l.count - len(l.messages) // how many the history no longer has
	if !ok || n < first {
		n, gap = first, true
	}
	return slices.Clone(l.messages[n-first:]), l.id(n), last, gap
}
