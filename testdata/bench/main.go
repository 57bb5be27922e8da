// Command bench compares implementations of this app, in Viceroy: the app itself, the app with one sandbox
// for each request, and any compiled kits. It takes a few minutes. The machine should do nothing else.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
)

type options struct {
	peers             []string
	viceroy           string
	rounds, clients   int
	warmup, duration  time.Duration
	workloads         *regexp.Regexp
	jsonFile, svgFile string
}

func main() {
	var o options
	peers := flag.String("peers", "", "compiled kits to measure too: .wasm `files`, or directories of them, separated by spaces")
	flag.StringVar(&o.viceroy, "viceroy", "", "use the Viceroy at this `path`, in place of the one that make tools finds")
	workloads := flag.String("workloads", ".", "measure only the workloads whose name matches this `regexp`")
	flag.IntVar(&o.rounds, "rounds", 6, "how many rounds to measure; each round measures every implementation once")
	flag.IntVar(&o.clients, "clients", 8, "how many clients send requests at the same time, each one request after another")
	flag.DurationVar(&o.warmup, "warmup", 400*time.Millisecond, "how long each workload runs before the measurement")
	flag.DurationVar(&o.duration, "duration", 1200*time.Millisecond, "how long each measurement takes")
	flag.StringVar(&o.jsonFile, "json", "", "write the figures to this `file`, as JSON")
	flag.StringVar(&o.svgFile, "plot", "", "write a bar chart to this `file`, as SVG")
	flag.Parse()
	o.peers = strings.Fields(*peers)
	var err error
	if o.workloads, err = regexp.Compile(*workloads); err != nil || flag.NArg() > 0 || o.rounds < 1 || o.clients < 1 || o.duration <= 0 || o.warmup < 0 {
		fmt.Fprintln(os.Stderr, "bench: a flag has a value that is not possible, or there is an argument without a flag:", err)
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := bench(ctx, o); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "\nbench: interrupted")
			os.Exit(130) // what shells report for a Ctrl-C
		}
		fmt.Fprintln(os.Stderr, "\nbench:", err)
		os.Exit(1)
	}
}

// bench measures each implementation on each workload, and prints the figures. It returns an error if
// any request failed; that row of the table then has no figures.
func bench(ctx context.Context, o options) error {
	tools, m, err := chain.Prepare(ctx, "") // each implementation gets its own ports
	if err != nil {
		return err
	}
	if o.viceroy != "" {
		if tools.Viceroy, err = filepath.Abs(o.viceroy); err != nil {
			return fmt.Errorf("VICEROY: %w", err)
		}
		if out, err := exec.CommandContext(ctx, tools.Viceroy, "--version").Output(); err != nil || !bytes.HasPrefix(out, []byte("viceroy ")) {
			return fmt.Errorf("VICEROY: %s --version printed %q, %v: give the path of a Viceroy", tools.Viceroy, out, err)
		}
	}
	defer chain.StopAll()
	dir, err := chain.TempDir()
	if err != nil {
		return err
	}
	implementations, err := prepare(ctx, tools, dir, o.peers)
	if err != nil {
		return err
	}
	selected := slices.DeleteFunc(slices.Clone(workloads), func(w workload) bool { return !o.workloads.MatchString(w.name) })

	listener, err := net.Listen("tcp", m.Origin)
	if err != nil {
		return fmt.Errorf("the origin: %w", err)
	}
	go serveOrigin(listener)
	defer listener.Close()

	report := newReport(ctx, o, tools, implementations, selected)
	os.Unsetenv("RUST_BACKTRACE") // else Viceroy makes a backtrace for each sandbox that ends
	began := time.Now()
	for _, impl := range implementations {
		fmt.Fprintf(os.Stderr, "%4.0f s  start %s\n", time.Since(began).Seconds(), impl.name)
		if err := impl.serve(ctx, tools); err != nil {
			return fmt.Errorf("%s: %w", impl.name, err)
		}
	}
	for round := range o.rounds {
		for _, w := range selected {
			fmt.Fprintf(os.Stderr, "%4.0f s  round %d of %d: %s: requests/s", time.Since(began).Seconds(), round+1, o.rounds, w.name)
			for i := range implementations {
				impl := implementations[(i+round)%len(implementations)] // each round in another order
				f, err := impl.measure(ctx, o, w)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", impl.name, w.name, err)
				}
				report.add(impl, w, f)
				fmt.Fprintf(os.Stderr, "; %s %.0f", impl.name, f.rate())
			}
			fmt.Fprintln(os.Stderr)
		}
	}
	return report.write(o)
}
