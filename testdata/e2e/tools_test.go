package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestTools runs `kit tools`, the command behind `make tools`, with some programs missing. It says what to install by
// hand, or finds another way.
func TestTools(t *testing.T) {
	t.Parallel()
	kit := filepath.Join(t.TempDir(), "kit")
	if out, err := exec.Command("go", "build", "-o", kit, "../kit").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const nowhere = "http://127.0.0.1:1" // an address where nothing listens, for a machine without network

	tests := []struct {
		name    string
		onPath  []string          // the only programs on PATH, looked up on the real one
		scripts map[string]string // more programs, scripts that only print this text
		cached  []string          // the tools that are in the cache
		env     []string
		viceroy bool // whether the CLI has downloaded a Viceroy before
		fails   bool // whether kit must fail
		says    []string
	}{
		{
			name: "neither npm nor anything to install Pushpin with", fails: true, // it reports both together
			says: []string{
				"or newer on PATH, and no npm", "https://nodejs.org/", "https://www.fastly.com/documentation/reference/tools/cli/",
				"no Pushpin ", "neither Homebrew nor apt-get", "https://pushpin.org/docs/install/",
			},
		},
		{
			name: "too old on PATH", fails: true, scripts: map[string]string{"fastly": "version v1.2.3"},
			says: []string{"/fastly, version 1.2.3: this needs ", "no npm"},
		},
		{
			name: "no network for npm", fails: true,
			onPath: []string{"npm", "node", "sh", "env"},
			env:    []string{"npm_config_registry=" + nowhere, "npm_config_fetch_retries=0"},
			says:   []string{"installing the Fastly CLI", "check the network and try again", "https://www.fastly.com/documentation/reference/tools/cli/"},
		},
		{
			name: "no network and no cargo", fails: true,
			onPath: []string{"pushpin"}, cached: []string{"fastly"},
			says: []string{"downloading Viceroy failed", "no cargo", "https://rustup.rs/", "https://github.com/fastly/Viceroy"},
		},
		{
			name: "a cargo that is too old", fails: true, scripts: map[string]string{"cargo": "cargo 1.63.0"},
			onPath: []string{"pushpin"}, cached: []string{"fastly"},
			says: []string{"cargo, version 1.63.0: this needs ", "downloading Viceroy failed", "https://rustup.rs/"},
		},
		{
			name: "a package manager that has no Pushpin", fails: true,
			scripts: map[string]string{"apt-get": "", "sudo": "", "apt-cache": "pushpin:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n     1.36.0"},
			cached:  []string{"fastly"},
			says:    []string{"no Pushpin ", "downloading Viceroy failed"},
		},
		{
			name: "a package manager whose Pushpin is too old", fails: true,
			scripts: map[string]string{"apt-get": "", "sudo": "", "apt-cache": "pushpin:\n  Installed: (none)\n  Candidate: 1.30.0-1"},
			cached:  []string{"fastly", "viceroy"},
			says:    []string{"no Pushpin ", "apt-get has 1.30.0", "https://pushpin.org/docs/install/"},
		},
		{
			name:   "Viceroy by the Fastly CLI",
			onPath: []string{"pushpin"}, cached: []string{"fastly"}, viceroy: true,
			says: []string{"Viceroy     {cache}/viceroy-"},
		},
		{
			name:   "all there",
			onPath: []string{"pushpin", "fastly", "viceroy"}, cached: []string{"fastly", "viceroy"},
			says: []string{"Fastly CLI  ", "Viceroy     ", "Pushpin     "},
		},
		{
			name: "a cache that is no absolute path", fails: true,
			env:  []string{local.CacheVariable + "=cache"},
			says: []string{local.CacheVariable, "must be an absolute path"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bin, cache, home := t.TempDir(), t.TempDir(), t.TempDir()
			for _, program := range tt.onPath {
				if path, err := exec.LookPath(program); err == nil {
					link(t, path, filepath.Join(bin, program))
				}
			}
			for name, prints := range tt.scripts {
				if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho '"+prints+"'\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, tool := range tt.cached {
				path := map[string]string{"fastly": tools.Fastly, "viceroy": tools.Viceroy}[tool]
				link(t, path, filepath.Join(cache, tool+"-99.0.0", tool))
			}
			if tt.viceroy {
				config := ".config/fastly"
				if runtime.GOOS == "darwin" {
					config = "Library/Application Support/fastly"
				}
				link(t, tools.Viceroy, filepath.Join(home, config, "viceroy"))
			}
			cmd := exec.Command(kit, "tools")
			cmd.Env = append([]string{"PATH=" + bin, "HOME=" + home, "HTTPS_PROXY=" + nowhere, local.CacheVariable + "=" + cache}, tt.env...)
			out, err := cmd.CombinedOutput()
			if (err != nil) != tt.fails {
				t.Errorf("got %v; want an error: %t", err, tt.fails)
			}
			for _, want := range tt.says {
				if want = strings.ReplaceAll(want, "{cache}", cache); !strings.Contains(string(out), want) {
					t.Errorf("the output lacks %q", want)
				}
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}

// TestEnv checks that kit finds the programs that `kit env` puts on PATH, and that they run. It must not wrap the
// wrapper again: then the wrapper would start itself again and again.
func TestEnv(t *testing.T) {
	t.Parallel()
	script := `eval "$(go run ../kit env)" && go run ../kit tools && command -v fastly && command -v viceroy && command -v pushpin && echo "$FASTLY_VICEROY_USE_PATH" && pushpin --version`
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	want := "Fastly CLI  " + tools.Fastly + "\nViceroy     " + tools.Viceroy + "\nPushpin     " + tools.Pushpin + "\n" +
		tools.Fastly + "\n" + tools.Viceroy + "\n" + tools.Pushpin + "\n1\npushpin "
	if err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("got %v and\n%swant\n%s\n%s", err, out, want, &stderr)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
