package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
	"compute-starter-kit-go-fanout-forward/testdata/clients"
	"compute-starter-kit-go-fanout-forward/testdata/grip"
	"compute-starter-kit-go-fanout-forward/testdata/toolchain"
)

// channels are those that there are. A client is on one of them, at random: a message to all is
// published to each, in one request, and a message to a subset to some.
var channels = []string{"load-0", "load-1", "load-2", "load-3", "load-4", "load-5", "load-6", "load-7", "load-8", "load-9"}

// some returns n of the channels, at random.
func some(n int) []string {
	var some []string
	for _, i := range rand.Perm(len(channels))[:n] {
		some = append(some, channels[i])
	}
	return some
}

// leg is one of the two runs, and what comes of it.
type leg struct {
	load
	name   string
	target string      // where the clients connect, host:port
	header http.Header // what they send with their requests
	log    string      // the file with what the programs of the chain print

	publisher *grip.Config
	numbers   map[string]int // the number of the last message to each channel
	usage     usage

	mu       sync.Mutex
	held     []*clients.Client
	refusals []error

	outcome
}

// pushpinLogs is where the Fastly CLI has Pushpin log.
const pushpinLogs = "pushpin-logs"

// outcome is what a leg comes to.
type outcome struct {
	opened, refused    int // connections
	dropped            int // connections that ended before their client left
	byPushpin          int // how many connections Pushpin itself refused or dropped, as its log has it
	expected           int // messages to those that were opened
	delivered          int
	missing            int // messages that did not come on connections that lived on
	duplicates, astray int // messages that came again, and out of order
	latency            *hdrhistogram.Histogram
}

// unexplained counts what was lost or wrong, less what Pushpin's log accounts for.
func (o outcome) unexplained() int {
	return max(0, o.refused+o.dropped-o.byPushpin) + o.missing + o.duplicates + o.astray
}

// run starts the chain and an origin, does the load, and ends them.
func (l *leg) run(ctx context.Context, tools toolchain.Tools, m chain.Manifest, addr string) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.deadline(), fmt.Errorf("it took longer than %v", l.deadline()))
	defer cancel()
	if l.publisher, err = grip.ParseURL(m.GripURL(), ""); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	l.log = filepath.Join(filepath.Dir(self), "load-"+l.target+".log")
	log, err := os.Create(l.log)
	if err != nil {
		return err
	}
	defer log.Close()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; the log is %s", err, l.log)
		}
	}()

	if err := os.RemoveAll(pushpinLogs); err != nil {
		return err
	}
	fmt.Printf("\n%s (%s):\n", l.name, l.target)
	origin, err := chain.Origin(ctx, exec.Command(self, "-origin", m.Origin), m, log)
	if err != nil {
		return err
	}
	defer origin.Stop()
	app, err := chain.Serve(ctx, tools, ".", addr, log)
	if err != nil {
		return err
	}
	defer app.Stop()

	l.usage.watch(origin, app)
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watching.Go(func() { l.watch(ctx) })

	if err := l.open(ctx); err != nil {
		return err
	}
	if err := l.publish(ctx); err != nil {
		return err
	}
	l.await(ctx)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	l.sum()
	stop()
	for _, c := range l.held {
		c.Leave()
	}
	return l.countByPushpin()
}

// watch prints how it goes, and notes what the programs use, until ctx ends.
func (l *leg) watch(ctx context.Context) {
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		l.usage.sample()
		if i%5 == 4 {
			o := l.count()
			fmt.Printf("  open %d of %d, refused %d, dropped %d; messages delivered %d of %d\n",
				o.opened-o.dropped, l.clients(), o.refused, o.dropped, o.delivered, o.expected)
		}
	}
}

// open opens the connections, at a steady rate and the two kinds in turn, and returns once messages
// reach all those that are open.
func (l *leg) open(ctx context.Context) error {
	tick := time.NewTicker(time.Second / time.Duration(l.rate))
	defer tick.Stop()
	var opening sync.WaitGroup
	streams := l.streams
	for i := range l.clients() {
		select {
		case <-ctx.Done():
			opening.Wait()
			return context.Cause(ctx)
		case <-tick.C:
		}
		kind := clients.Socket
		if left := l.clients() - i; streams*2 >= left { // the two kinds in proportion, to the last
			kind, streams = clients.Stream, streams-1
		}
		opening.Go(func() {
			c, err := clients.Open(ctx, kind, l.target, "/"+string(kind), some(1)[0], l.header)
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				l.refusals = append(l.refusals, err)
			} else {
				l.held = append(l.held, c)
			}
		})
	}
	opening.Wait()
	settling, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := clients.Settle(settling, l.held, l.pace(len(l.held)), func() error { return l.send(settling, channels, true) })
	if ctx.Err() == nil && settling.Err() != nil {
		return nil // what does not get there counts as missing
	}
	return err
}

