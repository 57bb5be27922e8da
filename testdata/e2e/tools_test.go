package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTools runs tools.sh on machines that have only some programs, which are stand-ins.
func TestTools(t *testing.T) {
	t.Parallel()
	const (
		fastly  = "#!/bin/sh\ncase $* in *install-tools*) exit 1 ;; esac\necho version v99.0.0\n"
		viceroy = "#!/bin/sh\necho viceroy 99.0.0\n"
		pushpin = "#!/bin/sh\necho pushpin 1.36.0 \"$@\"\n"
		cargo   = "#!/bin/sh\n[ \"$1\" = --version ] && echo cargo 99.0.0 && exit\n" +
			"while [ \"$1\" != --root ]; do shift; done\nmkdir -p \"$2/bin\"\n" +
			"printf '#!/bin/sh\\necho viceroy 98.0.0\\n' >\"$2/bin/viceroy\"; chmod +x \"$2/bin/viceroy\"\n"
		interrupted = "#!/bin/sh\n[ \"$1\" = --version ] && echo cargo 99.0.0 && exit\nexit 130\n"
	)
	m := machine{filepath.Join(t.TempDir(), "it's a $home")}
	// It names all that is missing, and what is too old, and installs nothing.
	m.write(t, map[string]string{"bin/fastly": "#!/bin/sh\necho version v1.2.3\n"})
	m.run(t, "tools", false, "fastly, version 1.2.3: 15.4.0 or newer is needed",
		"- the Fastly CLI 15.4.0: install npm", "- Pushpin 1.36.0: see https://pushpin.org")
	m.write(t, map[string]string{"bin/fastly": fastly, "bin/pushpin": pushpin})
	m.run(t, "tools", false, "- Viceroy 0.19.0: if it cannot be downloaded, install Rust 1.95.0 (https://rustup.rs/)")

	// The download fails, or what was downloaded cannot run, so cargo builds Viceroy. If it is
	// interrupted, nothing half-built is used.
	m.write(t, map[string]string{"bin/cargo": interrupted, ".config/fastly/viceroy": "#!/bin/sh\nexit 1\n"})
	m.run(t, "tools", false, "building Viceroy")
	m.write(t, map[string]string{"bin/cargo": cargo})
	m.run(t, "eval \"$(tools)\" && command -v viceroy && viceroy", true, "fanout-forward-go/bin/viceroy\nviceroy 98.0.0\n")

	// An old Pushpin gets a wrapper, which does not wrap itself, and which goes when Pushpin is newer.
	m.run(t, `eval "$(tools)"; eval "$(tools)"; pushpin --verbose a`, true, "pushpin 1.36.0 --verbose a\n")
	m.write(t, map[string]string{"bin/pushpin": strings.Replace(pushpin, "1.36", "1.41", 1)})
	m.run(t, `eval "$(tools)"; readlink "$(command -v pushpin)"`, true, "/bin/pushpin\n")

	// npm puts a script on PATH, which would leave the CLI behind when it is stopped.
	m.write(t, map[string]string{
		"npm/@fastly/cli/fastly.js":        "#!/bin/sh\nexit 1\n",
		"npm/@fastly/cli-linux-x64/fastly": fastly,
		"bin/viceroy":                      viceroy,
	})
	os.Remove(filepath.Join(m.home, "bin/fastly"))
	os.Symlink("../npm/@fastly/cli/fastly.js", filepath.Join(m.home, "bin/fastly"))
	m.run(t, `eval "$(tools)"; readlink "$(command -v fastly)"; viceroy`, true, "cli-linux-x64/fastly\nviceroy 99.0.0\n")

	// stdout has only the two lines.
	if got := m.run(t, "tools 2>/dev/null", true); strings.Count(got, "\n") != 2 || !strings.HasPrefix(got, "export PATH=") {
		t.Errorf("tools.sh prints %q", got)
	}
}

// machine is a machine with the programs in home/bin and those that every system has.
type machine struct{ home string }

func (m machine) write(t *testing.T, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(m.home, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs a script, for which the command tools is tools.sh, and returns the output, which must
// have the texts.
func (m machine) run(t *testing.T, script string, ok bool, says ...string) string {
	t.Helper()
	system := filepath.Join(m.home, "system")
	os.MkdirAll(system, 0o755)
	for _, name := range strings.Fields("sh sed sort head grep ln mv rm mkdir find readlink uname id cat tr chmod printf sleep") {
		if path, err := exec.LookPath(name); err == nil {
			os.Symlink(path, filepath.Join(system, name))
		}
	}
	path, _ := filepath.Abs("../tools.sh")
	cmd := exec.CommandContext(withPatience(t), "/bin/sh", "-c", "tools() { sh '"+path+"'; }\n"+script)
	cmd.Env = []string{"HOME=" + m.home, "PATH=" + m.home + "/bin:" + system}
	out, err := cmd.CombinedOutput()
	for _, want := range says {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s does not print %q:\n%s", script, want, out)
		}
	}
	if (err == nil) != ok {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}
