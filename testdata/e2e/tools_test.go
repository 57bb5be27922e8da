package e2e

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestTools runs the command behind the Makefile with some programs missing. The command says
// what to install by hand, or finds another way.
func TestTools(t *testing.T) {
	t.Parallel()
	kit := filepath.Join(t.TempDir(), "kit")
	if out, err := exec.Command("go", "build", "-o", kit, "../kit").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const nowhere = "http://127.0.0.1:1" // an address where nothing listens, for a machine without network

	for _, tt := range []struct {
		name    string
		path    map[string]string // what is on PATH: a script that prints this, or, for "", the real program
		cached  []string          // the places of fastly and viceroy in the cache, which is also HOME
		command string            // for the shell; by default, kit tools
		ok      bool              // whether it succeeds
		says    []string
	}{
		{
			name: "nothing", // it reports all together
			path: map[string]string{"fastly": "version v1.2.3"},
			says: []string{
				"/fastly, version 1.2.3: ", " or newer is needed", "or newer on PATH, and no npm", "https://nodejs.org/",
				"https://www.fastly.com/documentation/reference/tools/cli/",
				"no Pushpin ", "neither Homebrew nor apt-get", "https://pushpin.org/docs/install/",
			},
		},
		{
			name: "no network for npm, and an old package of Pushpin",
			path: map[string]string{
				"npm": "", "node": "", "sh": "", "env": "",
				"apt-get": "ok", "sudo": "ok", "apt-cache": "pushpin:\n  Candidate: 1.30.0-1",
			},
			says: []string{
				"(it has 1.30.0)", "https://pushpin.org/docs/install/", "check the network and try again",
				"https://www.fastly.com/documentation/reference/tools/cli/",
			},
		},
		{
			name: "no network for Viceroy, and no package of Pushpin",
			path: map[string]string{
				"cargo": "not a version", "apt-get": "ok", "sudo": "ok",
				"apt-cache": "pushpin:\n  Candidate: (none)\n  Version table:\n     1.36.0",
			},
			cached: []string{"fastly-99.0.0/fastly"},
			says: []string{
				"(it has none)", "Fetching Viceroy release: 0.", "downloading Viceroy failed",
				"cargo, version unknown: ", " or newer is needed", "https://rustup.rs/", "https://github.com/fastly/Viceroy",
			},
		},
		{
			name:   "Viceroy of the Fastly CLI, on Linux and macOS",
			path:   map[string]string{"pushpin": ""},
			cached: []string{"fastly-99.0.0/fastly", ".config/fastly/viceroy", "Library/Application Support/fastly/viceroy"},
			ok:     true,
			says:   []string{"Viceroy     {dir}/viceroy-"},
		},
		{
			name:    "the newest Fastly CLI alone",
			cached:  []string{"fastly-99.0.0/fastly", "fastly-100.0.0/fastly"},
			command: `kit env fastly && { (trap '' PIPE; while echo; do :; done) 2>/dev/null; kit env fastly; echo "closed pipe: $?" >&2; } | :`,
			ok:      true,
			says:    []string{"export PATH='{dir}/fastly-100.0.0':", "closed pipe: 0"},
		},
		{
			name:    "a build, with the Fastly CLI alone",
			cached:  []string{"fastly-99.0.0/fastly"},
			command: "kit build",
			says:    []string{"fastly.toml"},
		},
		{
			name:    "what env puts on PATH, with a wrapper of an old Pushpin",
			path:    map[string]string{"pushpin": "pushpin 1.36.0"},
			cached:  []string{"fastly-99.0.0/fastly", "viceroy-99.0.0/viceroy"},
			command: `eval "$(kit env)" && command -v fastly && command -v viceroy && command -v pushpin && kit env && exec pushpin --verbose a b`,
			ok:      true,
			says: []string{
				"{dir}/fastly-99.0.0/fastly\n{dir}/viceroy-99.0.0/viceroy\n{dir}/pushpin-1.36.0/pushpin\n",
				"export FASTLY_VICEROY_USE_PATH=1\npushpin 1.36.0 --verbose a b\n", // and not the wrapper of the wrapper
			},
		},
		{
			name:    "bad addresses",
			command: "for a in 7676 127.0.0.1: 127.0.0.1:app :7676 127.0.0.1:76767; do kit -addr $a serve; done",
			says: []string{
				`"7676" is not host:port, such as 127.0.0.1:7676`, `"127.0.0.1:" is not`,
				`"127.0.0.1:app" is not`, `":7676" is not`, `"127.0.0.1:76767" is not`,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bin, dir := filepath.Join(t.TempDir(), "it's a $place"), t.TempDir()
			link(t, kit, filepath.Join(bin, "kit"))
			for name, prints := range tt.path {
				path, script := filepath.Join(bin, name), []byte("#!/bin/sh\necho '"+prints+"' \"$@\"\n")
				if program, err := exec.LookPath(name); prints == "" && err == nil {
					link(t, program, path)
				} else if err := os.WriteFile(path, script, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, place := range tt.cached {
				program := map[string]string{"fastly": tools.Fastly, "viceroy": tools.Viceroy}[filepath.Base(place)]
				link(t, program, filepath.Join(dir, place))
			}
			cmd := exec.CommandContext(withPatience(t), "/bin/sh", "-c", cmp.Or(tt.command, "kit tools"))
			cmd.Env = []string{
				"PATH=" + bin, "HOME=" + dir, local.CacheVariable + "=" + dir + "/",
				"HTTPS_PROXY=" + nowhere, "npm_config_registry=" + nowhere, "npm_config_fetch_retries=0",
			}
			out, err := cmd.CombinedOutput()
			for _, want := range tt.says {
				want = strings.ReplaceAll(want, "{dir}", dir)
				if !strings.Contains(string(out), want) || (err == nil) != tt.ok {
					t.Errorf("got %v; want success: %t, and %q\n%s", err, tt.ok, want, out)
				}
			}
		})
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
