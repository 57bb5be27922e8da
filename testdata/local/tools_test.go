package local

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/semver"
)

func TestCacheDir(t *testing.T) {
	tests := []struct{ own, xdg, want string }{
		{"", "", "/home/me/.cache/fanout-forward-go"},
		{"", "/xdg", "/xdg/fanout-forward-go"},
		{"", "relative", "/home/me/.cache/fanout-forward-go"},
		{"/own", "/xdg", "/own"},
		{"/own/cache/", "", "/own/cache"}, // it is compared with what is on PATH
		{"relative", "", ""},
	}
	for _, tt := range tests {
		t.Setenv("HOME", "/home/me")
		t.Setenv("XDG_CACHE_HOME", tt.xdg)
		t.Setenv(CacheVariable, tt.own)
		if got, err := cacheDir(); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s=%q, XDG_CACHE_HOME=%q: got %q, %v; want %q", CacheVariable, tt.own, tt.xdg, got, err, tt.want)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, tt := range []struct {
		version, than string
		want          bool
	}{{"1.2.3", "1.2.3", false}, {"1.9.0", "1.10.0", true}, {"1.10.0", "1.9.0", false}, {"unknown", "0.0.1", true}} {
		if got := older(tt.version, tt.than); got != tt.want {
			t.Errorf("%s older than %s: %t", tt.version, tt.than, got)
		}
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
