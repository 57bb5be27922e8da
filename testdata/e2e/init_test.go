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

// inside is the name of a variable that is set for the tests that TestInit runs.
const inside = "FANOUT_FORWARD_INSIDE_TEST_INIT"

// TestInit makes a project from the kit's URL. Then it changes the project, as a user does: a condition with its table, a
// module name, and an empty README. All tests must pass there. From that project, by its path, TestInit makes another
// one. Each new project has exactly the committed files of the one before, although other files were made there.
func TestInit(t *testing.T) {
	needsDefault(t)
	if os.Getenv(inside) != "" {
		t.Fatal("this test ran itself again: make did not pass ARGS to go test")
	}
	t.Parallel()
	p := newProject(t)
	clone := filepath.Join(t.TempDir(), "clone")
	p.run(t, ".", "git", "clone", "--quiet", kitURL, clone)
	checkNew(t, p.dir, "my-app", committed(t, clone))

	p.edit(t, "fastly.toml", "name = ", "service_id = \"SERVICE\"\nname = ") // as after a publish
	p.run(t, p.dir, "go", "mod", "edit", "-module=example.com/my-app")
	withCondition(t, p, "\t\tuseFanout = strings.HasPrefix(r.URL.Path, \"/live/\")\n")
	p.write(t, "testdata/handoffs.txt", "origin  GET   /\nfanout  GET   /live/\n"+
		"fanout  GET   /  Upgrade: websocket\nfanout  HEAD  /live/\norigin  POST  /\n")
	p.write(t, "README.md", "")
	p.run(t, p.dir, "git", "init", "--quiet")
	p.run(t, p.dir, "git", "add", "--all")
	p.run(t, p.dir, "git", "commit", "--quiet", "--message=My app")

	t.Run("make test", func(t *testing.T) { testNewTests(t, p) })
	t.Run("a wrong table", func(t *testing.T) { testWrongTable(t, p) })
	t.Run("make demo", func(t *testing.T) { testNewDemo(t, p) })
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
	checkNew(t, next, "Another äpp", committed(t, p.dir))
}

// TestMinimal deletes all files that README.md says you may delete. The remaining project still builds, serves and tests.
func TestMinimal(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	origin := startServer(t, p.Origin)
	if err := os.RemoveAll(filepath.Join(p.dir, "testdata")); err != nil {
		t.Fatal(err)
	}
	p.run(t, p.dir, "go", "test", "./...")
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		source := strings.HasSuffix(e.Name(), ".go") && !strings.HasSuffix(e.Name(), "_test.go")
		if source || slices.Contains([]string{"go.mod", "go.sum", "fastly.toml"}, e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(p.dir, e.Name())); err != nil {
			t.Fatal(err)
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
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("the new project has\n%q\nwant\n%q", got, want)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "fastly.toml"))
	if err != nil || !strings.Contains(string(manifest), "\nname = \""+name+"\"\n") {
		t.Errorf("%v; want the name %q in\n%s", err, name, manifest)
	}
}

// In CI, or with -long, this runs the complete make test in the new project. Elsewhere it runs only a few of the
// end-to-end tests, because a person waits for them.
func testNewTests(t *testing.T, p *project) {
	args := "ARGS=-run='TestForward|TestNoBackend|TestDeploy'"
	if os.Getenv("CI") != "" {
		args = "ARGS="
	}
	before := len(p.log.String())
	p.run(t, p.dir, "env", inside+"=1", "make", "test", args)
	for _, want := range []string{
		`staticcheck \./\.\.\.`,
		`✓  \. \(`,
		`✓  e2e \(`, // if no test runs, this line is: ∅  e2e
		`\n[0-9]+ tests passed, 0 failed, `,
	} {
		if log := p.log.String()[before:]; !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("make test did not print %s", want)
		}
	}
}

// If the table is wrong, the test fails. Its message has the line's number, the line, and where the request went.
func testWrongTable(t *testing.T, p *project) {
	content, err := os.ReadFile(filepath.Join(p.dir, "testdata/handoffs.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.write(t, "testdata/handoffs.txt", string(content))
	for table, want := range map[string]string{
		strings.Replace(string(content), "origin  GET   /\n", "fanout  GET   /\n", 1): `handoffs\.txt:1: "fanout  GET   /" went to origin`,
		string(content) + "GET / - fanout\n":                                          `handoffs\.txt:6: column 1 is "GET"`,
	} {
		p.write(t, "testdata/handoffs.txt", table)
		cmd := exec.Command("go", "test", ".")
		cmd.Dir = p.dir
		if out, err := cmd.CombinedOutput(); err == nil || !regexp.MustCompile(want).Match(out) {
			t.Errorf("%v; want %s, got\n%s", err, want, out)
		}
	}
}

// The demo says which of the page's connections the project's condition does not hand off.
func testNewDemo(t *testing.T, p *project) {
	demo := startDemo(t, p)
	p.log.wait(t, `does not hand off these connections of the page, .*\n.*event stream \(GET /events\): status 403\n.*long-poll \(GET /poll\): status 403\n`, demo, patience)
	demo.Stop()
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

// committed lists the files in the git repository of dir, sorted.
func committed(t *testing.T, dir string) []string {
	t.Helper()
	files := git(t, dir, "ls-files")
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
