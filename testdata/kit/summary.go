package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// summary prints one line about the test runs whose events are in the files. It says how many tests passed, failed and
// were skipped, why they were skipped, and the versions of the tools.
func summary(ctx context.Context, _ string, files []string) error {
	count := map[string]int{}
	skipped := map[string][]string{} // the tests, by the reason
	for _, file := range files {
		events, err := os.Open(file)
		if err != nil {
			return err
		}
		defer events.Close()
		said := map[string]string{} // the last message of each test
		for decode := json.NewDecoder(events); ; {
			var event struct{ Action, Package, Test, Output string } // see go doc test2json
			if err := decode.Decode(&event); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return fmt.Errorf("read %s: %w", file, err)
			}
			if event.Test == "" {
				continue
			}
			id := event.Package + " " + event.Test
			count[event.Action]++
			switch output := strings.TrimSpace(event.Output); {
			case event.Action == "output" && !strings.HasPrefix(output, "---") && !strings.HasPrefix(output, "==="):
				_, said[id], _ = strings.Cut(output, ": ") // after the file and line
			case event.Action == "skip":
				skipped[said[id]] = append(skipped[said[id]], event.Test)
			}
		}
	}
	t, err := local.Ensure(ctx, io.Discard)
	if err != nil {
		return err
	}
	why := ""
	if len(skipped) > 0 {
		var reasons []string
		for _, reason := range slices.Sorted(maps.Keys(skipped)) {
			reasons = append(reasons, strings.Join(skipped[reason], ", ")+": "+reason)
		}
		why = " (" + strings.Join(reasons, "; ") + ")"
	}
	fmt.Printf("\n%d tests passed, %d failed, %d skipped%s, with Go %s, %s\n", count["pass"], count["fail"], count["skip"], why,
		strings.TrimPrefix(runtime.Version(), "go"), t.Versions(ctx))
	return nil
}
