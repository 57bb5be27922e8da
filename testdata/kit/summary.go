package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"compute-starter-kit-go-fanout-forward/testdata/toolchain"
)

// summary prints one line about the test runs whose events are in the files. It says how many tests passed, failed and
// were skipped, why they were skipped, and the versions of the tools.
func summary(ctx context.Context, _ string, files []string) error {
	count := map[string]int{}
	var skipped []string
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
				skipped = append(skipped, event.Test+": "+said[id])
			}
		}
	}
	t, err := toolchain.Ensure(ctx, io.Discard)
	if err != nil {
		return err
	}
	why := ""
	if len(skipped) > 0 {
		slices.Sort(skipped)
		why = " (" + strings.Join(skipped, "; ") + ")"
	}
	fmt.Printf("\n%d tests passed, %d failed, %d skipped%s, with Go %s, %s\n", count["pass"], count["fail"], count["skip"], why,
		strings.TrimPrefix(runtime.Version(), "go"), t.Versions(ctx))
	return nil
}
