package local

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/semver"
)

// Only what can continue is kept of an interrupted installation. Nothing is installed, and the error says what to do.
func TestFind(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "fanout-forward-go")
	t.Setenv("PATH", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", filepath.Dir(cache))
	t.Setenv(CacheVariable, "")
	for _, dir := range []string{".fastly-" + fastlyInstall, ".viceroy-0.0.1", ".viceroy-" + viceroyInstall, "viceroy-0.0.1"} {
		if err := os.MkdirAll(filepath.Join(cache, dir, "target"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Find(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "run `make tools`") {
		t.Errorf("got %v", err)
	}
	left, _ := filepath.Glob(cache + "/*")
	if want := []string{cache + "/.viceroy-" + viceroyInstall, cache + "/viceroy-0.0.1"}; !slices.Equal(left, want) {
		t.Errorf("in the cache is %q; want %q", left, want)
	}
	t.Setenv(CacheVariable, "cache")
	if _, err := Find(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "must be an absolute path") {
		t.Errorf("got %v", err)
	}
}

// An old Pushpin gets a wrapper, also where the path needs quotes.
func TestPushpinWrapper(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "it's a $place")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "pushpin"), []byte("#!/bin/sh\necho pushpin 1.36.0 \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	wrapper := (&installer{ctx: t.Context(), out: io.Discard, dir: t.TempDir()}).findPushpin()
	if out, err := exec.Command(wrapper, "--verbose", "a b").CombinedOutput(); err != nil || string(out) != "pushpin 1.36.0 --verbose a b\n" {
		t.Errorf("%s: %v, %s", wrapper, err, out)
	}
}

// TestVersions keeps what testdata/README.md says of versions in step with the one place that each is in.
func TestVersions(t *testing.T) {
	minor := func(version string) string { return strings.TrimPrefix(semver.MajorMinor("v"+version), "v") }
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n| Fastly CLI | " + fastlyOldest + " | " + fastlyInstall + " |",
		"\n| Viceroy | " + viceroyOldest + " | " + viceroyInstall + " |",
		"\n| Pushpin | " + pushpinOldest + " |",
		"Pushpin " + minor(pushpinRenamed) + " and newer",
	} {
		if !strings.Contains(string(readme), want) {
			t.Errorf("testdata/README.md does not have %q", want)
		}
	}
}
