package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// logBuffer collects what processes print.
type logBuffer struct {
	sync.Mutex
	buf    bytes.Buffer
	waited int // the end of the last match
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.Lock()
	defer b.Unlock()
	return b.buf.String()
}

// skip makes the next wait look only at what is printed from now on.
func (b *logBuffer) skip() { b.find(regexp.MustCompile(`(?s).*`)) }

// find looks for the pattern after the last match.
func (b *logBuffer) find(pattern *regexp.Regexp) bool {
	b.Lock()
	defer b.Unlock()
	found := pattern.FindIndex(b.buf.Bytes()[b.waited:])
	if found != nil {
		b.waited += found[1]
	}
	return found != nil
}

// wait waits for output that matches the pattern. It looks only after the last match, so it does
// not find an old line. It fails the test if the time is up (within), or as soon as the process
// (by, which may be nil) has ended.
func (b *logBuffer) wait(t *testing.T, pattern string, by *local.Process, within time.Duration) {
	t.Helper()
	var ended <-chan struct{}
	if by != nil {
		ended = by.Done()
	}
	var err error
	matches, limit := regexp.MustCompile(pattern), time.After(within)
	for !b.find(matches) {
		if err != nil {
			t.Fatalf("no process printed %s: %v; the last lines are\n%s", pattern, err, tail(b.String(), 20))
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ended:
			err = by.Err()
		case <-limit:
			err = errors.New("it has taken too long")
		}
	}
}

// tail returns the last lines of the text, at most n lines, and at most 500 bytes of each.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		if len(line) > 500 {
			lines[i] = line[:500] + "…"
		}
	}
	return strings.Join(lines, "\n")
}

// alarming matches the lines of a log that a reader should always see.
var alarming = regexp.MustCompile(`(?m)^.*(WARN[ \]]|ERR\]|ERROR|(?i:panic)|^origin: ).*$`)

// report prints the important lines of the logs of a failed test, and stores the logs in
// testdata/_artifacts. It does not use T.ArtifactDir: that prints a line which hides the test's
// earlier messages in gotestsum's output.
func (p *project) report(t *testing.T) {
	if !t.Failed() {
		return
	}
	dir, err := filepath.Abs(filepath.Join("../_artifacts", strings.ReplaceAll(t.Name(), "/", "-")))
	logs := filepath.Join(p.dir, "pushpin-logs") // has those of Pushpin, if it has run
	err = errors.Join(err, os.RemoveAll(dir), os.MkdirAll(logs, 0o755),
		os.WriteFile(filepath.Join(logs, "all.log"), []byte(p.log.String()), 0o644),
		os.CopyFS(dir, os.DirFS(logs)))
	files, _ := filepath.Glob(filepath.Join(logs, "*"))
	for _, file := range files {
		content, _ := os.ReadFile(file)
		if found := alarming.FindAllString(string(content), -1); found != nil {
			t.Logf("%s has %d warnings; the last ones are\n%s", filepath.Base(file), len(found), tail(strings.Join(found, "\n"), 5))
		}
	}
	t.Logf("the logs are in %s (error: %v); all.log ends with\n%s", dir, err, tail(p.log.String(), 20))
}
