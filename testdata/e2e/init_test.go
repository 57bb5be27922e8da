package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInit changes a project as a user does: a condition with its table, the module's name, and a
// README. The tests pass there, and a table that does not fit the condition is reported.
func TestInit(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.edit(t, "main.go", "\t\"os\"\n", "\t\"os\"\n\t\"path\"\n")
	p.withCondition(t, `		useFanout = path.Dir(r.URL.Path) == "/live"
		if r.URL.Path == "/closed" {
			fail(w, 503)
			return
		}
`)
	const table = `origin  GET   /
fanout  GET   /live/
503     GET   /closed
fanout  GET   /  Upgrade: websocket
fanout  HEAD  /live/
origin  POST  /
`
	p.write(t, "testdata/handoffs.txt", table)
	p.write(t, "README.md", "[mine](nowhere)\n")
	sh(t, p.dir, `
		go mod edit -module=example.com/my-app
		go vet ./...; go test ./...; go -C testdata vet ./e2e`)

	// The project's tests are those of this program.
	out := sh(t, filepath.Join(p.dir, "testdata/e2e"),
		`"$1" -test.v -test.run="^Test(Table|Readme|Links)$"`, os.Args[0])
	if !strings.Contains(out, "--- PASS: TestTable ") {
		t.Errorf("TestTable did not run:\n%s", out)
	}
	// TestApp puts a condition in the place of this one, whose import is still needed.
	p.withCondition(t, "\t\tuseFanout = false\n")
	sh(t, p.dir, "go vet .")

	// The message has the line's number, the line, and where the request went.
	p.write(t, "testdata/handoffs.txt", "fanout  POST  /\n")
	sh(t, p.dir, `go test . | grep 'handoffs.txt:1: "fanout  POST  /" went to origin'`)
}
