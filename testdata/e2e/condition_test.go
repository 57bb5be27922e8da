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
// after the TODO in main.go. Where a project's main.go has no TODO any more, it skips the test.
func withCondition(t *testing.T, p *project, goCode string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.dir, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	todo := condition.FindStringSubmatch(string(content))
	if todo == nil {
		t.Skip("it puts a condition at the TODO in main.go, which this project has no more")
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

// setManifest changes the project's fastly.toml. The rest of it stays as the project's owner has it.
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
