package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A row with errors has no figures, in the JSON neither, and write returns an error. Otherwise a server that
// fails would look fast.
func TestErrorsHaveNoFigures(t *testing.T) {
	good, bad := &implementation{name: "good"}, &implementation{name: "bad"}
	w := workload{name: "POST"}
	r := &report{implementations: []*implementation{good, bad}, workloads: []workload{w}, figures: map[[2]string]figures{}}
	for _, impl := range r.implementations {
		f := newFigures()
		f.duration, f.cpu = time.Second, 10*time.Millisecond
		f.latency.RecordValue(5000)
		if impl == bad {
			f.errors, f.firstErr = 1, "it fell over"
		}
		r.add(impl, w, f)
		r.add(impl, w, newFigures()) // a second round, without errors
	}
	file := filepath.Join(t.TempDir(), "rows.json")
	err := r.write(options{jsonFile: file})
	if err == nil || !strings.Contains(err.Error(), "bad: 1 errors, the first: it fell over") {
		t.Errorf("write returned %v; want the error of bad", err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Rows []row }
	if err := json.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != 2 {
		t.Fatalf("rows are %+v; want one for each implementation", got.Rows)
	}
	first := got.Rows[0]
	if first.Requests != 1 || first.P50 < 4.9 || first.P50 > 5.1 || first.CPUPerRequest != 10 {
		t.Errorf("good has %+v; want one request, of 5 ms and 10 ms of CPU", first)
	}
	if want := (row{Workload: "POST", Implementation: "bad", Errors: 1, FirstError: "it fell over"}); got.Rows[1] != want {
		t.Errorf("bad has %+v; want %+v", got.Rows[1], want)
	}
}
