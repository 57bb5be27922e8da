package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-analyze/charts"
	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"

	"compute-starter-kit-go-fanout-forward/testdata/toolchain"
)

// report collects the figures of all rounds.
type report struct {
	about           []string
	implementations []*implementation
	workloads       []workload
	figures         map[[2]string]figures // by the names of the workload and the implementation
}

// row is one row of the table, and of the JSON. If any request failed, it has no figures.
type row struct {
	Workload       string  `json:"workload"`
	Implementation string  `json:"implementation"`
	Requests       int64   `json:"requests"`
	PerSecond      float64 `json:"requests_per_second"`
	MBPerSecond    float64 `json:"mb_per_second,omitempty"`
	P50            float64 `json:"p50_ms"`
	P99            float64 `json:"p99_ms"`
	CPUPerRequest  float64 `json:"cpu_ms_per_request"`
	Peak           float64 `json:"peak_mib"`
	Heap           float64 `json:"sandbox_heap_mib"`
	Package        int64   `json:"package_bytes"`
	Errors         int     `json:"errors"`
	FirstError     string  `json:"first_error,omitempty"`
}

func newReport(ctx context.Context, o options, tools toolchain.Tools, implementations []*implementation, workloads []workload) *report {
	model, memory := "a CPU", uint64(0)
	if info, err := cpu.InfoWithContext(ctx); err == nil && len(info) > 0 && info[0].ModelName != "" {
		model = info[0].ModelName
	}
	if vm, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		memory = vm.Total
	}
	version := func(path string, args ...string) string {
		out, _ := exec.CommandContext(ctx, path, args...).Output()
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	viceroy := version(tools.Viceroy, "--version")
	if o.viceroy != "" {
		viceroy += " (" + o.viceroy + ")" // another build of the same version may have other limits
	}
	return &report{
		about: []string{
			fmt.Sprintf("Measured %s on %s/%s: %d x %s, %d GiB; %s",
				time.Now().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), model, (memory+1<<29)>>30, runtime.Version()),
			strings.Join([]string{version(tools.Fastly, "version"), viceroy, version(tools.Pushpin, "--version")}, "; "),
			fmt.Sprintf("One implementation at a time; %d clients; %d rounds of %v, each after a warm-up of %v; x: ratio to the first row",
				o.clients, o.rounds, o.duration, o.warmup),
		},
		implementations: implementations,
		workloads:       workloads,
		figures:         map[[2]string]figures{},
	}
}

// add adds the figures of one round.
func (r *report) add(impl *implementation, w workload, f figures) {
	key := [2]string{w.name, impl.name}
	sum, ok := r.figures[key]
	if !ok {
		sum = newFigures()
	}
	sum.add(f)
	r.figures[key] = sum
}

// rows returns the rows of the table: for each workload, one for each implementation.
func (r *report) rows() []row {
	var rows []row
	for _, w := range r.workloads {
		for _, impl := range r.implementations {
			f := r.figures[[2]string{w.name, impl.name}]
			line := row{Workload: w.name, Implementation: impl.name, Package: impl.packageSize, Errors: f.errors, FirstError: f.firstErr}
			if n := f.latency.TotalCount(); f.errors == 0 && n > 0 {
				line.Requests, line.PerSecond = n, f.rate()
				if size := max(w.sends, w.receives); size == mebibyte {
					line.MBPerSecond = f.rate() * mebibyte / 1e6
				}
				line.P50 = float64(f.latency.ValueAtQuantile(50)) / 1000
				line.P99 = float64(f.latency.ValueAtQuantile(99)) / 1000
				line.CPUPerRequest = f.cpu.Seconds() * 1000 / float64(n)
				line.Peak, line.Heap = float64(f.peak)/mebibyte, f.heap
			}
			rows = append(rows, line)
		}
	}
	return rows
}

