package e2e

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
)

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
