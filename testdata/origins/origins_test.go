package origins

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes a directory with these files.
func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// If a program is missing, Find says what to install, before anything is installed.
func TestMissing(t *testing.T) {
	node := write(t, map[string]string{"package.json": `{"scripts": {"start": "node main.js"}}`})
	python := write(t, map[string]string{"requirements.txt": "", "app.py": ""})
	program := func(name, script string) (path string) { // a PATH with only this program
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, tt := range []struct{ dir, path, says string }{
		{node, "", "no node on PATH: install Node.js with npm"},
		{node, program("node", "exit 0"), "no npm on PATH: install Node.js with npm"},
		{python, "", "no python3 on PATH: install it"},
		// Debian's Python, without the package with ensurepip.
		{python, program("python3", "exit 1"), "sudo apt-get install python3-venv"},
		{write(t, map[string]string{"package.json": `{}`}), "", `no script "start"`},
		{write(t, map[string]string{"app.py": ""}), "", "not the directory of an origin"},
		{"nowhere", "", "not the directory of an origin"},
	} {
		t.Setenv("PATH", tt.path)
		_, err := Find(t.Context(), tt.dir)
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want an error with %q", tt.dir, err, tt.says)
		}
	}
}
