// Package toolchain has the programs ready that the app runs in on a person's machine: the Fastly
// CLI, Viceroy (Fastly's local server) and Pushpin (the open-source GRIP proxy that Fanout is built
// on). What is on PATH and new enough is used as it is; the rest is installed, once a version, into
// a per-user cache, or for Pushpin by the system's package manager.
package toolchain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/mod/semver"
)

// The versions, and the only place that has them. "Oldest" is the oldest one that the tests were seen
// to pass with; "install" is the one that is installed where there is none.
const (
	fastlyOldest     = "15.4.0" // the first with `compute install-tools`
	fastlyInstall    = "16.1.0"
	viceroyOldest    = "0.19.0" // the first that knows a backend's timeouts
	viceroyInstall   = "0.22.0"
	pushpinOldest    = "1.36.0" // the first whose condure does what connmgr does since
	pushpinRenamed   = "1.40.0" // the first that takes the CLI's configuration without the wrapper
	shellcheckOldest = "0.9.0"  // Debian 12's
	cargoOldest      = "1.95.0" // that builds this Viceroy
)

// CacheVariable names the environment variable that moves the cache.
const CacheVariable = "FANOUT_FORWARD_CACHE"

// Tools are the absolute paths of the programs.
type Tools struct {
	Fastly  string
	Viceroy string
	Pushpin string
}

// Ensure returns the tools, once it has installed those that are missing. It reports on out what it
// is about to do, and the progress of it. It is safe to interrupt and to run several times at once:
// each tool appears in the cache whole or not at all. An error says what to install by hand.
func Ensure(ctx context.Context, out io.Writer) (Tools, error) {
	dir, err := cacheDir()
	if err != nil {
		return Tools{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Tools{}, fmt.Errorf("make the tools' cache: %w; set %s to a directory that can be written", err, CacheVariable)
	}
	unlock, err := lock(ctx, filepath.Join(dir, ".lock"), out)
	if err != nil {
		return Tools{}, err
	}
	defer unlock()

	interrupted, _ := filepath.Glob(filepath.Join(dir, ".fastly-*"))
	for _, tmp := range interrupted {
		os.RemoveAll(tmp)
	}

	in := &installer{ctx: ctx, out: out, dir: dir}
	fastly, viceroy, pushpin := in.findFastly(), in.findViceroy(), in.findPushpin()

	// What takes seconds comes first, and all that is in the way is said at once: nobody should wait
	// for minutes, only to read that the next step cannot work.
	var missing []error
	if pushpin == "" {
		missing = append(missing, in.canInstallPushpin())
	}
	if fastly == "" {
		fastly, err = in.installFastly()
		missing = append(missing, err)
	}
	if viceroy == "" && fastly != "" {
		viceroy, err = in.downloadViceroy(fastly)
		if err != nil {
			in.say("that did not work: %v", err)
			missing = append(missing, in.canBuildViceroy())
		}
	}
	if err := errors.Join(missing...); err != nil {
		return Tools{}, err
	}

	if pushpin == "" {
		if pushpin, err = in.installPushpin(); err != nil {
			return Tools{}, err
		}
	}
	if viceroy == "" {
		if viceroy, err = in.buildViceroy(); err != nil {
			return Tools{}, err
		}
	}
	return Tools{Fastly: fastly, Viceroy: viceroy, Pushpin: pushpin}, nil
}

// Versions returns what the programs say of their versions, with their names.
func (t Tools) Versions(ctx context.Context) string {
	in := &installer{ctx: ctx, out: io.Discard}
	return fmt.Sprintf("Fastly CLI %s, Viceroy %s, Pushpin %s", in.version(t.Fastly, "version", "--quiet"),
		in.version(t.Viceroy, "--version"), in.version(t.Pushpin, "--version"))
}

// cacheDir returns the directory that installed tools are kept in: $FANOUT_FORWARD_CACHE, else
// fanout-forward-go in the user's cache directory as the XDG Base Directory Specification has it.
func cacheDir() (string, error) {
	if dir := os.Getenv(CacheVariable); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("%s is %q: it must be an absolute path", CacheVariable, dir)
		}
		return filepath.Clean(dir), nil
	}
	base := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(base) { // the specification: a relative one is to be ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find a cache directory for the tools: %w; set %s", err, CacheVariable)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "fanout-forward-go"), nil
}

// lock waits until this process alone may install, so that two clones do not build the same thing.
// The system releases the lock of a process that dies.
func lock(ctx context.Context, path string, out io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the tools' cache: %w; set %s to a directory that can be written", err, CacheVariable)
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			fmt.Fprintf(out, "tools: waiting for another process that is installing (lock: %s)\n", path)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

type installer struct {
	ctx     context.Context
	out     io.Writer
	dir     string // the cache
	updated bool   // apt-get's package lists
}

func (in *installer) say(format string, args ...any) {
	fmt.Fprintf(in.out, "tools: "+format+"\n", args...)
}

// run runs a program for its effect, with its output shown as progress.
func (in *installer) run(dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(in.ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, in.out, in.out // sudo and Homebrew may ask
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	return nil
}

var versionPattern = regexp.MustCompile(`\bv?(\d+\.\d+\.\d+)\b`)

// version returns what the program says of its version, or "unknown".
func (in *installer) version(path string, args ...string) string {
	ctx, cancel := context.WithTimeout(in.ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if match := versionPattern.FindSubmatch(out); err == nil && match != nil {
		return string(match[1])
	}
	return "unknown"
}

// older reports whether the one version is older than the other, as an unknown one is.
func older(version, than string) bool { return semver.Compare("v"+version, "v"+than) < 0 }

// onPath returns the first program of that name on PATH that is new enough, and says which it passes
// over. It leaves out the cache, which `make env` puts on PATH: the wrapper there would be taken for
// Pushpin, and wrapped.
func (in *installer) onPath(name, oldest string, versionArgs ...string) (path, version string, ok bool) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if !filepath.IsAbs(dir) || strings.HasPrefix(filepath.Clean(dir), in.dir+string(filepath.Separator)) {
			continue
		}
		path, err := exec.LookPath(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if version := in.version(path, versionArgs...); !older(version, oldest) {
			return path, version, true
		} else {
			in.say("passing over %s, version %s: this needs %s or newer", path, version, oldest)
		}
	}
	return "", "", false
}

// cached returns the newest version of a program in the cache, if that is not older than oldest.
func (in *installer) cached(name, oldest string) (path string, ok bool) {
	found, _ := filepath.Glob(in.place(name, "*"))
	for _, p := range found {
		version := strings.TrimPrefix(filepath.Base(filepath.Dir(p)), name+"-")
		if !older(version, oldest) {
			path, oldest, ok = p, version, true
		}
	}
	return path, ok
}

func (in *installer) place(name, version string) string {
	return filepath.Join(in.dir, name+"-"+version, name)
}

// keep copies a program to its place in the cache, where it appears whole or not at all.
func (in *installer) keep(name, version, from string) (string, error) {
	path := in.place(name, version)
	partial := path + ".partial"
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = copyFile(partial, from)
	}
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		return "", fmt.Errorf("keep %s %s in the cache: %w", name, version, err)
	}
	return path, nil
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
