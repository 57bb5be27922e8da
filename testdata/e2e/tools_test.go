package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTools runs tools.sh on a machine that has only some programs, which are stand-ins. At each step
// there are other programs. A script, for which the command tools is tools.sh, must print the texts.
func TestTools(t *testing.T) {
	t.Parallel()
	const use = `eval "$(tools)"; `
	home := filepath.Join(t.TempDir(), "it's a $home")
	system := filepath.Join(home, "system")
	sh(t, ".", `mkdir -p "$2"; for name in $1; do ln -s "$(command -v $name)" "$2"; done`,
		"sh sed sort head grep ln mv rm mkdir find readlink uname id cat tr chmod printf sleep", system)
	for _, step := range []struct {
		name     string
		programs map[string]string // path in the home directory, and what follows #!/bin/sh
		script   string
		says     []string
	}{
		{"all is missing or too old, and nothing is installed", map[string]string{
			"bin/fastly":  "echo version v1.2.3",
			"bin/pushpin": "echo pushpin 1.35.9",
		}, "! tools", []string{
			"fastly, version 1.2.3: 15.4.0 or newer is needed",
			"pushpin, version 1.35.9: 1.36.0 or newer is needed",
			"- the Fastly CLI 15.4.0: install npm",
			"- Pushpin 1.36.0: see https://pushpin.org",
		}},
		{"Viceroy cannot be downloaded", map[string]string{
			"bin/fastly":  "case $* in *install-tools*) exit 1 ;; esac; echo version v99.0.0",
			"bin/pushpin": `echo pushpin 1.36.0 "$@"`,
		}, "! tools", []string{"- Viceroy 0.19.0: if it cannot be downloaded, install Rust 1.95.0 (https://rustup.rs/)"}},
		{"cargo is interrupted, so nothing is used", map[string]string{
			"bin/cargo":              `[ "$1" = --version ] && echo cargo 99.0.0 && exit; exit 130`,
			".config/fastly/viceroy": "exit 1", // was downloaded, but cannot run
		}, "! tools", []string{"building Viceroy"}},
		{"cargo builds Viceroy", map[string]string{
			"bin/cargo": `[ "$1" = --version ] && echo cargo 99.0.0 && exit
				while [ "$1" != --root ]; do shift; done; mkdir -p "$2/bin"
				printf '#!/bin/sh\necho viceroy 98.0.0\n' >"$2/bin/viceroy"; chmod +x "$2/bin/viceroy"`,
		}, use + "command -v viceroy; viceroy", []string{"fanout-forward-go/bin/viceroy\nviceroy 98.0.0\n"}},
		{"an old Pushpin gets a wrapper, which does not wrap itself", nil,
			use + use + "pushpin --verbose a", []string{"pushpin 1.36.0 --verbose a\n"}},
		{"a new Pushpin needs no wrapper", map[string]string{"bin/pushpin": "echo pushpin 1.41.0"},
			use + `readlink "$(command -v pushpin)"`, []string{"/bin/pushpin\n"}},
		{"npm's script would leave the CLI behind when it is stopped", map[string]string{
			"npm/@fastly/cli/fastly.js":        "exit 1",
			"npm/@fastly/cli-linux-x64/fastly": "echo version v99.0.0",
			"bin/viceroy":                      "echo viceroy 99.0.0",
		}, `ln -sf ../npm/@fastly/cli/fastly.js "$HOME/bin/fastly"; ` + use + `readlink "$(command -v fastly)"; viceroy`,
			[]string{"cli-linux-x64/fastly\nviceroy 99.0.0\n"}},
		{"only exports go to stdout", nil, "! tools 2>/dev/null | grep -v ^export", nil},
	} {
		t.Log(step.name)
		for path, content := range step.programs {
			path = filepath.Join(home, path)
			os.MkdirAll(filepath.Dir(path), 0o755)
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+content+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		out := sh(t, "..", `env -i HOME="$1" PATH="$1/bin:$1/system" sh -c "tools() { ./tools.sh; }; $2"`, home, step.script)
		for _, text := range step.says {
			if !strings.Contains(out, text) {
				t.Errorf("tools.sh does not say %q:\n%s", text, out)
			}
		}
	}
}
