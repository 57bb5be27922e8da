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

// TestBench runs a short `make bench`, with a compiled kit beside the app, and a Viceroy of one's own: each has
// figures, without an error, the table names that Viceroy, and what bench started is gone after it. How fast anything is, no test says.
func TestBench(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.run(t, p.dir, "make", "build")
	viceroy := filepath.Join(t.TempDir(), "my-viceroy")
	link(t, tools.Viceroy, viceroy)
	cmd := exec.Command("make", "bench", "PEERS=bin", "VICEROY="+viceroy, "JSON=rows.json", "PLOT=chart.svg",
		"BENCH=-rounds 1 -warmup 200ms -duration 2s -workloads '5 bytes|WebSocket'")
	tmp, err := os.MkdirTemp("", "b") // with T.TempDir's it would be too long for bench to use
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
			t.Errorf("bench has left %s, process %d", name, l.Pid)
			l.Kill()
		}
	}
	content, err := os.ReadFile(filepath.Join(p.dir, "rows.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Rows []struct {
			Workload, Contender string
			Requests            int
			Heap                float64 `json:"sandbox_heap_mib"`
			CPU                 float64 `json:"cpu_ms_per_request"`
		}
	}
	if err := json.Unmarshal(content, &report); err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for _, r := range report.Rows {
		rows[r.Contender]++
		if r.Requests == 0 || r.CPU <= 0 || r.Heap < 1 || r.Heap > 20 {
			t.Errorf("a row is %+v; want figures", r)
		}
		if !strings.Contains(string(out), r.Workload) {
			t.Errorf("the table lacks %s:\n%s", r.Workload, out)
		}
	}
	if rows["app"] != 2 || rows["main"] != 2 {
		t.Errorf("the contenders have the rows %v; want 2 workloads of each", rows)
	}
	if svg, err := os.ReadFile(filepath.Join(p.dir, "chart.svg")); err != nil || !strings.HasPrefix(string(svg), "<svg") {
		t.Errorf("the chart is %.40q (%v); want an SVG", svg, err)
	}
}
