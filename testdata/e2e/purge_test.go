package e2e

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPurge applies the recipe for PURGE in SECURITY.md, and tests who may purge.
func TestPurge(t *testing.T) {
	t.Parallel()
	security, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Skip("this project has no SECURITY.md")
	}
	recipe := regexp.MustCompile("(?s)in the place of `([^`\n]*)` in `main.go`:\n\n  ```go\n(.*?)  ```\n").FindStringSubmatch(string(security))
	if recipe == nil && !strings.Contains(string(security), "FastlyKeyIsValid") {
		t.Skip("SECURITY.md is this project's own: it does not mention PURGE")
	} else if recipe == nil {
		t.Fatal("SECURITY.md has no recipe for PURGE that this test can apply")
	}
	p := newProject(t)
	lines := strings.ReplaceAll("\n"+recipe[2], "\n  ", "\n")[1:]
	main, err := os.ReadFile(filepath.Join(p.dir, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(main), lines) { // otherwise this project has the recipe already
		p.edit(t, "main.go", "\t"+recipe[1]+"\n", lines)
	}
	setLocalServer(t, p, func(server map[string]any) { server["fake_valid_fastly_keys"] = []string{"valid"} })
	app := serveAppAlone(t, p)
	for _, tt := range []struct{ method, headers, status string }{
		{"PURGE", "", "403"},
		{"PURGE", "Fastly-Key: another\r\n", "403"},
		{"PURGE", "Fastly-Key: valid\r\n", "200"},
		{"POST", "", "200"},
		{"GET", "", "200"},
	} {
		row, ok := carrier(tt.method)
		if !ok {
			without(t, tt.method)
			continue
		}
		row.Method = tt.method
		conn := app.send(t, headTo(row, "/")+tt.headers+"\r\n")
		got, err := receive(bufio.NewReader(conn), tt.method)
		if err != nil || got.status != tt.status {
			t.Errorf("%s, %q: got %+v, %v; want %s", tt.method, tt.headers, got, err, tt.status)
		}
		if got.status == "200" {
			app.arrived(t)
		}
		conn.Close()
	}
	if n := len(app.origin.requests) + len(app.fanout.requests); n > 0 {
		t.Errorf("%d refused requests arrived", n)
	}
}
