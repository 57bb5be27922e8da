package e2e

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
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

// needs skips a test that sends requests such as "POST /" if this project's table does not have them
// go there.
func needs(t testing.TB, to, method string) {
	t.Helper()
	if !slices.Contains(rows(t, "../.."), row{to, method, "/", ""}) {
		t.Skipf("this test needs the line %q in testdata/handoffs.txt", to+"  "+method+"  /")
	}
}

// needsDefault skips a test of what the kit does by default if this project has its own condition.
func needsDefault(t testing.TB) {
	t.Helper()
	needs(t, "fanout", "GET")
	needs(t, "fanout", "HEAD")
	needs(t, "origin", "POST")
}

// request returns the bytes of the row's request, with more header lines.
func (r row) request(more string) string {
	header := r.header
	if header != "" {
		header += "\r\n"
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: example.com\r\n%s%s\r\n", r.method, r.target, header, more)
}

const webSocketHeader = "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// TestTable sends each request of this project's table to the app behind the real Pushpin.
func TestTable(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	c := startChain(t, p)
	table := rows(t, p.dir)
	for _, row := range table {
		t.Run(fmt.Sprint(row), func(t *testing.T) {
			line, status := row.method+" "+row.target+" HTTP/1.1", "HTTP/1.1 200 "
			if row.upgrades() && row.to == "fanout" { // the origin gets a POST with the event OPEN
				line, status = "POST "+row.target+" HTTP/1.1", "HTTP/1.1 101 "
			}
			to, got, resp := c.send(t, row)
			if to != row.to {
				t.Fatalf("%v went to %s", row, to)
			}
			if (to == "fanout" || to == "origin") && (got.line != line || got.header.Get("Host") != p.origin ||
				!strings.HasPrefix(resp.line, status)) {
				t.Errorf("%+v arrived, and the client got %+v", got, resp)
			}
		})
	}
	// The client gets a 502 from the app or from Pushpin. It does not show the origin's address.
	t.Run("origin down", func(t *testing.T) {
		c.origin.Close()
		for _, row := range table {
			if row.to != "fanout" && row.to != "origin" || row.header != "" {
				continue
			}
			resp := p.exchange(t, row.request("Connection: close\r\n"))
			_, port, _ := strings.Cut(p.origin, ":")
			if !strings.HasPrefix(resp.line, "HTTP/1.1 502 ") || strings.Contains(resp.body, port) {
				t.Errorf("%v: got %+v, want a plain 502", row, resp)
			}
			if row.to == "origin" {
				p.waitForLog(t, row.method+` "`+row.target)
			}
		}
	})
}

// chain is a project's app behind the real Pushpin, and an origin that notes what arrives.
type chain struct {
	*project
	origin *server
	proxy  *grip.Config // checks Pushpin's signatures
}

func startChain(t testing.TB, p *project) *chain {
	t.Helper()
	proxy, err := grip.ParseURL(p.gripURL(), "")
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{p, startServer(t, p.origin), proxy}
	p.serve(t)
	c.origin.drain() // Viceroy sends a request when it starts
	return c
}

// viaFanout reports whether a request has a valid signature of Pushpin.
func (c *chain) viaFanout(m rawMessage) bool {
	return c.proxy.Verify(&http.Request{Header: http.Header(m.header)}) == nil
}

// send sends the row's request. It returns where the request went, as in the first column of the
// table, what arrived at the origin, if anything did, and the head of the response.
func (c *chain) send(t testing.TB, row row) (to string, got, resp rawMessage) {
	t.Helper()
	own := rand.Text() // requests for an earlier row may still arrive
	more := "X-Own: " + own + "\r\n"
	if row.upgrades() {
		more += webSocketHeader
	} else {
		more += "Connection: close\r\n"
	}
	conn := c.project.send(t, row.request(more))
	defer conn.Close()
	resp, err := readHead(bufio.NewReader(conn))
	if err != nil {
		t.Fatalf("%v: %v", row, err)
	}
	_, to, _ = strings.Cut(resp.line, " ")
	to, _, _ = strings.Cut(to, " ")
	for len(c.origin.requests) > 0 && to != "fanout" && to != "origin" {
		// A request arrives before the client has its response.
		next := <-c.origin.requests
		if next.header.Get("X-Own") != own {
			continue
		}
		if got, to = next, "origin"; c.viaFanout(got) {
			to = "fanout"
		}
	}
	return to, got, resp
}

// check sends the row's request and checks where it goes. It returns what arrived at the origin, if
// anything did.
func (c *chain) check(t testing.TB, row row) rawMessage {
	t.Helper()
	to, got, resp := c.send(t, row)
	if to != row.to {
		t.Errorf("%v went to %s: %+v", row, to, resp)
	}
	return got
}

// upgrades reports whether the row's request opens a WebSocket.
func (r row) upgrades() bool {
	return r.method == "GET" && regexp.MustCompile(`(?im)^upgrade:.*\bwebsocket\r?$`).MatchString(r.header)
}
