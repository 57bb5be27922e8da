// Package local installs the programs that run the app on a person's machine: the Fastly CLI, Viceroy (Fastly's
// local server) and Pushpin (the open-source GRIP proxy on which Fanout is built). A program that is on PATH and new
// enough is used. Otherwise the Fastly CLI and Viceroy are installed into the user's cache, once for each version, and
// the system's package manager installs Pushpin.
package local

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

// The versions. No other place in the code has them. "Oldest" is the oldest version with which the tests have passed.
// "Install" is the version that is installed if there is none.
const (
	fastlyOldest     = "15.4.0" // the first with `compute install-tools`
	fastlyInstall    = "16.1.0"
	viceroyOldest    = "0.19.0" // the first that has a backend's timeouts
	viceroyInstall   = "0.22.0"
	pushpinOldest    = "1.36.0" // the first whose condure does the work of the later connmgr
	pushpinRenamed   = "1.40.0" // the first that accepts the CLI's configuration without the wrapper
	shellcheckOldest = "0.9.0"  // the version in Debian 12
	cargoOldest      = "1.95.0" // the oldest that builds this Viceroy
)

// CacheVariable is the name of the environment variable with another directory for the cache.
const CacheVariable = "FANOUT_FORWARD_CACHE"

// Tools has the absolute paths of the programs.
type Tools struct {
	Fastly  string
	Viceroy string
	Pushpin string
}

// Ensure installs the tools that are missing, and returns all of them. It prints on out what it does next, and the
// progress. It may be interrupted, and several processes may call it at the same time: a tool in the cache is always
// complete. An error says what to install by hand.
func Ensure(ctx context.Context, out io.Writer) (Tools, error) {
	dir, err := cacheDir()
	if err != nil {
		return Tools{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Tools{}, fmt.Errorf("make the tools' cache: %w; set %s to a directory that you can write to", err, CacheVariable)
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

	// The quick steps come first, and their errors are reported together. So nobody waits for minutes, and then reads
	// that the next step is not possible.
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
			in.say("the download failed: %v", err)
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

// Versions returns the names of the programs with their versions.
func (t Tools) Versions(ctx context.Context) string {
	in := &installer{ctx: ctx, out: io.Discard}
	return fmt.Sprintf("Fastly CLI %s, Viceroy %s, Pushpin %s", in.version(t.Fastly, "version", "--quiet"),
		in.version(t.Viceroy, "--version"), in.version(t.Pushpin, "--version"))
}

// cacheDir returns the directory for installed tools. It is $FANOUT_FORWARD_CACHE, or else fanout-forward-go in the
// user's cache directory. The XDG Base Directory Specification says where that is.
func cacheDir() (string, error) {
	if dir := os.Getenv(CacheVariable); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("%s is %q: it must be an absolute path", CacheVariable, dir)
		}
		return filepath.Clean(dir), nil
	}
	base := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(base) { // the specification says to ignore a relative path
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find a cache directory for the tools: %w; set %s", err, CacheVariable)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "fanout-forward-go"), nil
}

// lock waits until no other process installs, so that two processes do not build the same program. The system releases
// the lock of a process that ends.
func lock(ctx context.Context, path string, out io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the tools' cache: %w; set %s to a directory that you can write to", err, CacheVariable)
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
			fmt.Fprintf(out, "tools: waiting for another process that installs tools (lock: %s)\n", path)
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
	dir     string // the cache directory
	updated bool   // apt-get has updated its package lists
}

func (in *installer) say(format string, args ...any) {
	fmt.Fprintf(in.out, "tools: "+format+"\n", args...)
}

// run runs a program, and prints its output as progress.
func (in *installer) run(dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(in.ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, in.out, in.out // sudo and Homebrew may ask questions
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	return nil
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

// older reports whether version is older than the other version. An unknown version is older than any.
func older(version, than string) bool { return semver.Compare("v"+version, "v"+than) < 0 }

// onPath returns the first program with this name on PATH that is new enough. It prints which programs are too old. It
// does not look in the cache, which `make env` puts on PATH: it would find the wrapper there, and wrap it again.
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
			in.say("not using %s, version %s: this needs %s or newer", path, version, oldest)
		}
	}
	return "", "", false
}

// cached returns the newest version of a program in the cache. ok is false if all are older than oldest.
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

// keep copies a program to its place in the cache. The copy gets its name only when it is complete.
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
		return "", fmt.Errorf("copy %s %s to the cache: %w", name, version, err)
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
