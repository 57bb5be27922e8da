package e2e

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// row is a line of handoffs.txt. The unit test in main_test.go says what is wrong with a
// malformed line.
type row struct {
	to     string // "fanout", "origin", or the status of the app's own answer
	method string
	target string
	header string // one header line, or "" for none
}

// table is what handoffs.txt says about this project's main.go.
var table []row

func readTable(file string) (rows []row, err error) {
	content, err := os.ReadFile(file)
	for line := range strings.Lines(string(content)) {
		var columns [3]string
		rest := strings.TrimSpace(line)
		if rest == "" || strings.HasPrefix(rest, "#") {
			continue
		}
		for i := range columns {
			columns[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " \t"), " ")
		}
		rows = append(rows, row{columns[0], columns[1], columns[2], strings.TrimSpace(rest)})
	}
	return rows, err
}

// needs skips a test that sends requests such as "POST /" if this project's main.go does not
// send them there.
func needs(t *testing.T, to, method string) {
	t.Helper()
	if !slices.Contains(table, row{to, method, "/", ""}) {
		t.Skipf("this test needs the line %q in testdata/handoffs.txt", to+"  "+method+"  /")
	}
}

// needsDefault skips a test of what the kit does by default if this project has its own condition.
func needsDefault(t *testing.T) {
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

// TestTable sends each request of the table to the app behind the real Pushpin, and checks where
// it goes and what arrives.
func TestTable(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	origin := startServer(t, p.Origin)
	p.serve(t)
	pushpin, err := grip.ParseURL(p.GripURL(), "") // has the key of Pushpin's signatures
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table {
		t.Run(fmt.Sprint(row), func(t *testing.T) {
			more, line, status := "Connection: close\r\n", row.method+" "+row.target+" HTTP/1.1", "HTTP/1.1 200 "
			if row.method == "GET" && strings.HasSuffix(row.header, "websocket") {
				more = "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
					"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
				if row.to == "fanout" {
					line, status = "POST "+row.target+" HTTP/1.1", "HTTP/1.1 101 "
				}
			}
			resp := p.exchange(t, row.request("X-Own: "+t.Name()+"\r\n"+more))

			to := strings.Split(resp.line, " ")[1]
			var got rawMessage
			for len(origin.requests) > 0 && to != "fanout" && to != "origin" {
				// A request arrives before the client has its response. There may also be
				// requests of the WebSockets in earlier rows.
				if got = <-origin.requests; got.header.Get("X-Own") != t.Name() {
					continue
				}
				to = "origin"
				if pushpin.Verify(&http.Request{Header: http.Header(got.header)}) == nil {
					to = "fanout"
				}
			}
			if to != row.to {
				t.Fatalf("%v went to %s", row, to)
			}
			forwarded := to == "fanout" || to == "origin"
			if forwarded && (got.line != line || got.header.Get("Host") != p.Origin ||
				!strings.HasPrefix(resp.line, status)) {
				t.Errorf("%+v arrived, and the client got %+v", got, resp)
			}
		})
	}
	// The client gets a 502 from the app or from Pushpin. It does not show the origin's address.
	t.Run("origin down", func(t *testing.T) {
		origin.Close()
		for _, row := range table {
			if row.to != "fanout" && row.to != "origin" || row.header != "" {
				continue
			}
			resp := p.exchange(t, row.request("Connection: close\r\n"))
			_, port, _ := strings.Cut(p.Origin, ":")
			if !strings.HasPrefix(resp.line, "HTTP/1.1 502 ") || strings.Contains(resp.body, port) {
				t.Errorf("%v: got %+v, want a plain 502", row, resp)
			}
			if row.to == "origin" {
				p.waitForLog(t, row.method+` "`+row.target)
			}
		}
	})
}
