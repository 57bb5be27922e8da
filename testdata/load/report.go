package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
)

// usage keeps, for each program, the most memory and open files that it had: the Fastly CLI, Viceroy, Pushpin's parts and
// the origin.
type usage struct {
	programs map[string]*process.Process

	mu   sync.Mutex
	most map[string]used
}

type used struct {
	memory uint64 // resident, in bytes
	files  int32  // open
}

func (u *usage) watch(origin, app *chain.Process) {
	u.programs, u.most = map[string]*process.Process{}, map[string]used{}
	for _, p := range app.Tree() {
		name, _ := p.Name()
		u.programs[name] = p
	}
	for _, p := range origin.Tree() {
		u.programs["origin"] = p
	}
}

func (u *usage) sample() {
	for name, p := range u.programs {
		memory, err := p.MemoryInfo()
		if err != nil {
			continue // the program has ended
		}
		files, _ := p.NumFDs() // not every system reports it
		u.mu.Lock()
		most := u.most[name]
		u.most[name] = used{max(most.memory, memory.RSS), max(most.files, files)}
		u.mu.Unlock()
	}
}

func (u *usage) of(name string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if most, ok := u.most[name]; ok {
		return fmt.Sprintf("%d MiB, %d files", most.memory>>20, most.files)
	}
	return "-"
}

// printTable prints the results of the runs, side by side.
func printTable(out io.Writer, runs []*run) {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name string, value func(*run) string) {
		fmt.Fprint(table, name)
		for _, r := range runs {
			fmt.Fprint(table, "\t", value(r))
		}
		fmt.Fprintln(table)
	}
	number := func(name string, value func(*run) int) {
		row(name, func(r *run) string { return fmt.Sprint(value(r)) })
	}
	latency := func(name string, percentile float64) {
		row(name, func(r *run) string {
			d := time.Duration(r.latency.ValueAtPercentile(percentile)) * time.Microsecond
			return d.Round(time.Millisecond).String()
		})
	}
	fmt.Fprintln(table)
	row("", func(r *run) string { return r.name })
	row("connections opened", func(r *run) string { return fmt.Sprintf("%d of %d", r.opened, r.clients()) })
	number("refused", func(r *run) int { return r.refused })
	number("dropped", func(r *run) int { return r.dropped })
	number("  refused or dropped by Pushpin itself", func(r *run) int { return r.byPushpin })
	row("messages delivered", func(r *run) string { return fmt.Sprintf("%d of %d", r.delivered, r.expected) })
	number("missing, on connections that stayed open", func(r *run) int { return r.missing })
	number("duplicates", func(r *run) int { return r.duplicates })
	number("out of order", func(r *run) int { return r.outOfOrder })
	latency("publish to arrival, p50", 50)
	latency("  p99", 99)
	latency("  max", 100)
	programs := map[string]bool{}
	for _, r := range runs {
		for name := range r.usage.most {
			programs[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		row("most used by "+name, func(r *run) string { return r.usage.of(name) })
	}
	table.Flush()
	for _, r := range runs {
		for _, err := range r.refusals[:min(3, len(r.refusals))] {
			fmt.Fprintf(out, "%s, refused: %v\n", r.name, err)
		}
	}
}
