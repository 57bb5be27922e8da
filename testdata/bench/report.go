package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// figures are those of one implementation on one workload in one round, in the order of columns.
type figures [5]float64

var columns = [5]string{"requests/s", "p50 ms", "p99 ms", "CPU ms/request", "Viceroy MiB"}

// row is a row of the table. It has no figures if any request failed. Otherwise a server that
// fails would look fast.
type row struct {
	Workload       string             `json:"workload"`
	Implementation string             `json:"implementation"`
	Figures        map[string]float64 `json:"figures"`      // the medians of all rounds
	Ratios         map[string]float64 `json:"ratio_to_app"` // the medians of the ratios in each round
	Error          string             `json:"error,omitempty"`
	rounds         []figures
}

// report prints the table, and writes the JSON to a file if it has a name. The rows have n
// implementations for each workload, the app first. It returns the errors in the rows.
func report(out io.Writer, file string, rows []row, n int, about ...string) error {
	var failed []error
	fmt.Fprintf(out, "\n%s\n\n%20s", strings.Join(about, "\n"), "")
	for _, column := range columns {
		fmt.Fprintf(out, "  %s     x", column)
	}
	for i := range rows {
		r, app := &rows[i], rows[i-i%n]
		if i%n == 0 {
			fmt.Fprintf(out, "\n%s", r.Workload)
		}
		fmt.Fprintf(out, "\n  %-18s", r.Implementation)
		if r.Error != "" {
			fmt.Fprint(out, "  failed")
			failed = append(failed, fmt.Errorf("%s, %s: %s", r.Workload, r.Implementation, r.Error))
			continue
		}
		r.Figures, r.Ratios = map[string]float64{}, map[string]float64{}
		for c, column := range columns {
			var values, ratios []float64
			for round, f := range r.rounds {
				values = append(values, f[c])
				if app.rounds[round][c] > 0 {
					ratios = append(ratios, f[c]/app.rounds[round][c])
				}
			}
			r.Figures[column], r.Ratios[column] = median(values), median(ratios)
			fmt.Fprintf(out, "  %*.2f%6.2f", len(column), r.Figures[column], r.Ratios[column])
		}
	}
	fmt.Fprintln(out)
	if file != "" {
		content, _ := json.MarshalIndent(map[string]any{"about": about, "rows": rows}, "", "  ")
		failed = append(failed, os.WriteFile(file, append(content, '\n'), 0o644))
	}
	return errors.Join(failed...)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0 // the app failed
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}
