package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/mod/semver"
)

// installer looks for programs and installs them.
type installer struct {
	ctx  context.Context
	out  io.Writer
	dir  string       // the cache directory
	lock *flock.Flock // locks the cache directory; the system releases it if the process ends
}

// newInstaller waits until no other process installs, so that two processes do not build the
// same program. Then it removes what an interrupted installation left, except for a build of
// Viceroy that can continue.
func newInstaller(ctx context.Context, out io.Writer) (*installer, error) {
	dir, err := cacheDir()
	if err != nil {
		return nil, err
	}
	in := &installer{ctx: ctx, out: out, dir: dir, lock: flock.New(dir, flock.SetFlag(os.O_RDONLY))}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the tools' cache: %w; set %s to a directory that you can write to",
			err, CacheVariable)
	}
	locked, err := in.lock.TryLock()
	if err == nil && !locked {
		in.say("waiting for another process that installs tools into %s", dir)
		_, err = in.lock.TryLockContext(ctx, 200*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the tools' cache %s: %w", dir, err)
	}
	interrupted, _ := filepath.Glob(filepath.Join(dir, ".*-*"))
	for _, left := range interrupted {
		if left != in.buildDir() {
			os.RemoveAll(left)
		}
	}
	return in, nil
}

func (in *installer) say(format string, args ...any) {
	fmt.Fprintf(in.out, "tools: "+format+"\n", args...)
}

// run runs a program and prints its output as progress.
func (in *installer) run(name string, args ...string) error {
	cmd := exec.CommandContext(in.ctx, name, args...)
	cmd.Dir = in.dir // not the project's, which might have a configuration for the program
	cmd.Stdout, cmd.Stderr = in.out, in.out
	cmd.Stdin = os.Stdin // sudo and Homebrew may ask questions
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	return nil
}

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

var versionPattern = regexp.MustCompile(`\bv?(\d+\.\d+\.\d+)\b`)

// version returns the program's version, or "unknown".
func (in *installer) version(path string, args ...string) string {
	ctx, cancel := context.WithTimeout(in.ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if match := versionPattern.FindSubmatch(out); err == nil && match != nil {
		return string(match[1])
	}
	return "unknown"
}

// older reports whether version is older than the other version, as an unknown version always is.
func older(version, than string) bool { return semver.Compare("v"+version, "v"+than) < 0 }

// onPath returns the first program with this name on PATH that is new enough, or "". It prints
// which programs are too old. It does not look in the cache, which `make env` puts on PATH: it
// would find the wrapper there, and wrap it again.
func (in *installer) onPath(name, oldest string, versionArgs ...string) (path, version string) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if !filepath.IsAbs(dir) || strings.HasPrefix(filepath.Clean(dir), in.dir+string(filepath.Separator)) {
			continue
		}
		path, err := exec.LookPath(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		version := in.version(path, versionArgs...)
		if !older(version, oldest) {
			return path, version
		}
		in.say("not using %s, version %s: %s or newer is needed", path, version, oldest)
	}
	return "", ""
}

// cached returns the newest version of a program in the cache, or "" if all are older than oldest.
func (in *installer) cached(name, oldest string) (path string) {
	found, _ := filepath.Glob(in.place(name, "*"))
	for _, p := range found {
		version := strings.TrimPrefix(filepath.Base(filepath.Dir(p)), name+"-")
		if !older(version, oldest) {
			path, oldest = p, version
		}
	}
	return path
}

func (in *installer) place(name, version string) string {
	return filepath.Join(in.dir, name+"-"+version, name)
}

// keep copies a program to its place in the cache. Only a complete copy gets its name.
func (in *installer) keep(name, version, from string) (string, error) {
	content, err := os.ReadFile(from)
	if err != nil {
		return "", fmt.Errorf("copy %s %s to the cache: %w", name, version, err)
	}
	return in.write(name, version, content)
}

func (in *installer) write(name, version string, content []byte) (string, error) {
	path := in.place(name, version)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path+".partial", content, 0o755)
	}
	if err == nil {
		err = os.Rename(path+".partial", path)
	}
	return path, err
}
