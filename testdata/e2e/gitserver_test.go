package e2e

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kitName is the name of the kit's repository.
const kitName = "compute-starter-kit-go-fanout-forward"

// serveKit makes a git repository of this project, without the files in .gitignore. It serves the repository over
// HTTP, as GitHub does, until this process ends.
func serveKit() (url string, err error) {
	for _, variable := range os.Environ() { // git sets some in its hooks, and a hook may run the tests
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "GIT_") {
			os.Unsetenv(name)
		}
	}
	root, err := os.MkdirTemp("", "kit")
	if err != nil {
		return "", err
	}
	// The user's git settings must not apply: they might sign commits, ignore more files, or use a proxy for 127.0.0.1.
	config := filepath.Join(root, "config")
	if err := os.WriteFile(config, []byte("[user]\nname = test\nemail = test@example.com\n[http]\nproxy =\n"), 0o644); err != nil {
		return "", err
	}
	os.Setenv("GIT_CONFIG_GLOBAL", config)
	os.Setenv("GIT_CONFIG_NOSYSTEM", "1")

	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message=The kit"}} {
		args = append([]string{"--git-dir=" + filepath.Join(root, kitName), "--work-tree=../.."}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("make a git repository of this project: git %q: %w\n%s", args, err, out)
		}
	}
	programs, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return "", fmt.Errorf("git --exec-path: %w", err)
	}
	backend, err := exec.LookPath(filepath.Join(strings.TrimSpace(string(programs)), "git-http-backend"))
	if err != nil {
		return "", fmt.Errorf("%w; install all of git: some systems split it into several packages", err)
	}
	server := http.NewServeMux()
	server.HandleFunc("/"+kitName, func(http.ResponseWriter, *http.Request) {}) // the page for browsers, which the CLI requests first
	server.Handle("/", &cgi.Handler{
		Path: backend,
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	})
	return httptest.NewServer(server).URL + "/" + kitName, nil
}
