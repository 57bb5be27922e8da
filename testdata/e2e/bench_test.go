package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shirou/gopsutil/v4/process"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
)

// TestBench runs a short `make bench`, with one more compiled kit, and another path for Viceroy. Every row has
// figures and no error. The table names that Viceroy. Afterwards no process of bench is left. No test checks a speed.
func TestBench(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.run(t, p.dir, "make", "build")
	viceroy := filepath.Join(t.TempDir(), "my-viceroy")
	link(t, tools.Viceroy, viceroy)
	cmd := exec.Command("make", "bench", "PEERS=bin", "VICEROY="+viceroy, "JSON=rows.json", "PLOT=chart.svg",
		"BENCH=-rounds 1 -warmup 200ms -duration 2s -workloads '5 bytes|WebSocket'")
	tmp, err := os.MkdirTemp("", "b") // T.TempDir has a long path, which bench would not use
	if err != nil {
		t.Fatal(err)
	}
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make bench: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), " ("+viceroy+"); pushpin ") {
		t.Errorf("the table does not name the Viceroy that was used:\n%s", out)
	}
	left, err := process.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range left {
		if dir, _ := l.Cwd(); strings.HasPrefix(dir, tmp) && chain.Alive(l) {
			name, _ := l.Name()
			t.Errorf("bench left %s, process %d", name, l.Pid)
			l.Kill()
		}
	}
	content, err := os.ReadFile(filepath.Join(p.dir, "rows.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Rows []struct {
			Workload, Implementation string
			Requests                 int
			Heap                     float64 `json:"sandbox_heap_mib"`
			CPU                      float64 `json:"cpu_ms_per_request"`
		}
	}
	if err := json.Unmarshal(content, &report); err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for _, r := range report.Rows {
		rows[r.Implementation]++
		if r.Requests == 0 || r.CPU <= 0 || r.Heap < 1 || r.Heap > 20 {
			t.Errorf("the row %+v lacks figures, or has impossible ones", r)
		}
		if !strings.Contains(string(out), r.Workload) {
			t.Errorf("the table does not name the workload %s:\n%s", r.Workload, out)
		}
	}
	if rows["app"] != 2 || rows["main"] != 2 {
		t.Errorf("the implementations have these numbers of rows: %v; want 2 for each of app and main", rows)
	}
	if svg, err := os.ReadFile(filepath.Join(p.dir, "chart.svg")); err != nil || !strings.HasPrefix(string(svg), "<svg") {
		t.Errorf("the chart is %.40q (%v); want an SVG", svg, err)
	}
}
