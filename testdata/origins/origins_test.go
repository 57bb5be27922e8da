package origins

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// If a program is missing, Find says what to install, before anything is installed.
func TestMissing(t *testing.T) {
	node := dir(t, "package.json", `{"scripts": {"start": "node main.js"}}`)
	python := dir(t, "requirements.txt", "", "app.py", "")
	for _, tt := range []struct{ origin, path, says string }{
		{node, "", "no node on PATH: install Node.js with npm"},
		{node, dir(t, "node", "#!/bin/sh\n"), "no npm on PATH: install Node.js with npm"},
		// Debian's Python, without the package with ensurepip.
		{python, dir(t, "python3", "#!/bin/sh\nexit 1\n"), "no python3 with venv on PATH: install it"},
		{dir(t, "package.json", `{}`), "", `no script "start"`},
		{dir(t, "app.py", ""), "", "not the directory of an origin"},
	} {
		t.Setenv("PATH", tt.path)
		_, err := Find(t.Context(), tt.origin)
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want an error with %q", tt.origin, err, tt.says)
		}
	}
}

// dir returns a directory with these files.
func dir(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
