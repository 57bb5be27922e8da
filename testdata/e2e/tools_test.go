package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTools runs tools.sh on a machine that has only some programs, which are stand-ins.
func TestTools(t *testing.T) {
	t.Parallel()
	home := filepath.Join(t.TempDir(), "it's a $home")
	sh(t, ".", `mkdir -p "$2"; for name in $1; do ln -s "$(command -v $name)" "$2"; done`,
		"sh sed sort head grep ln mv rm mkdir find readlink uname id cat tr chmod printf sleep",
		filepath.Join(home, "system"))
	program := func(path, script string) { // in the home directory
		path = filepath.Join(home, path)
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755)
	}
	check := func(script string, texts ...string) { // the script must print the texts
		t.Helper()
		out := sh(t, "..", `env -i HOME="$1" PATH="$1/bin:$1/system" sh -c "$2"`,
			home, "tools() { ./tools.sh; }; "+script)
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%s does not print %q:\n%s", script, text, out)
			}
		}
	}
	const use = `eval "$(tools)"; `

	// All is missing or too old, and nothing is installed.
	program("bin/fastly", "echo version v1.2.3")
	program("bin/pushpin", "echo pushpin 1.35.9")
	check("! tools",
		"fastly, version 1.2.3: 15.4.0 or newer is needed",
		"pushpin, version 1.35.9: 1.36.0 or newer is needed",
		"- the Fastly CLI 15.4.0: install npm",
		"- Pushpin 1.36.0: see https://pushpin.org")

	// Viceroy cannot be downloaded, or what was downloaded cannot run. Then cargo builds it. While that
	// is interrupted, nothing is used.
	program("bin/fastly", "case $* in *install-tools*) exit 1 ;; esac; echo version v99.0.0")
	program("bin/pushpin", `echo pushpin 1.36.0 "$@"`)
	check("! tools",
		"- Viceroy 0.19.0: if it cannot be downloaded, install Rust 1.95.0")
	program(".config/fastly/viceroy", "exit 1")
	const cargo = "[ $1 = --version ] && echo cargo 99.0.0 && exit\n"
	program("bin/cargo", cargo+"exit 130")
	check("! tools", "building Viceroy")
	program("bin/cargo", cargo+`while [ "$1" != --root ]; do shift; done; mkdir -p "$2/bin"
		printf '#!/bin/sh\necho viceroy 98.0.0\n' >"$2/bin/viceroy"; chmod +x "$2/bin/viceroy"`)
	check(use+"command -v viceroy; viceroy", "fanout-forward-go/bin/viceroy\nviceroy 98.0.0\n")

	// An old Pushpin gets a wrapper, which does not wrap itself. A new one needs none.
	check(use+use+"pushpin --verbose a", "pushpin 1.36.0 --verbose a\n")
	program("bin/pushpin", "echo pushpin 1.41.0")
	check(use+`readlink "$(command -v pushpin)"`, "/bin/pushpin\n")

	// npm's script would leave the CLI behind when it is stopped.
	program("npm/@fastly/cli/fastly.js", "exit 1")
	program("npm/@fastly/cli-linux-x64/fastly", "echo version v99.0.0")
	program("bin/viceroy", "echo viceroy 99.0.0")
	sh(t, home, "ln -sf ../npm/@fastly/cli/fastly.js bin/fastly")
	check(use+`readlink "$(command -v fastly)"; viceroy`, "cli-linux-x64/fastly\nviceroy 99.0.0\n")

	check("! tools 2>/dev/null | grep -v ^export") // nothing else goes to stdout
}
