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
	maxChannels = 100     // that have a history, at once
	maxMessages = 1000    // in the history of each
	maxBytes    = 1 << 20 // of text in the history of each
)

// history remembers the last messages of each channel: what a client missed while it was not
// connected, or while one answer was on its way and the next request was not. It is bounded, and it
// is in memory: an origin with more than one process would keep it in a database.
type history struct {
	mu       sync.Mutex
	channels map[string]*channelLog
}

type channelLog struct {
	epoch    string // tells the ids of this log from those before a restart
	count    int    // of messages so far
	messages []message
	bytes    int // of their texts
}

func newHistory() *history { return &history{channels: map[string]*channelLog{}} }

// log returns the channel's log; h.mu is held.
func (h *history) log(channel string) *channelLog {
	l := h.channels[channel]
	if l == nil {
		for other := range h.channels { // any one will do: its clients find that they have a gap
			if len(h.channels) < maxChannels {
				break
			}
			delete(h.channels, other)
		}
		l = &channelLog{epoch: strings.ToLower(rand.Text()[:8])}
		h.channels[channel] = l
	}
	return l
}

func (l *channelLog) id(n int) string { return l.epoch + "-" + strconv.Itoa(n) }

// number returns which message of this log has the id; 0 is the beginning.
func (l *channelLog) number(id string) (n int, ok bool) {
	epoch, number, _ := strings.Cut(id, "-")
	n, err := strconv.Atoi(number)
	return n, err == nil && epoch == l.epoch && n >= 0 && n <= l.count
}

// add appends a message, and returns it with its id; if check returns an error it does neither.
func (h *history) add(channel, text string, check func(message) error) (message, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.log(channel)
	m := message{ID: l.id(l.count + 1), Prev: l.id(l.count), Text: text, At: time.Now().UnixMilli()}
	if err := check(m); err != nil {
		return message{}, err
	}
	l.count++
	l.messages = append(l.messages, m)
	l.bytes += len(text)
	for len(l.messages) > maxMessages || l.bytes > maxBytes {
		l.bytes -= len(l.messages[0].Text)
		l.messages = slices.Delete(l.messages, 0, 1)
	}
	return m, nil
}

// after returns the messages after the one with the id, and the id of the last one there is. If some
// are forgotten, or the id is not of this log, it returns those it has, and gap is true.
func (h *history) after(channel, id string) (messages []message, last string, gap bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.log(channel)
	n, ok := l.number(id)
	first := l.count - len(l.messages) // how many are forgotten
	if !ok || n < first {
		n, gap = first, true
	}
	return slices.Clone(l.messages[n-first:]), l.id(l.count), gap
}

// last returns the id of the channel's last message.
func (h *history) last(channel string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.log(channel)
	return l.id(l.count)
}
