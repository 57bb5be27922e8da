package main

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// presenceTTL is how long a client counts as connected after its last request. Each
// held connection leads to another request sooner than that.
const presenceTTL = 45 * time.Second

const maxPresent = 10_000 // clients that count as connected, on all channels

// presence records which clients are connected, and how. It sees requests, not
// connections: when a WebSocket ends, there is an event, but a stream or a long-poll
// just has no more requests.
type presence struct {
	mu   sync.Mutex
	last map[present]time.Time
}

type present struct {
	channel   string
	Name      string `json:"name"`
	Transport string `json:"transport"` // "stream", "events", "poll" or "socket"
}

func (p *presence) seen(c client, transport string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who := present{c.channel, c.name, transport}
	if len(p.last) == maxPresent {
		p.purge()
	}
	if _, here := p.last[who]; c.name != "" && (here || len(p.last) < maxPresent) {
		p.last[who] = time.Now()
	}
}

// purge removes clients without a recent request. The caller has locked p.mu.
func (p *presence) purge() {
	maps.DeleteFunc(p.last, func(_ present, at time.Time) bool {
		return time.Since(at) > presenceTTL
	})
}

func (p *presence) gone(c client, transport string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, present{c.channel, c.name, transport})
}

// on returns the clients that are connected to the channel, sorted by name.
func (p *presence) on(channel string) []present {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.purge()
	here := []present{}
	for who := range p.last {
		if who.channel == channel {
			here = append(here, who)
		}
	}
	slices.SortFunc(here, func(a, b present) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Transport, b.Transport))
	})
	return here
}

// who answers with a list of the connected clients.
func (o *origin) who(w http.ResponseWriter, r *http.Request) {
	if c, ok := parseClient(w, r); ok {
		writeJSON(w, o.presence.on(c.channel))
	}
}
