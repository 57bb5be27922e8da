package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The condition and the table of a changed project.
const (
	changedCondition = "\t\tuseFanout = strings.HasPrefix(r.URL.Path, \"/live/\")\n"
	changedTable     = `origin  GET   /
fanout  GET   /live/
fanout  GET   /  Upgrade: websocket
fanout  HEAD  /live/
origin  POST  /
`
)

// TestInit makes a project from the kit's URL. Then it changes the project, as a user does: a condition with its table, a
// module name, and an empty README. The tests must pass there. From that project, by its path, TestInit makes another
// one. Each new project has exactly the committed files of the one before, although other files were made there.
func TestInit(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "my-app")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	(&project{log: &logBuffer{}}).run(t, dir, tools.Fastly, "compute", "init", "--from="+kitURL, "--non-interactive")
	p := openProject(t, dir)
	clone := filepath.Join(t.TempDir(), "clone")
	p.run(t, ".", "git", "clone", "--quiet", kitURL, clone)
	checkNew(t, p.dir, "my-app", git(t, clone, "ls-files"))

	p.edit(t, "fastly.toml", "name = ", "service_id = \"SERVICE\"\nname = ") // as after a publish
	p.run(t, p.dir, "go", "mod", "edit", "-module=example.com/my-app")
	withCondition(t, p, changedCondition)
	p.write(t, "testdata/handoffs.txt", changedTable)
	p.write(t, "README.md", "")
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message=My app"}} {
		p.run(t, p.dir, "git", args...)
	}

	t.Run("tests", func(t *testing.T) {
		p.run(t, p.dir, "go", "test", "./...")
		p.run(t, p.dir, "go", "-C", "testdata", "test", "-v", "-count=1", "-run=^(TestTable|TestApp|TestDeploy|TestReadme)$", "./e2e")
		for _, want := range []string{"--- PASS: TestTable ", "--- PASS: TestApp/requests ", "--- SKIP: TestApp/handoffs ", "--- PASS: TestDeploy ", "--- SKIP: TestReadme "} {
			if !strings.Contains(p.log.String(), want) {
				t.Errorf("the tests did not print %q", want)
			}
		}
	})
	t.Run("a wrong table", func(t *testing.T) { testWrongTable(t, p) })
	t.Run("make demo", func(t *testing.T) {
		startDemo(t, p).Stop()
		for _, name := range []string{"event stream (GET /events)", "long-poll (GET /poll)"} {
			if want := "The page's " + name + " stays closed: main.go does not hand it off.\n"; !strings.Contains(p.log.String(), want) {
				t.Errorf("the demo does not say %q", want)
			}
		}
	})
	if left := git(t, p.dir, "status", "--porcelain"); len(left) > 0 {
		t.Errorf(".gitignore does not have these files, which the commands left: %q", left)
	}

	kit, next := filepath.Join(t.TempDir(), "kit"), filepath.Join(t.TempDir(), "Another äpp")
	if err := os.Mkdir(next, 0o755); err != nil {
		t.Fatal(err)
	}
	p.run(t, next, "git", "clone", "--quiet", p.dir, kit)
	p.run(t, next, "rm", "-rf", kit+"/.git")
	p.run(t, next, tools.Fastly, "compute", "init", "--from="+kit, "--non-interactive")
	checkNew(t, next, "Another äpp", git(t, p.dir, "ls-files"))
}

// If the table is wrong, the test fails. Its message has the line's number, the line, and where the request went.
func testWrongTable(t *testing.T, p *project) {
	defer p.write(t, "testdata/handoffs.txt", changedTable)
	for table, want := range map[string]string{
		strings.Replace(changedTable, "origin", "fanout", 1): `handoffs\.txt:1: "fanout  GET   /" went to origin`,
		changedTable + "GET / - fanout\n":                    `handoffs\.txt:6: column 1 is "GET"`,
	} {
		p.write(t, "testdata/handoffs.txt", table)
		cmd := exec.Command("go", "test", ".")
		cmd.Dir = p.dir
		if out, err := cmd.CombinedOutput(); err == nil || !regexp.MustCompile(want).Match(out) {
			t.Errorf("%v; want %s, got\n%s", err, want, out)
		}
	}
}

// TestMinimal deletes all files that README.md says you may delete. The remaining project still builds, serves and tests.
func TestMinimal(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	origin := startServer(t, p.Origin)
	p.run(t, p.dir, "rm", "-rf", "testdata")
	p.run(t, p.dir, "go", "test", "./...")
	for _, file := range files(t, p.dir) {
		source := strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go")
		if !source && !slices.Contains([]string{"go.mod", "go.sum", "fastly.toml"}, file) {
			p.run(t, p.dir, "rm", "-r", file)
		}
	}
	p.serve(t)
	origin.answer("HTTP/1.1 204 No Content\r\n\r\n")
	if resp := p.exchange(t, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"); resp.line != "HTTP/1.1 204 No Content" {
		t.Errorf("got %+v", resp)
	}
}

// checkNew checks which files the new project has, and its name.
func checkNew(t *testing.T, dir, name string, want []string) {
	t.Helper()
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

// git runs git in dir, and returns the lines that it prints.
func git(t *testing.T, dir string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}
