package local

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Find installs nothing, keeps only an interrupted build that can continue, and says what to do.
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
	find := func(want string) {
		t.Helper()
		if _, err := Find(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
	}
	find("run `make tools`")
	left, _ := filepath.Glob(cache + "/*")
	if want := []string{cache + "/.viceroy-" + viceroyInstall, cache + "/viceroy-0.0.1"}; !slices.Equal(left, want) {
		t.Errorf("in the cache is %q; want %q", left, want)
	}
	t.Setenv("XDG_CACHE_HOME", "relative") // counts as none
	find("run `make tools`")
	t.Setenv(CacheVariable, "cache")
	find("must be an absolute path")
}

// TestVersions checks that the READMEs have the versions that are in tools.go.
func TestVersions(t *testing.T) {
	readme, _ := os.ReadFile("../README.md")
	for _, want := range []string{
		"\n| Fastly CLI | " + fastlyOldest + " | " + fastlyInstall + " |",
		"\n| Viceroy | " + viceroyOldest + " | " + viceroyInstall + " |",
		"\n| Pushpin | " + pushpinOldest + " |",
		"Pushpin " + strings.TrimSuffix(pushpinRenamed, ".0") + " and newer",
	} {
		if !strings.Contains(string(readme), want) {
			t.Errorf("testdata/README.md does not have %q", want)
		}
	}
	readme, _ = os.ReadFile("../../README.md") // in a user's project, it may be another one
	want := fastlyOldest + " to " + fastlyInstall + ", Viceroy " + viceroyOldest + " to " + viceroyInstall
	if strings.HasPrefix(string(readme), "# Fanout forward: ") && !strings.Contains(string(readme), want) {
		t.Errorf("README.md does not have %q", want)
	}
}
