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

// TestVersions checks that testdata/README.md has the versions that are in tools.go.
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
}
