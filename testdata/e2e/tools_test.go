package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestTools runs the command behind `make tools` with some programs missing. It says what to install by hand, or finds
// another way.
func TestTools(t *testing.T) {
	t.Parallel()
	kit := filepath.Join(t.TempDir(), "kit")
	if out, err := exec.Command("go", "build", "-o", kit, "../kit").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const nowhere = "http://127.0.0.1:1" // an address where nothing listens, for a machine without network

	for _, tt := range []struct {
		name    string
		onPath  []string          // the only programs on PATH, looked up on the real one
		scripts map[string]string // more programs, scripts that only print this text
		cached  []string          // the tools that are in the cache
		command []string          // the command, if it is not tools
		env     []string
		ok      bool // whether the command succeeds
		says    []string
	}{
		{
			name: "nothing", scripts: map[string]string{"fastly": "version v1.2.3"}, // it reports all together
			says: []string{
				"/fastly, version 1.2.3: this needs ", "or newer on PATH, and no npm", "https://nodejs.org/",
				"https://www.fastly.com/documentation/reference/tools/cli/",
				"no Pushpin ", "neither Homebrew nor apt-get", "https://pushpin.org/docs/install/",
			},
		},
		{
			name: "no network for npm", onPath: []string{"npm", "node", "sh", "env"},
			env:  []string{"npm_config_registry=" + nowhere, "npm_config_fetch_retries=0"},
			says: []string{"installing the Fastly CLI", "check the network and try again", "https://www.fastly.com/documentation/reference/tools/cli/"},
		},
		{
			name: "no network for Viceroy", onPath: []string{"pushpin"}, cached: []string{"fastly"}, scripts: map[string]string{"cargo": "cargo 1.63.0"},
			says: []string{
				"Fetching Viceroy release: 0.", "downloading Viceroy failed", "cargo, version 1.63.0: this needs ",
				"https://rustup.rs/", "https://github.com/fastly/Viceroy",
			},
		},
		{
			name:    "no package of Pushpin",
			scripts: map[string]string{"apt-get": "", "sudo": "", "apt-cache": "pushpin:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n     1.36.0"},
			cached:  []string{"fastly"}, says: []string{"no Pushpin ", "apt-get has none", "downloading Viceroy failed"},
		},
		{
			name:    "an old package of Pushpin",
			scripts: map[string]string{"apt-get": "", "sudo": "", "apt-cache": "pushpin:\n  Installed: (none)\n  Candidate: 1.30.0-1"},
			cached:  []string{"fastly", "viceroy"}, says: []string{"no Pushpin ", "apt-get has 1.30.0", "https://pushpin.org/docs/install/"},
		},
		{
			name: "Viceroy of the Fastly CLI", onPath: []string{"pushpin"}, cached: []string{"fastly"}, env: []string{"HOME={home}"}, ok: true,
			says: []string{"Viceroy     {cache}/viceroy-"},
		},
		{
			name: "the Fastly CLI alone", cached: []string{"fastly"}, command: []string{"env", "fastly"}, ok: true,
			says: []string{"export PATH='{cache}/fastly-99.0.0':"},
		},
		{
			name: "a cache that is no absolute path", env: []string{local.CacheVariable + "=cache"},
			says: []string{local.CacheVariable, "must be an absolute path"},
		},
	} {
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
			config := ".config/fastly"
			if runtime.GOOS == "darwin" {
				config = "Library/Application Support/fastly"
			}
			link(t, tools.Viceroy, filepath.Join(home, config, "viceroy")) // as the CLI downloads it
			cmd := exec.Command(kit, append(tt.command, "tools")[:max(1, len(tt.command))]...)
			cmd.Env = append([]string{"PATH=" + bin, "HOME=" + t.TempDir(), "HTTPS_PROXY=" + nowhere, local.CacheVariable + "=" + cache}, tt.env...)
			for i, v := range cmd.Env {
				cmd.Env[i] = strings.ReplaceAll(v, "{home}", home)
			}
			out, err := cmd.CombinedOutput()
			if (err == nil) != tt.ok {
				t.Errorf("got %v; want success: %t", err, tt.ok)
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
	cache := t.TempDir()
	link(t, tools.Fastly, filepath.Join(cache, "fastly-99.0.0/fastly"))
	link(t, tools.Viceroy, filepath.Join(cache, "viceroy-99.0.0/viceroy"))
	script := `eval "$(go run ../kit env)" && go run ../kit tools && command -v fastly && command -v viceroy && command -v pushpin && echo "$FASTLY_VICEROY_USE_PATH" && exec pushpin --version`
	cmd := exec.CommandContext(withPatience(t), "sh", "-c", script)
	cmd.Env = append(os.Environ(), local.CacheVariable+"="+cache)
	out, err := cmd.CombinedOutput()
	lines := strings.Split(string(out), "\n")
	if err != nil || len(lines) < 8 || lines[6] != "1" || !strings.HasPrefix(lines[7], "pushpin ") {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, name := range []string{"Fastly CLI  ", "Viceroy     ", "Pushpin     "} {
		if lines[i] != name+lines[i+3] {
			t.Errorf("kit tools has %q, but on PATH is %s", lines[i], lines[i+3])
		}
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
