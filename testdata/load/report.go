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

// usage is the most that each program of the chain has used at once.
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
			continue // it has ended
		}
		files, _ := p.NumFDs() // not every system tells
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

// printTable prints what the legs came to, side by side.
func printTable(out io.Writer, legs []*leg) {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name string, value func(*leg) string) {
		fmt.Fprint(table, name)
		for _, l := range legs {
			fmt.Fprint(table, "\t", value(l))
		}
		fmt.Fprintln(table)
	}
	number := func(name string, value func(*leg) int) {
		row(name, func(l *leg) string { return fmt.Sprint(value(l)) })
	}
	latency := func(name string, percentile float64) {
		row(name, func(l *leg) string {
			d := time.Duration(l.latency.ValueAtPercentile(percentile)) * time.Microsecond
			return d.Round(time.Millisecond).String()
		})
	}
	fmt.Fprintln(table)
	row("", func(l *leg) string { return l.name })
	row("connections opened", func(l *leg) string { return fmt.Sprintf("%d of %d", l.opened, l.clients()) })
	number("refused", func(l *leg) int { return l.refused })
	number("dropped", func(l *leg) int { return l.dropped })
	number("  refused or dropped by Pushpin itself", func(l *leg) int { return l.byPushpin })
	row("messages delivered", func(l *leg) string { return fmt.Sprintf("%d of %d", l.delivered, l.expected) })
	number("missing where the connection lived on", func(l *leg) int { return l.missing })
	number("duplicates", func(l *leg) int { return l.duplicates })
	number("out of order", func(l *leg) int { return l.astray })
	latency("publish to arrival, p50", 50)
	latency("  p99", 99)
	latency("  max", 100)
	programs := map[string]bool{}
	for _, l := range legs {
		for name := range l.usage.most {
			programs[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		row("most used by "+name, func(l *leg) string { return l.usage.of(name) })
	}
	table.Flush()
	for _, l := range legs {
		for _, err := range l.refusals[:min(3, len(l.refusals))] {
			fmt.Fprintf(out, "%s, refused: %v\n", l.name, err)
		}
	}
}
