// Package origins runs origins that are written in other languages, for `make demo ORIGIN=` and the tests. Each has its
// own directory. README.md says which files are in such a directory.
package origins

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Ours has the directories of the origins that the tests run. They are beside this file.
var Ours = []string{"node", "python"}

// Origin is an origin in its directory.
type Origin struct {
	dir  string // the absolute path
	node bool   // false: Python
}

// Find returns the origin in dir. It also checks that the programs for it are installed: Node.js and npm, or Python with
// venv. The error says what is missing, and where to get it.
func Find(ctx context.Context, dir string) (Origin, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Origin{}, err
	}
	o := Origin{dir: abs}
	switch {
	case o.has("package.json"):
		o.node = true
		var file struct{ Scripts struct{ Start string } }
		if content, err := os.ReadFile(o.path("package.json")); err != nil {
			return Origin{}, err
		} else if err := json.Unmarshal(content, &file); err != nil || file.Scripts.Start == "" {
			return Origin{}, fmt.Errorf("%s: package.json has no script \"start\", which must start the origin", dir)
		}
		for _, program := range []string{"node", "npm"} {
			if _, err := exec.LookPath(program); err != nil {
				return Origin{}, fmt.Errorf("%s is an origin in JavaScript, and there is no %s on PATH: install Node.js with npm (https://nodejs.org/; on Debian: sudo apt-get install nodejs npm)", dir, program)
			}
		}
	case o.has("requirements.txt") && o.has("app.py"):
		if _, err := exec.LookPath("python3"); err != nil {
			return Origin{}, fmt.Errorf("%s is an origin in Python, and there is no python3 on PATH: install it (https://www.python.org/downloads/; on Debian: sudo apt-get install python3-venv)", dir)
		}
		// Debian has ensurepip in another package. Without ensurepip, venv fails later.
		if err := exec.CommandContext(ctx, "python3", "-c", "import venv, ensurepip").Run(); err != nil {
			return Origin{}, fmt.Errorf("%s is an origin in Python, and this python3 cannot make virtual environments: on Debian and Ubuntu, sudo apt-get install python3-venv", dir)
		}
	default:
		return Origin{}, fmt.Errorf("%s is not the directory of an origin: it has no package.json, and no app.py with requirements.txt (testdata/origins/README.md says more)", dir)
	}
	return o, nil
}

func (o Origin) has(name ...string) bool {
	_, err := os.Stat(o.path(name...))
	return err == nil
}

func (o Origin) path(name ...string) string {
	return filepath.Join(append([]string{o.dir}, name...)...)
}

// Install installs the origin's libraries into its directory, if they are missing, and returns the command that starts
// the origin. The progress goes to out. Several processes may call Install at the same time.
func (o Origin) Install(ctx context.Context, out io.Writer) (*exec.Cmd, error) {
	unlock, err := o.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	install, cmd := o.installPython, exec.Command(o.path(".venv", "bin", "python"), "app.py")
	if o.node {
		install, cmd = o.installNode, exec.Command("npm", "start", "--silent")
	}
	cmd.Dir = o.dir
	if err := install(ctx, out); err != nil {
		return nil, fmt.Errorf("install the libraries of the origin in %s: %w", o.dir, err)
	}
	return cmd, nil
}

// installNode installs with npm. Like npm, it compares package-lock.json with npm's copy of it in node_modules.
func (o Origin) installNode(ctx context.Context, out io.Writer) error {
	if !o.has("package-lock.json") {
		if o.has("node_modules") {
			return nil // installed by another package manager, or by the user
		}
		return o.run(ctx, out, "npm", "install", "--no-audit", "--no-fund")
	}
	want, err := os.Stat(o.path("package-lock.json"))
	if err != nil {
		return err
	}
	have, err := os.Stat(o.path("node_modules", ".package-lock.json"))
	if err == nil && !have.ModTime().Before(want.ModTime()) {
		return nil
	}
	return o.run(ctx, out, "npm", "ci", "--no-audit", "--no-fund")
}

// installPython installs with pip. Beside the libraries it keeps a copy of requirements.txt, with Python's version.
func (o Origin) installPython(ctx context.Context, out io.Writer) error {
	want, err := os.ReadFile(o.path("requirements.txt"))
	if err != nil {
		return err
	}
	python, installed := o.path(".venv", "bin", "python"), o.path(".venv", "installed.txt")
	version, err := exec.CommandContext(ctx, "python3", "--version").Output()
	if err != nil {
		return fmt.Errorf("python3 --version: %w", err)
	}
	version = append([]byte("# for "), version...)
	want = append(append(want, '\n'), version...)
	have, err := os.ReadFile(installed)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if bytes.Equal(have, want) {
		return nil
	}
	if !bytes.HasSuffix(have, version) { // there is no .venv yet, or another Python made it; installed libraries stay
		if err := o.run(ctx, out, "python3", "-m", "venv", ".venv"); err != nil {
			return err
		}
	}
	if err := o.run(ctx, out, python, "-m", "pip", "install", "--use-pep517", "--disable-pip-version-check", "-r", "requirements.txt"); err != nil {
		return err
	}
	return os.WriteFile(installed, want, 0o644)
}

func (o Origin) run(ctx context.Context, out io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	fmt.Fprintf(out, "origin: %s: %s (some seconds to a minute)\n", o.dir, cmd)
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.dir, out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w; see its output above", cmd, err)
	}
	return nil
}

// lock waits until no other process installs into the directory.
func (o Origin) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.Open(o.dir) // lock the directory itself, so that no lock file stays
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", o.dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
