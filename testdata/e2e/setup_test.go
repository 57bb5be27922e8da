// Package e2e tests the app with the real programs: the Fastly CLI, Viceroy and Pushpin. It
// makes new projects from this one with `fastly compute init`, and runs them on free ports
// (except for TestReadme).
package e2e

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// patience is the timeout of each wait. It is long, so that the tests pass on a slow machine.
// Only a failing test waits this long.
const patience = 30 * time.Second

var tools local.Tools

// kitURL is the URL of a git repository of this project, as it is now.
var kitURL string

func TestMain(m *testing.M) {
	go func() {
		interrupted, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		// If go test itself is killed, the tests get another parent.
		for parent := os.Getppid(); os.Getppid() == parent && interrupted.Err() == nil; {
			time.Sleep(100 * time.Millisecond)
		}
		local.StopAll()
		os.Exit(130) // what shells report for a Ctrl-C
	}()
	// Some people have this umask: only they can read their files.
	syscall.Umask(0o077)
	// The tests' commands must start as in a new shell, and not as under make or in a hook of git.
	foreign := regexp.MustCompile(`^(ADDR|ARGS|MAKE.*|MFLAGS|ORIGIN|TRUST|GRIP_.*|FASTLY_.*|GIT_.*)$`)
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); foreign.MatchString(name) {
			os.Unsetenv(name)
		}
	}

	var errs [4]error
	tools, errs[0] = local.Find(context.Background(), os.Stderr)
	_, errs[1] = local.TempDir()
	kitURL, errs[2] = serveKit()
	table, errs[3] = readTable("../handoffs.txt")
	code := 1
	if err := errors.Join(errs[:]...); err != nil {
		log.Print(err)
	} else {
		code = m.Run()
	}
	local.StopAll()
	os.Exit(code)
}

// kitName is the name of the kit's repository.
const kitName = "compute-starter-kit-go-fanout-forward"

// serveKit makes a git repository of this project, without the files in .gitignore. It serves the
// repository over HTTP, as GitHub does, until this process ends.
func serveKit() (url string, err error) {
	root := os.TempDir() // of this process
	// The user's git settings must not apply: they might sign commits, ignore more files, or use a
	// proxy for 127.0.0.1.
	os.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(root, "gitconfig"))
	os.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	cmd := exec.Command("sh", "-exc", `
		git config --global user.name test
		git config --global user.email test@example.com
		git config --global http.proxy ''
		git init -q
		git add --all
		git commit -qm 'The kit'
		test -x "$(git --exec-path)/git-http-backend" || { echo 'install all of git: some systems split it'; false; }`)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GIT_DIR="+filepath.Join(root, kitName), "GIT_WORK_TREE=.")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a git repository of this project: %w\n%s", err, out)
	}
	server := http.NewServeMux()
	server.HandleFunc("/"+kitName, func(http.ResponseWriter, *http.Request) {}) // the page for browsers, which the CLI requests first
	server.Handle("/", &cgi.Handler{
		Path: "/usr/bin/env",
		Args: []string{"git", "http-backend"},
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	})
	return httptest.NewServer(server).URL + "/" + kitName, nil
}

