package e2e

import (
	"bufio"
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// row is a line of handoffs.txt. TestHandle in main_test.go says what is wrong with a malformed line.
type row struct {
	to     string // "fanout", "origin", or the status of the app's own answer
	method string
	target string
	header string // header lines, or "" for none
}

// rows returns the rows of a project's table.
func rows(t testing.TB, dir string) (rows []row) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "testdata/handoffs.txt"))
	if err != nil {
		t.Fatal(err)
	}
	columns := regexp.MustCompile(`(?m)^[ \t]*([^#\s]+)[ \t]+(\S+)[ \t]+(\S+)[ \t]*(.*)$`)
	for _, c := range columns.FindAllStringSubmatch(string(content), -1) {
		rows = append(rows, row{c[1], c[2], c[3], c[4]})
	}
	return rows
}

// needsDefault skips a test of what the kit does by default if this project has its own condition.
func needsDefault(t testing.TB) {
	t.Helper()
	for method, to := range map[string]string{"GET": "fanout", "HEAD": "fanout", "POST": "origin"} {
		if !slices.Contains(rows(t, "../.."), row{to, method, "/", ""}) {
			t.Skipf("this test needs the line %q in testdata/handoffs.txt", to+"  "+method+"  /")
		}
	}
}

// TestTable sends each request of this project's table to the app behind the real Pushpin.
func TestTable(t *testing.T) {
	t.Parallel()
	newApp(t, newProject(t)).checkTable(t)
}

// newApp runs a project's app and its origin, with the real Pushpin.
func newApp(t testing.TB, p *project) *app {
	t.Helper()
	a := &app{p, startServer(t, p.origin), nil}
	a.serve(t)
	return a
}

// checkTable checks each row of the project's table.
func (a *app) checkTable(t *testing.T) {
	t.Helper()
	for _, row := range rows(t, a.dir) {
		a.check(t, row)
	}
}

// request returns the bytes of the row's request, which also has a header X-Own. It opens a WebSocket
// if the row has Upgrade.
func (r row) request(own string) string {
	head := r.method + " " + r.target + " HTTP/1.1\r\nHost: example.com\r\nX-Own: " + own +
		"\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + r.header
	return strings.TrimSpace(head) + "\r\n\r\n"
}

// check sends the row's request and checks where it goes, and that the origin's response arrives. It
// returns what arrived at the origin, if anything did.
func (a *app) check(t testing.TB, row row) (got rawMessage) {
	t.Helper()
	own := rand.Text() // requests for an earlier row may still arrive
	conn := a.send(t, row.request(own))
	defer conn.Close()
	resp, err := readHead(bufio.NewReader(conn))
	if err != nil {
		t.Fatalf("%v: %v", row, err)
	}
	_, to, _ := strings.Cut(resp.line, " ")
	to, _, _ = strings.Cut(to, " ")
	for len(a.origin.requests) > 0 { // a request arrives before the client has its response
		req := <-a.origin.requests
		if req.header.Get("X-Own") == own && (to == "200" || to == "101") {
			got, to = req, "origin"
			if a.proxy.Verify(&http.Request{Header: http.Header(req.header)}) == nil {
				to = "fanout"
			}
		}
	}
	if got.line == "" && row.to == "fanout" && (to == "200" || to == "101") {
		to = "fanout" // and when the request came back from there, the app has answered it
	}
	if to != row.to {
		t.Errorf("%v went to %s: %+v", row, to, resp)
	}
	return got
}
