package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// condition is what main.go has after its TODO, up to the end of that block.
var condition = regexp.MustCompile(`(?m)(^\t\t// TODO: .*\n)(?:(?:\t\t.*)?\n)*`)

// withCondition has the project's app go by the condition, lines of Go, and no longer by those that come
// after the TODO in main.go.
func withCondition(t *testing.T, p *project, goCode string) {
	t.Helper()
	path := filepath.Join(p.dir, "main.go")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(condition.FindAll(content, -1)); n != 1 {
		t.Fatalf("%s has %d lines that begin with // TODO: want the one where its conditions are:\n%s", path, n, content)
	}
	content = condition.ReplaceAllFunc(content, func(old []byte) []byte {
		return append(condition.ReplaceAll(old, []byte("$1")), goCode...)
	})
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