// skipOrFail ends a test that cannot run on this machine. In CI it fails; elsewhere it is skipped.
func skipOrFail(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skip(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "))
}

// project is a new project, made from this one with `fastly compute init`, with its own ports.
type project struct {
	dir string
	local.Manifest
	addr string // where the app listens, host:port
	log  *logBuffer
}

// newProject returns a new project, in a directory whose name has a space and a letter outside
// ASCII, as people's directories may have. If the test fails, it prints the important lines of
// the project's logs.
func newProject(t *testing.T) *project {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a pläce", "my-app")
	from, err := template()
	if err == nil {
		err = os.CopyFS(dir, os.DirFS(from))
	}
	if err != nil {
		t.Fatal(err)
	}
	return openProject(t, dir)
}

// openProject moves the local servers of the project in dir to free ports, and removes the
// service id. It does not change other values in fastly.toml, which the project's owner may
// have changed.
func openProject(t *testing.T, dir string) *project {
	t.Helper()
	first := freePorts(t, 7)
	p := &project{dir: dir, addr: loopback(first), log: &logBuffer{}}
	t.Cleanup(func() { p.report(t) })
	origin := "localhost:" + strconv.Itoa(first+1)
	p.set(t, nil, "service_id")
	p.set(t, "http://"+origin+"/", "local_server", "backends", "origin", "url")
	p.set(t, origin, "local_server", "backends", "origin", "override_host")
	p.set(t, first+2, "local_server", "pushpin", "proxy_port")
	p.set(t, first+3, "local_server", "pushpin", "publish_port")
	var err error
	if p.Manifest, err = local.ReadManifest(p.dir); err != nil {
		t.Fatal(err)
	}
	return p
}

// template makes a project as the README says, and builds it. It does so once for all tests.
var template = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), "template/my-app") // the CLI names the project after it
	cmd := exec.Command("sh", "-exc", `mkdir -p "$1"; cd "$1"
		"$0" compute init --from="$2" --non-interactive
		"$0" compute build --metadata-disable --non-interactive`, tools.Fastly, dir, kitURL)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a project from the kit: %w\n%s", err, tail(string(out), 30))
	}
	return dir, nil
})

// run runs a program in dir and fails the test if the program fails.
func (p *project) run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, p.log, p.log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, tail(p.log.String(), 30))
	}
}

// edit replaces every old in a file of the project with new. There must be one.
func (p *project) edit(t *testing.T, file, old, new string) {
	t.Helper()
	path := filepath.Join(p.dir, file)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), old) {
		t.Fatalf("%s has no %q:\n%s", path, old, content)
	}
	p.write(t, file, strings.ReplaceAll(string(content), old, new))
}

// write writes a file of the project. After a change of its sources, the project must be built again.
func (p *project) write(t *testing.T, file, content string) {
	t.Helper()
	if strings.HasSuffix(file, ".go") {
		os.Remove(filepath.Join(p.dir, "bin/main.wasm"))
	}
	if err := os.WriteFile(filepath.Join(p.dir, file), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

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

// serve runs the app until the test ends. args are extra arguments for the Fastly CLI.
func (p *project) serve(t *testing.T, args ...string) *local.Process {
	t.Helper()
	if p.built() && !slices.Contains(args, "--watch") {
		args = append(args, "--skip-build")
	}
	app, err := local.Serve(t.Context(), tools, p.dir, p.addr, p.log, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(app.Stop)
	return app
}

func (p *project) built() bool {
	_, err := os.Stat(filepath.Join(p.dir, "bin/main.wasm"))
	return err == nil
}

func (p *project) url(target string) string { return "http://" + p.addr + target }

// publish publishes one message in these formats to the demo's channel, directly to the proxy.
func (p *project) publish(t *testing.T, formats string) {
	t.Helper()
	url := fmt.Sprintf("http://localhost:%d/publish/", p.PublishPort)
	p.run(t, ".", "curl", "-fsS", url, "-d", `{"items":[{"channel":"demo","formats":{`+formats+`}}]}`)
}

// waitForLog waits until one of the project's processes logs the text. It does not look at
// lines before the last match.
func (p *project) waitForLog(t *testing.T, text string) {
	t.Helper()
	p.log.wait(t, regexp.QuoteMeta(text), nil, patience)
}

// freePorts returns the first of n ports in a row that nothing listens on.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	first, err := local.FreePorts(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// waitFree waits until no process listens on the addresses. The system may close the sockets of a
// process a moment after the process ends, because one of its threads is still ending.
func waitFree(t *testing.T, addrs ...string) {
	t.Helper()
	err := local.CheckFree(t.Context(), addrs...)
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		err = local.CheckFree(t.Context(), addrs...)
	}
	if err != nil {
		t.Errorf("after the programs ended: %v", err)
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
