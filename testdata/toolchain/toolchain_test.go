package toolchain

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
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

// TestVersions keeps what the README says of versions in step with the one place that each is in.
func TestVersions(t *testing.T) {
	app, tests := readModule(t, "../../go.mod"), readModule(t, "../go.mod")
	if app.Go.Version != tests.Go.Version {
		t.Errorf("go.mod is for Go %s, and testdata/go.mod for %s", app.Go.Version, tests.Go.Version)
	}
	minor := func(version string) string { return strings.TrimPrefix(semver.MajorMinor("v"+version), "v") }
	sdk := strings.TrimPrefix(app.Require[0].Mod.Version, "v")
	readme, err := os.ReadFile("../../README.md")
	if err != nil || !strings.HasPrefix(string(readme), "# Fanout forward: ") {
		t.Skip("README.md is this project's own: it has another title than the kit's")
	}
	for _, want := range []string{
		"[Go](https://go.dev/dl/) " + minor(app.Go.Version) + " or newer",
		"\n| Go | " + minor(app.Go.Version) + " |",
		"\n| [compute-sdk-go](https://github.com/fastly/compute-sdk-go) | " + sdk + " | " + sdk + " |",
		"\n| Fastly CLI | " + fastlyOldest + " | " + fastlyInstall + " |",
		"\n| Viceroy | " + viceroyOldest + " | " + viceroyInstall + " |",
		"\n| Pushpin | " + pushpinOldest + " |",
		"Pushpin " + minor(pushpinRenamed) + " and newer",
	} {
		if !strings.Contains(string(readme), want) {
			t.Errorf("README.md does not have %q", want)
		}
	}
}

func readModule(t *testing.T, path string) *modfile.File {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	module, err := modfile.Parse(path, content, nil)
	if err != nil {
		t.Fatal(err)
	}
	return module
}
