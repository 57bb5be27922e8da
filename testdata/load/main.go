// Command load opens thousands of event streams and WebSockets, publishes to them, and checks every connection
// and every message. It does so twice: directly to Pushpin, and through the app. The difference shows what the
// app loses itself. If the app loses anything, load exits with an error. It connects to this machine only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
	"compute-starter-kit-go-fanout-forward/testdata/clients"
)

// maxClients limits the connections of a run. Each needs a client port for the app, and another one for
// Pushpin. Linux has 28,232 client ports.
const maxClients = 25_000

// load says what each run does.
type load struct {
	streams, sockets  int
	messages, subsets int // how many to all clients, and how many to random subsets
	rate              int // connections opened in a second
	deliveries        int // messages that all clients together get in a second; Pushpin's limit is 2,500
}

func (l load) clients() int { return l.streams + l.sockets }

func main() {
	var l load
	addr := flag.String("addr", chain.DefaultAddr, "where the app listens, 127.0.0.1:`port`")
	flag.IntVar(&l.streams, "streams", 2000, "how many event streams to open")
	flag.IntVar(&l.sockets, "sockets", 2000, "how many WebSockets to open")
	flag.IntVar(&l.messages, "messages", 50, "how many messages to publish to all clients")
	flag.IntVar(&l.subsets, "subsets", 20, "how many messages to publish to random subsets of the clients")
	flag.IntVar(&l.rate, "rate", 100, "how many connections to open in a second")
	flag.IntVar(&l.deliveries, "deliveries", 2000, "how many messages all clients together get in a second, at most 2500")
	origin := flag.String("origin", "", "for load itself: be its origin, at this `host:port`")
	flag.Parse()
	if *origin != "" {
		log.Fatal(http.ListenAndServe(*origin, http.HandlerFunc(clients.Origin)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := l.run(ctx, *addr); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "\nload: interrupted")
			os.Exit(130) // what shells report for a Ctrl-C
		}
		fmt.Fprintf(os.Stderr, "\nload: %v\n", err)
		os.Exit(1)
	}
}

func (l load) run(ctx context.Context, addr string) error {
	defer chain.StopAll()
	if err := l.check(addr); err != nil {
		return err
	}
	if err := allowFiles(uint64(2*l.clients() + 500)); err != nil { // Viceroy has two for each client
		return err
	}
	tools, m, err := chain.Prepare(ctx, addr)
	if err != nil {
		return err
	}
	// Viceroy sends this header with the backend's name, and Pushpin chooses the route by it.
	route := http.Header{"Pushpin-Route": {"origin"}}
	runs := []*run{
		{load: l, name: "directly to Pushpin", target: net.JoinHostPort("127.0.0.1", fmt.Sprint(m.ProxyPort)), header: route, numbers: map[string]int{}},
		{load: l, name: "through the app", target: addr, numbers: map[string]int{}},
	}
	fmt.Printf("load: %d event streams and %d WebSockets, %d opened in a second; %d messages to all, %d to random subsets\n",
		l.streams, l.sockets, l.rate, l.messages, l.subsets)
	for _, run := range runs {
		if err := run.do(ctx, tools, m, addr); err != nil {
			return fmt.Errorf("%s: %w", run.name, err)
		}
	}
	printTable(os.Stdout, runs)
	if err := judge(runs[0], runs[1]); err != nil {
		return err
	}
	fmt.Println("\nThe app itself lost nothing")
	return nil
}

func (l load) check(addr string) error {
	if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
		return fmt.Errorf("-addr %q is not 127.0.0.1:port: load connects to this machine only", addr)
	}
	if l.streams < 0 || l.sockets < 0 || l.clients() < 1 || l.clients() > maxClients {
		return fmt.Errorf("-streams and -sockets make %d connections: 1 to %d are possible", l.clients(), maxClients)
	}
	if l.messages < 1 || l.messages > 1000 || l.subsets < 0 || l.subsets > 1000 {
		return errors.New("-messages takes 1 to 1000, -subsets 0 to 1000")
	}
	if l.rate < 1 || l.deliveries < 1 || l.deliveries > 2500 {
		return errors.New("-rate takes 1 or more, -deliveries 1 to 2500: Pushpin drops messages beyond that")
	}
	return nil
}

// allowFiles raises the limit of open files for this process and for those that it starts.
func allowFiles(need uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Max < need {
		return fmt.Errorf("a process needs %d open files, and the system allows %d: raise that (ulimit -Hn %[1]d, as root), or open fewer connections (LOAD='-streams N -sockets N')", need, limit.Max)
	}
	// Set it even if it is high enough: when Go raised it at the start, child processes still get the old limit.
	limit.Cur = max(need, min(limit.Cur, limit.Max))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("allow %d open files in a process: %w", limit.Cur, err)
	}
	return nil
}

// judge returns an error if the app loses anything. It also returns one if the run directly to Pushpin, the
// control, loses too much to compare with.
func judge(control, app *run) error {
	if held := control.opened - control.dropped; held < control.clients()*99/100 || control.delivered < control.expected*99/100 {
		return fmt.Errorf("directly to Pushpin, only %d of %d connections stayed open and only %d of %d messages arrived, too few to compare with: open fewer, or more slowly (LOAD='-rate %d'); the logs are %s and %s",
			held, control.clients(), control.delivered, control.expected, max(1, control.rate/2), control.log, app.log)
	}
	if share := app.unexplained() - control.unexplained(); share > 0 {
		return fmt.Errorf("the app itself lost %d connections or messages, which Pushpin's log does not explain; see %s", share, app.log)
	}
	return nil
}

// deadline limits the time of a run: twice the planned time, and three minutes for a slow machine.
func (l load) deadline() time.Duration {
	opening := time.Duration(l.clients()/l.rate) * time.Second
	publishing := time.Duration(l.clients()*(l.messages+l.subsets)/l.deliveries) * time.Second
	return 2*(opening+publishing) + 3*time.Minute
}
