package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/BurntSushi/toml"
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

// setBackend sets a value of the backend in the project's fastly.toml.
func setBackend(t *testing.T, p *project, key string, value any) {
	t.Helper()
	setLocalServer(t, p, func(server map[string]any) {
		server["backends"].(map[string]any)["origin"].(map[string]any)[key] = value
	})
}

// setLocalServer changes the table [local_server] of the project's fastly.toml.
func setLocalServer(t *testing.T, p *project, change func(server map[string]any)) {
	t.Helper()
	var manifest map[string]any
	path := filepath.Join(p.dir, "fastly.toml")
	if _, err := toml.DecodeFile(path, &manifest); err != nil {
		t.Fatal(err)
	}
	change(manifest["local_server"].(map[string]any))
	content, err := toml.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
