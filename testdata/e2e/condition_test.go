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

// withCondition puts goCode, lines of Go, in the place of the lines after the TODO in the project's main.go. If main.go
// has no TODO, it skips the test.
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
	setManifest(t, p, func(manifest map[string]any) { change(manifest["local_server"].(map[string]any)) })
}

// setManifest changes the project's fastly.toml. change gets its values, and keeps those that it does not set.
func setManifest(t *testing.T, p *project, change func(manifest map[string]any)) {
	t.Helper()
	var manifest map[string]any
	if _, err := toml.DecodeFile(filepath.Join(p.dir, "fastly.toml"), &manifest); err != nil {
		t.Fatal(err)
	}
	change(manifest)
	content, err := toml.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "fastly.toml", string(content))
}
