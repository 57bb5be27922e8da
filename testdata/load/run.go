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

// channels are all the channels. Each client subscribes to one of them, at random. One publish request sends a
// message to all of the channels, or to some, for a random subset of the clients.
var channels = []string{"load-0", "load-1", "load-2", "load-3", "load-4", "load-5", "load-6", "load-7", "load-8", "load-9"}

// some returns n random channels.
func some(n int) []string {
	var some []string
	for _, i := range rand.Perm(len(channels))[:n] {
		some = append(some, channels[i])
	}
	return some
}

// run is one of the two runs of the load, with its result.
type run struct {
	load
	name   string
	target string      // where the clients connect, host:port
	header http.Header // of the clients' requests
	log    string      // the path of the file with the output of the Fastly CLI, Viceroy, Pushpin and the origin

	publisher *grip.Config
	numbers   map[string]int // the number of the last message to each channel
	usage     usage

	mu       sync.Mutex
	held     []*clients.Client
	refusals []error

	outcome
}

// pushpinLogs is the directory of Pushpin's logs. The Fastly CLI chooses it.
const pushpinLogs = "pushpin-logs"

// outcome is the result of a run.
type outcome struct {
	opened, refused int // connections
	dropped         int // connections that ended before their client closed them
	byPushpin       int // connections that Pushpin itself refused or dropped, according to its log
	expected        int // messages for the connections that were opened
	delivered       int
	missing         int // messages that did not arrive, on connections that stayed open
	duplicates      int // messages that arrived a second time
	outOfOrder      int // messages that arrived after a later one
	latency         *hdrhistogram.Histogram
}

// unexplained counts the losses and errors that Pushpin's log does not explain.
func (o outcome) unexplained() int {
	return max(0, o.refused+o.dropped-o.byPushpin) + o.missing + o.duplicates + o.outOfOrder
}

// do starts the app and an origin, runs the load, and stops them.
func (r *run) do(ctx context.Context, tools toolchain.Tools, m chain.Manifest, addr string) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.deadline(), fmt.Errorf("the run took longer than %v", r.deadline()))
	defer cancel()
	if r.publisher, err = grip.ParseURL(m.GripURL(), ""); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r.log = filepath.Join(filepath.Dir(self), "load-"+r.target+".log")
	log, err := os.Create(r.log)
	if err != nil {
		return err
	}
	defer log.Close()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; the log is %s", err, r.log)
		}
	}()

	if err := os.RemoveAll(pushpinLogs); err != nil {
		return err
	}
	fmt.Printf("\n%s (%s):\n", r.name, r.target)
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

	r.usage.watch(origin, app)
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watching.Go(func() { r.watch(ctx) })

	if err := r.open(ctx); err != nil {
		return err
	}
	if err := r.publish(ctx); err != nil {
		return err
	}
	r.await(ctx)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	r.sum()
	stop()
	for _, c := range r.held {
		c.Leave()
	}
	return r.countByPushpin()
}

// watch prints the progress, and samples the use of memory and files, until ctx ends.
func (r *run) watch(ctx context.Context) {
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		r.usage.sample()
		if i%5 == 4 {
			o := r.count()
			fmt.Printf("  open %d of %d, refused %d, dropped %d; messages delivered %d of %d\n",
				o.opened-o.dropped, r.clients(), o.refused, o.dropped, o.delivered, o.expected)
		}
	}
}

// open opens the connections at a steady rate, with the two kinds mixed. It returns when messages reach all of the
// open connections.
func (r *run) open(ctx context.Context) error {
	tick := time.NewTicker(time.Second / time.Duration(r.rate))
	defer tick.Stop()
	var opening sync.WaitGroup
	streams := r.streams
	for i := range r.clients() {
		select {
		case <-ctx.Done():
			opening.Wait()
			return context.Cause(ctx)
		case <-tick.C:
		}
		kind := clients.Socket
		if left := r.clients() - i; streams*2 >= left { // keeps the proportion of the two kinds until the end
			kind, streams = clients.Stream, streams-1
		}
		opening.Go(func() {
			c, err := clients.Open(ctx, kind, r.target, "/"+string(kind), some(1)[0], r.header)
			r.mu.Lock()
			defer r.mu.Unlock()
			if err != nil {
				r.refusals = append(r.refusals, err)
			} else {
				r.held = append(r.held, c)
			}
		})
	}
	opening.Wait()
	settling, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := clients.Settle(settling, r.held, r.pace(len(r.held)), func() error { return r.send(settling, channels, true) })
	if ctx.Err() == nil && settling.Err() != nil {
		return nil // messages that do not arrive are counted later, as missing
	}
	return err
}

