// Package local runs the app locally, as a person does, with `fastly compute serve`. It finds and
// installs the programs for that: the Fastly CLI, Viceroy (Fastly's local server) and Pushpin (the
// open-source GRIP proxy on which Fanout is built). It also starts and stops them, and says who
// has the ports that they need.
//
// A program that is on PATH and new enough is used. Otherwise the Fastly CLI and Viceroy
// are installed into the user's cache, once for each version, and the system's package
// manager installs Pushpin.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// These are the versions; no other place in the code has them. "Oldest" is the oldest version with which the
// tests have passed. "Install" is the version that is installed if there is none.
const (
	fastlyOldest   = "15.4.0" // the first with `compute install-tools`
	fastlyInstall  = "16.1.0"
	viceroyOldest  = "0.19.0" // the first that has a backend's timeouts
	viceroyInstall = "0.22.0"
	pushpinOldest  = "1.36.0" // the first whose condure does the work of the later connmgr
	pushpinRenamed = "1.40.0" // the first that accepts the CLI's configuration without the wrapper
	cargoOldest    = "1.95.0" // the oldest that builds this Viceroy
)

// CacheVariable is the name of the environment variable with another directory for the cache.
const CacheVariable = "FANOUT_FORWARD_CACHE"

// Tools has the absolute paths of the programs.
type Tools struct {
	Fastly  string
	Viceroy string
	Pushpin string
}

// Find returns the tools, and installs nothing. It prints on out which programs are too old.
func Find(ctx context.Context, out io.Writer) (Tools, error) {
	in, err := newInstaller(ctx, out)
	if err != nil {
		return Tools{}, err
	}
	defer in.lock.Close()
	t := Tools{Fastly: in.findFastly(), Viceroy: in.findViceroy(), Pushpin: in.findPushpin()}
	if t.Fastly == "" || t.Viceroy == "" || t.Pushpin == "" {
		return Tools{}, fmt.Errorf("the Fastly CLI, Viceroy or Pushpin is missing (found: %+v): run `make tools`", t)
	}
	return t, nil
}

// EnsureFastly is Ensure for the Fastly CLI alone, and returns its path.
func EnsureFastly(ctx context.Context, out io.Writer) (string, error) {
	in, err := newInstaller(ctx, out)
	if err != nil {
		return "", err
	}
	defer in.lock.Close()
	return in.ensureFastly()
}

// Ensure installs the tools that are missing, and returns all of them. It prints on out what it
// does next, and the progress. It may be interrupted, and several processes may call it at the
// same time: a tool in the cache is always complete. An error says what to install by hand.
func Ensure(ctx context.Context, out io.Writer) (t Tools, err error) {
	in, err := newInstaller(ctx, out)
	if err != nil {
		return Tools{}, err
	}
	defer in.lock.Close()
	// Building Viceroy takes long, so it comes last: nobody should wait for it and only
	// then read that something else is missing.
	var errs [3]error
	t.Pushpin, errs[0] = in.ensurePushpin()
	t.Fastly, errs[1] = in.ensureFastly()
	if t.Viceroy = in.findViceroy(); t.Viceroy == "" && t.Fastly != "" {
		t.Viceroy, errs[2] = in.downloadViceroy(t.Fastly)
	}
	if err := errors.Join(errs[:]...); err != nil || t.Viceroy != "" {
		return t, err
	}
	t.Viceroy, err = in.buildViceroy()
	return t, err
}

// Versions returns the names of the programs with their versions.
func (t Tools) Versions(ctx context.Context) string {
	in := &installer{ctx: ctx, out: io.Discard}
	return fmt.Sprintf("Fastly CLI %s, Viceroy %s, Pushpin %s", in.version(t.Fastly, "version", "--quiet"),
		in.version(t.Viceroy, "--version"), in.version(t.Pushpin, "--version"))
}

// cacheDir returns the directory for installed tools. It is $FANOUT_FORWARD_CACHE, or
// else fanout-forward-go in the user's cache directory. The XDG Base Directory
// Specification says where that is.
func cacheDir() (string, error) {
	dir := os.Getenv(CacheVariable)
	if dir == "" {
		base := os.Getenv("XDG_CACHE_HOME")
		if !filepath.IsAbs(base) { // the specification says to ignore a relative path
			base = filepath.Join(os.Getenv("HOME"), ".cache")
		}
		dir = filepath.Join(base, "fanout-forward-go")
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("the tools' cache is %q: set %s, which must be an absolute path", dir, CacheVariable)
	}
	return filepath.Clean(dir), nil
}
