//go:build !race

package local

import (
	"os"
	"testing"
)

// TestRaces is skipped where the tests run without the race detector, so that their summary says it. In CI it fails.
func TestRaces(t *testing.T) {
	const missing = "RACES are NOT TESTED: there is no C compiler (on Debian: sudo apt-get install gcc libc6-dev), or go test has no -race"
	if os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}
