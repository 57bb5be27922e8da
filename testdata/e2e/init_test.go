package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInit makes a project from a clone of this one, and changes it as a user does: a condition with
// its table, the module's name, and a README. The tests must pass there, and the demo must say which
// of its connections the condition does not hand off.
func TestInit(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	sh(t, p.dir, "go mod edit -module=example.com/my-app")
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
		git init -q; git add --all; git -c user.name=me -c user.email=me@example.com commit -qm 'My app'
		go vet ./...; go test ./...; go -C testdata vet ./e2e`)

	t.Run("tests", func(t *testing.T) {
		// The project's tests are those of this program.
		out := sh(t, filepath.Join(p.dir, "testdata/e2e"),
			`"$1" -test.v -test.run="^Test(Table|App|Readme|Links)$"`, os.Args[0])
		for _, want := range []string{
			"--- PASS: TestTable ", "--- PASS: TestApp/requests ", "--- SKIP: TestReadme ",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the tests did not print %q", want)
			}
		}
	})
	// If the table is wrong, the message has the line's number, the line, and where the request went.
	t.Run("a wrong table", func(t *testing.T) {
		p.write(t, "testdata/handoffs.txt", strings.Replace(table, "origin", "fanout", 1))
		out := sh(t, p.dir, "! go test .; git checkout -q testdata/handoffs.txt")
		if !strings.Contains(out, `handoffs.txt:1: "fanout  GET   /" went to origin`) {
			t.Errorf("go test prints %s", out)
		}
	})
	t.Run("make demo", func(t *testing.T) {
		demo := p.make(t, "demo")
		demo.wait(t, `\nThe page's event stream \(GET /events\) stays closed: main.go does not hand it off.\n`+
			`\nThe page's long-poll \(GET /poll\) stays closed: main.go does not hand it off.\n`)
		demo.stop()
	})
	// .gitignore has all files that the commands left, and make clean removes them. A project from a clone
	// has the files of the clone, and no others.
	sh(t, p.dir, `
		git status --porcelain; test -z "$(git status --porcelain)"; make clean
		git status --porcelain --ignored; test -z "$(git status --porcelain --ignored)"
		git clone -q . "../a clone"; mkdir ../äpp; cd ../äpp
		fastly compute init --from="../a clone" --non-interactive
		diff -r --exclude=.git --exclude=fastly.toml "../a clone" .`)
}

// TestMinimal runs the README's command that leaves only the app. It still builds, serves and tests.
func TestMinimal(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	origin := startServer(t, p.origin)
	sh(t, p.dir, `
		rm -r testdata Makefile .ci .github
		go test ./...; go vet ./...
		rm -f *_test.go bin/main.wasm
		find . -type f ! -name '*.go' ! -name 'go.*' ! -name fastly.toml -exec rm {} +`)
	p.serve(t)
	origin.answer("HTTP/1.1 204 No Content\r\n\r\n")
	if got := p.fetch(t, "POST", "/", ""); got.status != http.StatusNoContent {
		t.Errorf("got %+v", got)
	}
}
