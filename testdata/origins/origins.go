// Package origins finds, installs and starts origins in other languages, for `make demo
// ORIGIN=` and the tests. README.md says which files such an origin has.
package origins

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// Ours are the directories, beside this file, of the origins that the tests run.
var Ours = []string{"node", "python"}

// Program is the program of an origin, in its directory.
type Program struct {
	dir  string // the absolute path
	node bool   // false: Python
}

// Find returns the program of the origin in dir. If Node.js with npm, or Python with venv, is missing
// for it, the error says where to get it.
func Find(ctx context.Context, dir string) (o Program, err error) {
	if o.dir, err = filepath.Abs(dir); err != nil {
		return o, err
	}
	switch {
	case o.has("package.json"):
		o.node = true
		var file struct{ Scripts struct{ Start string } }
		content, err := os.ReadFile(o.path("package.json"))
		if err == nil {
			err = json.Unmarshal(content, &file)
		}
		if err != nil || file.Scripts.Start == "" {
			return o, fmt.Errorf("%s: package.json has no script \"start\"", dir)
		}
		for _, program := range []string{"node", "npm"} {
			if _, err := exec.LookPath(program); err != nil {
				return o, fmt.Errorf("%s is an origin in JavaScript, but there is no %s on PATH: "+
					"install Node.js with npm (https://nodejs.org/; on Debian: "+
					"sudo apt-get install nodejs npm)", dir, program)
			}
		}
	case o.has("requirements.txt") && o.has("app.py"):
		// Debian packages ensurepip separately. Without it, venv fails later.
		if err := exec.CommandContext(ctx, "python3", "-c", "import venv, ensurepip").Run(); err != nil {
			return o, fmt.Errorf("%s is an origin in Python, but there is no python3 with venv on PATH: "+
				"install it (https://www.python.org/downloads/; on Debian: "+
				"sudo apt-get install python3-venv)", dir)
		}
	default:
		return o, fmt.Errorf("%s is not the directory of an origin: it has neither package.json "+
			"nor app.py with requirements.txt (see testdata/origins/README.md)", dir)
	}
	return o, nil
}

func (o Program) path(name string) string { return filepath.Join(o.dir, name) }

func (o Program) has(name string) bool {
	_, err := os.Stat(o.path(name))
	return err == nil
}

// Install installs the origin's libraries into its directory, unless they are there,
// and returns the command that starts it. Progress goes to out. Several processes may
// call Install at the same time.
func (o Program) Install(ctx context.Context, out io.Writer) (*exec.Cmd, error) {
	lock := flock.New(o.dir, flock.SetFlag(os.O_RDONLY)) // so no lock file stays
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock %s: %w", o.dir, err)
	}
	defer lock.Close()
	install, cmd := o.installPython, exec.Command(o.path(".venv/bin/python"), "app.py")
	if o.node {
		install, cmd = o.installNode, exec.Command("npm", "start", "--silent")
	}
	cmd.Dir = o.dir
	if err := install(ctx, out); err != nil {
		return nil, fmt.Errorf("install the libraries of the origin in %s: %w", o.dir, err)
	}
	return cmd, nil
}

// installNode compares the times of package-lock.json and npm's copy in node_modules, as npm does.
func (o Program) installNode(ctx context.Context, out io.Writer) error {
	want, err := os.Stat(o.path("package-lock.json"))
	if err != nil {
		if o.has("node_modules") {
			return nil // installed by the user or another package manager
		}
		return o.run(ctx, out, "npm", "install", "--no-audit", "--no-fund")
	}
	have, err := os.Stat(o.path("node_modules/.package-lock.json"))
	if err == nil && !have.ModTime().Before(want.ModTime()) {
		return nil
	}
	return o.run(ctx, out, "npm", "ci", "--no-audit", "--no-fund")
}

// installPython keeps a copy of requirements.txt, with Python's
// version, beside what it installed.
func (o Program) installPython(ctx context.Context, out io.Writer) error {
	want, err := os.ReadFile(o.path("requirements.txt"))
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, "python3", "--version").Output()
	if err != nil {
		return fmt.Errorf("python3 --version: %w", err)
	}
	want = append(append(want, "\n# for "...), version...)
	installed := o.path(".venv/installed.txt")
	have, _ := os.ReadFile(installed)
	if bytes.Equal(have, want) {
		return nil
	}
	if !bytes.HasSuffix(have, version) { // there is no .venv, or another Python made it
		if err := o.run(ctx, out, "python3", "-m", "venv", ".venv"); err != nil {
			return err
		}
	}
	err = o.run(ctx, out, o.path(".venv/bin/python"), "-m", "pip", "install",
		"--use-pep517", "--disable-pip-version-check", "-r", "requirements.txt")
	if err != nil {
		return err
	}
	return os.WriteFile(installed, want, 0o644)
}

func (o Program) run(ctx context.Context, out io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	fmt.Fprintf(out, "origin: %s: %s (takes up to a minute)\n", o.dir, cmd)
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.dir, out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w; see its output above", cmd, err)
	}
	return nil
}
