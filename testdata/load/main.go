// Command load holds thousands of event streams and WebSockets open through the whole chain, publishes
// to them, and accounts for every connection and every message. It does so twice: straight to
// Pushpin, and through the app, so that what the app loses is told apart from what Pushpin does. It
// exits with an error if the app loses anything. It talks to this machine only.
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

// maxClients is how many connections a run may have: each takes one of the system's ports for
// clients at the app and one at Pushpin, and Linux has 28,232 of these.
const maxClients = 25_000

// load is what to do to each of the two.
type load struct {
	streams, sockets  int
	messages, subsets int // to all of the clients, and to random subsets of them
	rate              int // connections opened in a second
	deliveries        int // messages that clients get in a second; Pushpin's limit is 2,500
}

func (l load) clients() int { return l.streams + l.sockets }

func main() {
	var l load
	addr := flag.String("addr", chain.DefaultAddr, "where the app is to listen, 127.0.0.1:`port`")
	flag.IntVar(&l.streams, "streams", 2000, "how many event streams to hold")
	flag.IntVar(&l.sockets, "sockets", 2000, "how many WebSockets to hold")
	flag.IntVar(&l.messages, "messages", 50, "how many messages to publish to all of them")
	flag.IntVar(&l.subsets, "subsets", 20, "how many messages to publish to random subsets of them")
	flag.IntVar(&l.rate, "rate", 100, "how many connections to open in a second")
	flag.IntVar(&l.deliveries, "deliveries", 2000, "how many messages the clients get in a second, at most 2500")
	origin := flag.String("origin", "", "be the origin at this `host:port`, which the load starts for itself")
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
	if err := allowFiles(uint64(2*l.clients() + 500)); err != nil { // Viceroy has two for a client
		return err
	}
	tools, m, err := chain.Prepare(ctx, addr)
	if err != nil {
		return err
	}
	// Viceroy names the backend in this header, by which Pushpin chooses the route.
	route := http.Header{"Pushpin-Route": {"origin"}}
	legs := []*leg{
		{load: l, name: "straight to Pushpin", target: net.JoinHostPort("127.0.0.1", fmt.Sprint(m.ProxyPort)), header: route, numbers: map[string]int{}},
		{load: l, name: "through the app", target: addr, numbers: map[string]int{}},
	}
	fmt.Printf("load: %d event streams and %d WebSockets, opened at %d in a second; %d messages to all, %d to random subsets\n",
		l.streams, l.sockets, l.rate, l.messages, l.subsets)
	for _, leg := range legs {
		if err := leg.run(ctx, tools, m, addr); err != nil {
			return fmt.Errorf("%s: %w", leg.name, err)
		}
	}
	printTable(os.Stdout, legs)
	if err := judge(legs[0], legs[1]); err != nil {
		return err
	}
	fmt.Println("\nThe app's own share of the losses: none")
	return nil
}

func (l load) check(addr string) error {
	if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
		return fmt.Errorf("-addr %q is not 127.0.0.1:port: the load stays on this machine", addr)
	}
	if l.streams < 0 || l.sockets < 0 || l.clients() < 1 || l.clients() > maxClients {
		return fmt.Errorf("%d connections: 1 to %d are possible", l.clients(), maxClients)
	}
	if l.messages < 1 || l.messages > 1000 || l.subsets < 0 || l.subsets > 1000 {
		return errors.New("-messages takes 1 to 1000, -subsets 0 to 1000")
	}
	if l.rate < 1 || l.deliveries < 1 || l.deliveries > 2500 {
		return errors.New("-rate takes 1 or more, -deliveries 1 to 2500: Pushpin drops messages beyond that")
	}
	return nil
}

// allowFiles lets this process, and those that it starts, have that many files open.
func allowFiles(need uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Max < need {
		return fmt.Errorf("this takes %d open files in a process, and the system allows %d: raise that (ulimit -Hn %[1]d, as root), or hold fewer connections (LOAD='-streams N -sockets N')", need, limit.Max)
	}
	// Even if it is high enough: what Go itself raises, it does not hand down.
	limit.Cur = max(need, min(limit.Cur, limit.Max))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("allow %d open files in a process: %w", limit.Cur, err)
	}
	return nil
}

// judge returns an error if the app loses anything, or if Pushpin alone loses so much that this
// cannot be told.
func judge(control, app *leg) error {
	if held := control.opened - control.dropped; held < control.clients()*99/100 || control.delivered < control.expected*99/100 {
		return fmt.Errorf("straight to Pushpin, %d of %d connections and %d of %d messages are too few to compare with: open fewer, or more slowly (LOAD='-rate %d'); the logs are %s and %s",
			held, control.clients(), control.delivered, control.expected, max(1, control.rate/2), control.log, app.log)
	}
	if share := app.unexplained() - control.unexplained(); share > 0 {
		return fmt.Errorf("the app's own share of the losses is %d connections or messages, which Pushpin does not account for; see %s", share, app.log)
	}
	return nil
}

// deadline bounds a leg: what it takes by plan, and some for a slow machine.
func (l load) deadline() time.Duration {
	opening := time.Duration(l.clients()/l.rate) * time.Second
	publishing := time.Duration(l.clients()*(l.messages+l.subsets)/l.deliveries) * time.Second
	return 2*(opening+publishing) + 3*time.Minute
}