// write prints the table, and writes the JSON and SVG files. It returns an error if a row has no figures.
func (r *report) write(o options) error {
	rows := r.rows()
	var failed []error
	var table bytes.Buffer
	tw := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	width := 0 // of the first column. Its cells get equal widths, because tabwriter aligns every column to the right.
	for _, line := range rows {
		width = max(width, len("  "+line.Implementation), len(line.Workload))
	}
	fmt.Fprintln(tw, "\trequests/s\tx\tMB/s\tp50 ms\tx\tp99 ms\tx\tCPU ms/request\tx\tpeak MiB\theap MiB\tpackage KB\t")
	for i, line := range rows {
		first := rows[i-i%len(r.implementations)]
		if line.Implementation == first.Implementation {
			fmt.Fprintf(tw, "%-*s%s\n", width, line.Workload, strings.Repeat("\t", 13))
		}
		if line.Requests == 0 {
			fmt.Fprintf(tw, "%-*s\t%d errors%s\n", width, "  "+line.Implementation, line.Errors, strings.Repeat("\t", 12))
			failed = append(failed, fmt.Errorf("%s, %s: %d errors, the first: %s", line.Workload, line.Implementation, line.Errors, line.FirstError))
			continue
		}
		throughput := "-"
		if line.MBPerSecond > 0 {
			throughput = fmt.Sprintf("%.0f", line.MBPerSecond)
		}
		fmt.Fprintf(tw, "%-*s\t%.0f\t%s\t%s\t%.2f\t%s\t%.2f\t%s\t%.3f\t%s\t%.0f\t%.1f\t%d\t\n", width, "  "+line.Implementation,
			line.PerSecond, ratio(line.PerSecond, first.PerSecond), throughput,
			line.P50, ratio(line.P50, first.P50), line.P99, ratio(line.P99, first.P99),
			line.CPUPerRequest, ratio(line.CPUPerRequest, first.CPUPerRequest), line.Peak, line.Heap, line.Package/1000)
	}
	tw.Flush()
	fmt.Printf("\n%s\n\n", strings.Join(r.about, "\n"))
	for line := range strings.Lines(table.String()) {
		fmt.Println(strings.TrimRight(line, " \n"))
	}

	if o.jsonFile != "" {
		content, err := json.MarshalIndent(map[string]any{"about": r.about, "rows": rows}, "", "  ")
		if err == nil {
			err = os.WriteFile(o.jsonFile, append(content, '\n'), 0o644)
		}
		failed = append(failed, err)
	}
	if o.svgFile != "" {
		svg, err := r.plot(rows)
		if err == nil {
			err = os.WriteFile(o.svgFile, svg, 0o644)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func ratio(value, first float64) string {
	if first == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", value/first)
}

// plot draws the requests per second of each workload, as ratios to the first implementation.
func (r *report) plot(rows []row) ([]byte, error) {
	values := make([][]float64, len(r.implementations))
	for i, line := range rows {
		first := rows[i-i%len(r.implementations)]
		value := 0.0
		if first.PerSecond > 0 {
			value = line.PerSecond / first.PerSecond
		}
		values[i%len(r.implementations)] = append(values[i%len(r.implementations)], value)
	}
	opt := charts.NewBarChartOptionWithData(values)
	opt.Title.Text = "Requests per second, relative to " + r.implementations[0].name
	opt.Title.Subtext = r.about[0]
	for _, w := range r.workloads {
		opt.CategoryAxis.Labels = append(opt.CategoryAxis.Labels, w.name)
	}
	for _, impl := range r.implementations {
		opt.Legend.SeriesNames = append(opt.Legend.SeriesNames, impl.name)
	}
	opt.Legend.Offset = charts.OffsetStr{Left: charts.PositionCenter, Top: charts.PositionBottom}
	p := charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: 1000, Height: 500})
	if err := p.BarChart(opt); err != nil {
		return nil, fmt.Errorf("draw the chart: %w", err)
	}
	return p.Bytes()
}
