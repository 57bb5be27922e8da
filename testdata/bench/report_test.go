package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each figure is the median of all rounds, and each ratio the median of the ratios in each round.
// A row with an error has neither, and report returns the error.
func TestReport(t *testing.T) {
	rows := []row{
		{Workload: "GET", Implementation: "app", rounds: []figures{{100, 2, 4, 1, 50}, {300, 3, 6, 1, 70}, {400, 4, 9, 3, 60}}},
		{Workload: "GET", Implementation: "peer", rounds: []figures{{200, 1, 8, 2, 50}, {300, 3, 9, 3, 70}, {200, 1, 9, 3, 30}}},
		{Workload: "GET", Implementation: "broken", rounds: []figures{{900, 1, 1, 1, 1}, {}, {}}, Error: "it fell over"},
	}
	file := filepath.Join(t.TempDir(), "rows.json")
	var out bytes.Buffer
	if err := report(&out, file, rows, 3, "about"); err == nil || err.Error() != "GET, broken: it fell over" {
		t.Errorf("report returned %v; want the error of broken", err)
	}
	if want := `
about

                      requests/s     x  p50 ms     x  p99 ms     x  CPU ms/request     x  Viceroy MiB     x
GET
  app                     300.00  1.00    3.00  1.00    6.00  1.00            1.00  1.00        60.00  1.00
  peer                    200.00  1.00    1.00  0.50    9.00  1.50            3.00  2.00        50.00  1.00
  broken              failed
`; out.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", &out, want)
	}
	content, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(content), `"CPU ms/request": 3,`) || strings.Contains(string(content), "900") {
		t.Errorf("the JSON is %s (%v); want the medians, and no figures of broken", content, err)
	}
}
