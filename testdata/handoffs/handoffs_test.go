package handoffs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "handoffs.txt")
	read := func(text string) (Table, error) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return Read(file)
	}
	table, err := read("# a comment\n\nGET  /a?b  X-A: one two   fanout\n  POST  /  -  origin  \r\nHEAD  /  Fanout:  401")
	want := Table{
		{3, "GET", "/a?b", "X-A: one two", Fanout},
		{4, "POST", "/", "", Origin},
		{5, "HEAD", "/", "Fanout:", "401"},
	}
	if err != nil || len(table) != len(want) || table[0] != want[0] || table[1] != want[1] || table[2] != want[2] {
		t.Errorf("got %v, %v; want %v", table, err, want)
	}
	for _, bad := range []string{
		"GET  /  -", "GET / - fanout", "GET  /  -  Fanout", "GET  x  -  fanout", "GET  /  -  fanout  too", "GET  /  header  fanout", "GET  /  -  99",
	} {
		if _, err := read("GET  /  -  fanout\n" + bad); err == nil || !strings.Contains(err.Error(), file+":2: ") {
			t.Errorf("%q: got %v, want an error that names line 2", bad, err)
		}
	}
	if _, err := read("# nothing\n"); err == nil {
		t.Error("Read returned no error for an empty table")
	}
}

func TestHandsOffAll(t *testing.T) {
	all := Table{{Method: "GET", Target: "/", To: Fanout}, {Method: "HEAD", Target: "/", To: Fanout}, {Method: "POST", Target: "/", To: Origin}}
	if !all.HandsOffAll() {
		t.Error("HandsOffAll is false, but all are handed off")
	}
	for _, more := range []Row{
		{Method: "GET", Target: "/x", To: Origin}, {Method: "HEAD", Target: "/", Header: "X: y", To: Origin}, {Method: "GET", Target: "/x", To: "401"},
	} {
		if append(all[:3:3], more).HandsOffAll() {
			t.Errorf("HandsOffAll is true with %v, which is not handed off", more)
		}
	}
	if all[1:].HandsOffAll() || all[:1].HandsOffAll() {
		t.Error("HandsOffAll is true without a row for every GET or every HEAD")
	}
}
