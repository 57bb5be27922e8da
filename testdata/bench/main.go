// Command bench measures the app under Viceroy against others: itself with one sandbox for each
// request, and any compiled kits. It takes a few minutes, and wants a machine that does nothing else.
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
	flag.StringVar(&o.viceroy, "viceroy", "", "serve with the Viceroy of this `path`, and not with the one that make tools finds")
	workloads := flag.String("workloads", ".", "measure only the workloads whose name matches this `regexp`")
	flag.IntVar(&o.rounds, "rounds", 6, "how often each contender is measured, in turn with the others")
	flag.IntVar(&o.clients, "clients", 8, "how many clients send at the same time, each one request after the other")
	flag.DurationVar(&o.warmup, "warmup", 400*time.Millisecond, "how long a workload runs before it is measured")
	flag.DurationVar(&o.duration, "duration", 1200*time.Millisecond, "how long each workload is measured, in each round")
	flag.StringVar(&o.jsonFile, "json", "", "write the figures to this `file`, as JSON")
	flag.StringVar(&o.svgFile, "plot", "", "write a bar chart to this `file`, as SVG")
	flag.Parse()
	o.peers = strings.Fields(*peers)
	var err error
	if o.workloads, err = regexp.Compile(*workloads); err != nil || flag.NArg() > 0 || o.rounds < 1 || o.clients < 1 || o.duration <= 0 || o.warmup < 0 {
		fmt.Fprintln(os.Stderr, "bench: a number, duration, regexp or argument is not as these flags have it:", err)
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

// bench measures each contender on each workload, and prints the figures. It returns an error if
// there is a row without figures, as it had errors.
func bench(ctx context.Context, o options) error {
	tools, m, err := chain.Prepare(ctx, "") // each contender has ports of its own
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
	contenders, err := prepare(ctx, tools, dir, o.peers)
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

	report := newReport(ctx, o, tools, contenders, selected)
	os.Unsetenv("RUST_BACKTRACE") // Viceroy would collect one for each sandbox that ends
	began := time.Now()
	for _, c := range contenders {
		fmt.Fprintf(os.Stderr, "%4.0f s  start %s\n", time.Since(began).Seconds(), c.name)
		if err := c.serve(ctx, tools); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for round := range o.rounds {
		for _, w := range selected {
			fmt.Fprintf(os.Stderr, "%4.0f s  round %d of %d: %s: requests/s", time.Since(began).Seconds(), round+1, o.rounds, w.name)
			for i := range contenders {
				c := contenders[(i+round)%len(contenders)] // no one always comes after the same other
				f, err := c.measure(ctx, o, w)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", c.name, w.name, err)
				}
				report.add(c, w, f)
				fmt.Fprintf(os.Stderr, "; %s %.0f", c.name, f.rate())
			}
			fmt.Fprintln(os.Stderr)
		}
	}
	return report.write(o)
}
