package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/BurntSushi/toml"
)

// condition matches the TODO in main.go, and the lines after it up to the end of the block.
var condition = regexp.MustCompile(`(?m)(^\t\t// TODO: .*\n)(?:(?:\t\t.*)?\n)*`)

// withCondition puts goCode, lines of Go, in the place of the lines after the TODO in the
// project's main.go. If main.go has no TODO, it skips the test.
func withCondition(t *testing.T, p *project, goCode string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.dir, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	todo := condition.FindStringSubmatch(string(content))
	if todo == nil {
		t.Skip("this test puts a condition at the TODO in main.go, but this project has no TODO there")
	}
	p.edit(t, "main.go", todo[0], todo[1]+goCode)
}

// set sets the value at a path in the project's fastly.toml, or deletes it if the value is nil.
// It keeps everything else that the project's owner has set.
func (p *project) set(t *testing.T, value any, path ...string) {
	t.Helper()
	var manifest map[string]any
	if _, err := toml.DecodeFile(filepath.Join(p.dir, "fastly.toml"), &manifest); err != nil {
		t.Fatal(err)
	}
	table, key := manifest, path[len(path)-1]
	for _, name := range path[:len(path)-1] {
		table = table[name].(map[string]any)
	}
	if table[key] = value; value == nil {
		delete(table, key)
	}
	content, err := toml.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "fastly.toml", string(content))
}
