// Command bench compares the app with other compiled apps, in Viceroy. All of them run from the
// start. In each round they take turns of a second or two, and all but one are suspended. So a
// change in the speed of the machine affects all of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

var (
	viceroy  = flag.String("viceroy", "", "use the Viceroy at this `path`, instead of the one that make tools finds")
	jsonFile = flag.String("json", "", "write the figures to this `file`, as JSON")
	rounds   = flag.Int("rounds", 6, "how many rounds to measure")
	clients  = flag.Int("clients", 8, "how many clients send requests at the same time, each one request after another")
	duration = flag.Duration("duration", 1200*time.Millisecond, "how long each measurement takes")
	only     = flag.String("workloads", ".", "measure only the workloads whose names match this `regexp`")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := bench(ctx); ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "\nbench: interrupted")
		os.Exit(130) // what shells report for a Ctrl-C
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "\nbench:", err)
		os.Exit(1)
	}
}

// bench measures bin/main.wasm and its peers, and prints the table.
func bench(ctx context.Context) error {
	selected := slices.DeleteFunc(workloads, func(w workload) bool {
		matched, _ := regexp.MatchString(*only, w.name)
		return !matched
	})
	if *rounds < 1 || *clients < 1 || *duration <= 0 || len(selected) == 0 {
		return fmt.Errorf("-rounds, -clients and -duration must be greater than 0, and -workloads must match one of the names")
	}
	tools, manifest, err := local.Prepare(ctx, "") // each implementation gets ports of its own
	if err != nil {
		return err
	}
	var path string // printed, because a Viceroy of the same version may have other limits
	if *viceroy != "" {
		tools.Viceroy, _ = filepath.Abs(*viceroy)
		if err := exec.CommandContext(ctx, tools.Viceroy, "--version").Run(); err != nil {
			return fmt.Errorf("VICEROY: %s --version: %w", tools.Viceroy, err)
		}
		path = " (" + tools.Viceroy + ")"
	}
	listener, err := net.Listen("tcp", manifest.Origin)
	if err != nil {
		return fmt.Errorf("start the origin: %w", err)
	}
	go http.Serve(listener, http.HandlerFunc(origin))

	defer local.StopAll()
	if _, err := local.TempDir(); err != nil {
		return err
	}
	os.Unsetenv("RUST_BACKTRACE") // otherwise Viceroy makes a backtrace for each sandbox that ends
	var implementations []*implementation
	for _, path := range append([]string{"bin/main.wasm"}, flag.Args()...) {
		files, _ := filepath.Glob(filepath.Join(path, "*.wasm"))
		if len(files) == 0 {
			files = []string{path} // not a directory
		}
		for _, file := range files {
			impl, err := serve(ctx, tools, file)
			if err != nil {
				return fmt.Errorf("serve %s: %w", file, err)
			}
			implementations = append(implementations, impl)
		}
	}
	implementations[0].name = "app"

	n := len(implementations)
	rows := make([]row, len(selected)*n)
	for round := range *rounds {
		for i, w := range selected {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, *rounds, w.name)
			for turn := range n {
				turn = (turn + round) % n // another order in each round
				impl, r := implementations[turn], &rows[i*n+turn]
				f, err := impl.measure(ctx, w)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					r.Error = err.Error()
				}
				r.Workload, r.Implementation = w.name, impl.name
				r.rounds = append(r.rounds, f)
			}
		}
	}
	return report(os.Stdout, *jsonFile, rows, n,
		fmt.Sprintf("%s, %s/%s, %d CPUs, %s", time.Now().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
		tools.Versions(ctx)+path,
		fmt.Sprintf("Medians of %d rounds of %v with %d clients; x: ratio to the app", *rounds, *duration, *clients))
}
