package e2e

import (
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// inside names the variable that is set in the tests that TestInit runs.
const inside = "FANOUT_FORWARD_INSIDE_TEST_INIT"

// TestInit begins a project of one's own, by the URL of the kit, and from it the next one, by its path:
// each is all of the kit and nothing else, though there was work in the one before.
func TestInit(t *testing.T) {
	aboutTheKit(t)
	if os.Getenv(inside) != "" {
		t.Fatal("this test ran itself, for ever: make passed no ARGS on to go test")
	}
	t.Parallel()
	p := newProject(t)
	clone := filepath.Join(t.TempDir(), "clone")
	p.run(t, ".", "git", "clone", "--quiet", kitURL, clone)
	checkNew(t, p.dir, "my-app", committed(t, clone))

	p.edit(t, "fastly.toml", "name = ", "service_id = \"SERVICE\"\nname = ") // as after a publish
	p.run(t, p.dir, "go", "mod", "edit", "-module=example.com/my-app")
	p.run(t, p.dir, "git", "init", "--quiet")
	p.run(t, p.dir, "git", "add", "--all")
	p.run(t, p.dir, "git", "commit", "--quiet", "--message=My app")

	t.Run("serve", func(t *testing.T) { testNewServes(t, p) })
	t.Run("make test", func(t *testing.T) { testNewTests(t, p) })
	if left := git(t, p.dir, "status", "--porcelain"); len(left) > 0 {
		t.Errorf(".gitignore lacks what the commands left: %q", left)
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

func testNewServes(t *testing.T, p *project) {
	origin := startRawOrigin(t, p.Origin)
	p.serve(t)
	for method, fanout := range map[string]bool{"GET": true, "POST": false} {
		arrived := origin.expect(method, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		req, err := http.NewRequest(method, p.url("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Test", method)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := await(t, arrived); got.viaFanout() != fanout || resp.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %s; arrived through Fanout: %t, want %t", method, resp.Status, got.viaFanout(), fanout)
		}
	}
}

// All of `make test` runs in the new project, but of the end-to-end tests only two, which are not this one.
func testNewTests(t *testing.T, p *project) {
	before := len(p.log.String())
	p.run(t, p.dir, "env", "-u", "MAKEFLAGS", inside+"=1", "make", "test", "ARGS=-run='TestNoBackend|TestDeploy'")
	for _, want := range []string{
		`staticcheck \./\.\.\.`,
		`✓  \. \(`,
		`✓  e2e \(`, // else, if no test was run: ∅  e2e
		`\n[0-9]+ tests passed, 0 failed, `,
	} {
		if log := p.log.String()[before:]; !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("make test did not print %s", want)
		}
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

// committed lists the files that are in the repository of dir, sorted.
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
