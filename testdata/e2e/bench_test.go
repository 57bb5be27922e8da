package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shirou/gopsutil/v4/process"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestBench runs a short `make bench` beside a directory with another compiled app, and with
// another path of Viceroy. It does not check any speed.
func TestBench(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	viceroy := filepath.Join(t.TempDir(), "my-viceroy")
	link(t, tools.Viceroy, viceroy)
	p.run(t, p.dir, "make", "bench", "PEERS=bin", "VICEROY="+viceroy, "JSON=rows.json",
		"BENCH=-rounds 1 -duration 2s -workloads '5 bytes|WebSocket'")
	out := p.log.String()
	json, _ := os.ReadFile(filepath.Join(p.dir, "rows.json"))
	for _, want := range []string{"(" + viceroy + ")", "\nPOST 5 bytes\n  app ", "\nWebSocket connects\n  app ", "\n  main "} {
		if !strings.Contains(out, want) {
			t.Errorf("make bench does not print %q:\n%s", want, out)
		}
	}
	if got := strings.Count(string(json), `"requests/s": `); got != 8 {
		t.Errorf("the JSON has the requests per second %d times; want a figure and a ratio for each of 4 rows:\n%s", got, json)
	}
	processes, _ := process.Processes()
	for _, left := range processes {
		if dir, _ := left.Cwd(); dir == p.dir && local.Alive(left) {
			t.Errorf("make bench left process %d", left.Pid)
			left.Kill()
		}
	}
}
