package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The condition and the table of a changed project.
const (
	changedCondition = "\t\tuseFanout = strings.HasPrefix(r.URL.Path, \"/live/\")\n" +
		"\t\tif r.URL.Path == \"/closed\" {\n\t\t\tfail(w, 503)\n\t\t\treturn\n\t\t}\n"
	changedTable = `origin  GET   /
fanout  GET   /live/
503     GET   /closed
fanout  GET   /  Upgrade: websocket
fanout  HEAD  /live/
origin  POST  /
`
)

// TestInit makes a project from the kit's URL. Then it changes the project, as a user does: a
// condition with its table, a module name, and its own README. The tests must pass there. From
// that project, by its path, TestInit makes another one. Each new project has exactly the
// committed files of the one before, although other files were made there.
func TestInit(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p, next := newProject(t), filepath.Join(t.TempDir(), "Another äpp")
	checkNew(t, p.dir, "my-app", filepath.Join(os.TempDir(), kitName), "bin/main.wasm", "pkg/my-app.tar.gz")

	p.set(t, "SERVICE", "service_id") // as after a publish
	p.run(t, p.dir, "go", "mod", "edit", "-module=example.com/my-app")
	withCondition(t, p, changedCondition)
	p.write(t, "testdata/handoffs.txt", changedTable)
	p.write(t, "README.md", "[mine](nowhere)\n")
	p.run(t, p.dir, "sh", "-ec", "git init -q; git add --all; git commit -qm 'My app'")

	t.Run("tests", func(t *testing.T) {
		p.run(t, p.dir, "go", "test", "./...")
		// The project has this program's tests; "make demo" compiles what they import.
		p.run(t, filepath.Join(p.dir, "testdata/e2e"), os.Args[0], "-test.v", "-test.run=^Test(Table|App|Deploy|Readme|Links)$")
		for _, want := range []string{
			"--- PASS: TestTable ", "--- PASS: TestApp/requests ", "--- SKIP: TestApp/handoffs ", "--- SKIP: TestReadme ",
		} {
			if !strings.Contains(p.log.String(), want) {
				t.Errorf("the tests did not print %q", want)
			}
		}
	})
	// If the table is wrong, the message has the line's number, the line, and where the request went.
	t.Run("a wrong table", func(t *testing.T) {
		defer p.write(t, "testdata/handoffs.txt", changedTable)
		for table, want := range map[string]string{
			strings.Replace(changedTable, "origin", "fanout", 1): `handoffs.txt:1: "fanout  GET   /" went to origin`,
			changedTable + "GET / - fanout\n":                    `handoffs.txt:7: column 1 is "GET"`,
		} {
			p.write(t, "testdata/handoffs.txt", table)
			p.run(t, p.dir, "sh", "-c", `go test . | tee /dev/stderr | grep -F "$0"`, want)
		}
	})
	t.Run("make demo", func(t *testing.T) {
		startDemo(t, p).Stop()
		want := "\nThe page's event stream (GET /events) stays closed: main.go does not hand it off.\n" +
			"\nThe page's long-poll (GET /poll) stays closed: main.go does not hand it off.\n"
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("the demo does not say %q", want)
		}
	})
	// .gitignore has all files that the commands left, and make clean removes them.
	p.run(t, p.dir, "sh", "-c", "! git status --porcelain | grep . && make clean && ! git status --porcelain --ignored | grep .")

	p.run(t, p.dir, "sh", "-ec", `
		git clone -q . "$0.kit"; rm -rf "$0.kit/.git"
		mkdir "$0"; cd "$0"; "$1" compute init --from="$0.kit" --non-interactive`, next, tools.Fastly)
	checkNew(t, next, "Another äpp", filepath.Join(p.dir, ".git"))
}

// TestMinimal deletes all files that README.md says you may delete. The remaining project still
// builds, serves and tests.
func TestMinimal(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	origin := startServer(t, p.Origin)
	p.run(t, p.dir, "sh", "-ec", `
		rm -rf testdata
		go test ./...
		rm *_test.go
		find . -type f ! -name '*.go' ! -name 'go.*' ! -name fastly.toml -exec rm {} +`)
	p.serve(t)
	origin.answer("HTTP/1.1 204 No Content\r\n\r\n")
	if resp := p.exchange(t, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"); resp.line != "HTTP/1.1 204 No Content" {
		t.Errorf("got %+v", resp)
	}
}

// checkNew checks that the new project in dir has this name, and exactly the files that are
// committed in the repository, and those that were built.
func checkNew(t *testing.T, dir, name, repository string, built ...string) {
	t.Helper()
	committed, err := exec.Command("git", "--git-dir="+repository, "ls-tree", "-rz", "--name-only", "--full-tree", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := append(strings.Split(strings.TrimSuffix(string(committed), "\x00"), "\x00"), built...)
	slices.Sort(want)
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("the new project has\n%q\nwant\n%q", got, want)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "fastly.toml"))
	if err != nil || !strings.Contains(string(manifest), "\nname = \""+name+"\"\n") {
		t.Errorf("%v; want the name %q in\n%s", err, name, manifest)
	}
}

// files lists the files in dir, sorted.
func files(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}