// pace returns the time for a number of deliveries.
func (r *run) pace(deliveries int) time.Duration {
	return time.Duration(deliveries) * time.Second / time.Duration(r.deliveries)
}

// send publishes the next message of each of these channels, or, with zero, the message 0.
func (r *run) send(ctx context.Context, to []string, zero bool) error {
	var items []grip.Item
	r.mu.Lock()
	for _, channel := range to {
		n := 0
		if !zero {
			r.numbers[channel]++
			n = r.numbers[channel]
		}
		items = append(items, clients.Message(channel, n, 64))
	}
	r.mu.Unlock()
	return r.publisher.Publish(ctx, items...)
}

// publish publishes all the messages, in a random order, and no faster than Pushpin delivers them.
func (r *run) publish(ctx context.Context) error {
	members := map[string]int{}
	for _, c := range r.held {
		members[c.Channel]++
	}
	for _, i := range rand.Perm(r.messages + r.subsets) {
		to := channels
		if i >= r.messages {
			to = some(1 + rand.IntN(len(channels)/2))
		}
		if err := r.send(ctx, to, false); err != nil {
			return err
		}
		deliveries := 0
		for _, channel := range to {
			deliveries += members[channel]
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(r.pace(deliveries)):
		}
	}
	return nil
}

// await waits until every message has arrived, or until no message has arrived for fifteen seconds.
func (r *run) await(ctx context.Context) {
	const quiet = 15 * time.Second
	for last, since := -1, time.Now(); time.Since(since) < quiet; {
		o := r.count()
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

// count counts the connections and messages so far. It does not check each message; sum does.
func (r *run) count() outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := outcome{opened: len(r.held), refused: len(r.refusals)}
	for _, c := range r.held {
		if c.Err() != nil {
			o.dropped++
		}
		for _, a := range c.Arrivals() {
			if a.N > 0 {
				o.delivered++
			}
		}
		o.expected += r.numbers[c.Channel]
	}
	return o
}

// sum compares the messages that each client got with those published to its channel.
func (r *run) sum() {
	r.outcome = outcome{opened: len(r.held), refused: len(r.refusals), latency: hdrhistogram.New(1, time.Minute.Microseconds(), 3)}
	for _, c := range r.held {
		want := r.numbers[c.Channel]
		r.expected += want
		seen := make([]bool, want+1)
		last := 0
		for _, a := range c.Arrivals() {
			switch {
			case a.N == 0:
				continue
			case seen[a.N]:
				r.duplicates++
				continue
			case a.N < last:
				r.outOfOrder++
			}
			seen[a.N], last = true, max(last, a.N)
			r.delivered++
			r.latency.RecordValue(min(a.Latency.Microseconds(), r.latency.HighestTrackableValue()))
			want--
		}
		if c.Err() != nil {
			r.dropped++
		} else {
			r.missing += want
		}
	}
}

// byPushpin matches two kinds of line in Pushpin's log. One is a connection, with its id, that Pushpin drops because
// messages between its own processes arrived in the wrong order; in 1.36 that happens when connections open in a
// burst. The other is a client's request that Pushpin answers with its own error.
var byPushpin = regexp.MustCompile(`z(?:http|ws) server: error id=(\S+) received message out of sequence|^\[INFO\].* code=5\d\d `)

// countByPushpin counts what Pushpin's logs of this run say. Then it removes the logs, which have hundreds of MiB.
func (r *run) countByPushpin() error {
	logs, _ := filepath.Glob(filepath.Join(pushpinLogs, "*proxy*.log"))
	if len(logs) == 0 {
		return fmt.Errorf("read Pushpin's log: there is no *proxy*.log in %s", pushpinLogs)
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
				r.byPushpin++
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	r.byPushpin += len(dropped)
	return os.RemoveAll(pushpinLogs)
}
