// Package handoffs reads testdata/handoffs.txt, the table that says which requests main.go hands off.
package handoffs

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
)

// Where a request goes. The third possibility is a status, if the app answers the request itself.
const (
	Fanout = "fanout" // it is handed off to Fanout
	Origin = "origin" // the app sends it to the backend
)

// Row is a request, with the place where it must go.
type Row struct {
	Line           int // the number of the line in the file
	Method, Target string
	Header         string // one header line, or "" for none
	To             string // Fanout, Origin, or the status of the app's own answer, such as "401"
}

// String returns the row in the form of the file.
func (r Row) String() string {
	header := r.Header
	if header == "" {
		header = "-"
	}
	return strings.Join([]string{r.Method, r.Target, header, r.To}, "  ")
}

// Table has the rows of a file.
type Table []Row

// row is a copy of the pattern in main_test.go: the app's module cannot import this one.
var row = regexp.MustCompile(`^(\S+) {2,}(/\S*) {2,}(-|\S+:.*?) {2,}(fanout|origin|[1-5]\d\d)$`)

// Read reads a table. An error has the number of the line, and says what is wrong with it.
func Read(file string) (Table, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var table Table
	for i, line := range strings.Split(string(content), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		columns := row.FindStringSubmatch(line)
		if columns == nil {
			return nil, fmt.Errorf("%s:%d: %q must be a method, a target that begins with /, a header or -, and fanout, origin or a status, with two spaces or more in between", file, i+1, line)
		}
		header := columns[3]
		if header == "-" {
			header = ""
		}
		table = append(table, Row{i + 1, columns[1], columns[2], header, columns[4]})
	}
	if len(table) == 0 {
		return nil, fmt.Errorf("%s has no request", file)
	}
	return table, nil
}

// HandsOffAll reports whether the table says that every GET and HEAD is handed off, as the kit's does.
func (t Table) HandsOffAll() bool {
	handsOff := map[string]bool{}
	for _, row := range t {
		if row.Method == http.MethodGet || row.Method == http.MethodHead {
			if row.To != Fanout {
				return false
			}
			if row.Target == "/" && row.Header == "" {
				handsOff[row.Method] = true
			}
		}
	}
	return len(handsOff) == 2
}

// Find returns the first row that goes to this place and for which accept returns true.
func (t Table) Find(to string, accept func(Row) bool) (Row, bool) {
	for _, row := range t {
		if row.To == to && accept(row) {
			return row, true
		}
	}
	return Row{}, false
}

// Answered reports whether the app answers the request itself, and does not pass it on.
func (r Row) Answered() bool { return r.To != Fanout && r.To != Origin }

// AddTo adds the row's header, if it has one.
func (r Row) AddTo(header http.Header) {
	if name, value, ok := strings.Cut(r.Header, ":"); ok {
		header.Add(name, strings.TrimSpace(value))
	}
}

// Upgrades reports whether the request asks for a WebSocket.
func (r Row) Upgrades() bool { return strings.EqualFold(r.Header, "Upgrade: websocket") }