// pace is how long a number of deliveries takes.
func (l *leg) pace(deliveries int) time.Duration {
	return time.Duration(deliveries) * time.Second / time.Duration(l.deliveries)
}

// send publishes to each of the channels its next message, or the message 0.
func (l *leg) send(ctx context.Context, to []string, zero bool) error {
	var items []grip.Item
	l.mu.Lock()
	for _, channel := range to {
		n := 0
		if !zero {
			l.numbers[channel]++
			n = l.numbers[channel]
		}
		items = append(items, clients.Message(channel, n, 64))
	}
	l.mu.Unlock()
	return l.publisher.Publish(ctx, items...)
}

// publish publishes all the messages, in a random order, no faster than Pushpin delivers them.
func (l *leg) publish(ctx context.Context) error {
	members := map[string]int{}
	for _, c := range l.held {
		members[c.Channel]++
	}
	for _, i := range rand.Perm(l.messages + l.subsets) {
		to := channels
		if i >= l.messages {
			to = some(1 + rand.IntN(len(channels)/2))
		}
		if err := l.send(ctx, to, false); err != nil {
			return err
		}
		deliveries := 0
		for _, channel := range to {
			deliveries += members[channel]
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(l.pace(deliveries)):
		}
	}
	return nil
}

// await waits until everything has arrived, or nothing has for fifteen seconds.
func (l *leg) await(ctx context.Context) {
	const quiet = 15 * time.Second
	for last, since := -1, time.Now(); time.Since(since) < quiet; {
		o := l.count()
		if o.delivered >= o.expected {
			return
		}
		if o.delivered != last {
			last, since = o.delivered, time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// count counts what has happened until now. Only sum looks at every message.
func (l *leg) count() outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := outcome{opened: len(l.held), refused: len(l.refusals)}
	for _, c := range l.held {
		if c.Err() != nil {
			o.dropped++
		}
		for _, a := range c.Arrivals() {
			if a.N > 0 {
				o.delivered++
			}
		}
		o.expected += l.numbers[c.Channel]
	}
	return o
}

// sum holds what each client got to what was published to its channel.
func (l *leg) sum() {
	l.outcome = outcome{opened: len(l.held), refused: len(l.refusals), latency: hdrhistogram.New(1, time.Minute.Microseconds(), 3)}
	for _, c := range l.held {
		want := l.numbers[c.Channel]
		l.expected += want
		seen := make([]bool, want+1)
		last := 0
		for _, a := range c.Arrivals() {
			switch {
			case a.N == 0:
				continue
			case seen[a.N]:
				l.duplicates++
				continue
			case a.N < last:
				l.astray++
			}
			seen[a.N], last = true, max(last, a.N)
			l.delivered++
			l.latency.RecordValue(min(a.Latency.Microseconds(), l.latency.HighestTrackableValue()))
			want--
		}
		if c.Err() != nil {
			l.dropped++
		} else {
			l.missing += want
		}
	}
}

// byPushpin is what Pushpin logs of a connection, by its id, that it drops because the messages between
// its own processes overtook each other, as those of 1.36 do when connections open in a burst; and of a
// client's request that it answers with an error of its own.
var byPushpin = regexp.MustCompile(`z(?:http|ws) server: error id=(\S+) received message out of sequence|^\[INFO\].* code=5\d\d `)

// countByPushpin reads Pushpin's logs, of this leg alone. It removes them: they are hundreds of MiB.
func (l *leg) countByPushpin() error {
	logs, _ := filepath.Glob(filepath.Join(pushpinLogs, "*proxy*.log"))
	if len(logs) == 0 {
		return fmt.Errorf("find Pushpin's log: there is no *proxy*.log in %s", pushpinLogs)
	}
	dropped := map[string]bool{}
	for _, path := range logs {
		log, err := os.Open(path)
		if err != nil {
			return err
		}
		defer log.Close()
		lines := bufio.NewScanner(log)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if match := byPushpin.FindSubmatch(lines.Bytes()); match != nil && match[1] != nil {
				dropped[string(match[1])] = true
			} else if match != nil {
				l.byPushpin++
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	l.byPushpin += len(dropped)
	return os.RemoveAll(pushpinLogs)
}
