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

// row is a line of handoffs.txt. The unit test in main_test.go says what is wrong with a malformed line.
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

// needs skips a test that sends requests such as "POST /" if this project's main.go does not send them there.
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

// TestTable sends each request of the table to the app behind the real Pushpin, and checks where it goes and what
// arrives.
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
			websocket := row.method == "GET" && strings.HasSuffix(row.header, "websocket")
			more := "X-Test: " + t.Name() + "\r\nX-Several: one\r\nX-Several: two, three\r\n"
			if websocket {
				more += "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
			} else {
				more += "Connection: close\r\n"
				origin.answer("HTTP/1.1 201 Created\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 6\r\n\r\nanswer")
			}
			resp := p.exchange(t, row.request(more))

			to := strings.Split(resp.line, " ")[1]
			var got rawMessage
			for len(origin.requests) > 0 && to != "fanout" && to != "origin" {
				// A request arrives before the client has its response. Others are of the WebSockets before.
				if got = <-origin.requests; got.header.Get("X-Test") != t.Name() {
					continue
				}
				to = "origin"
				if pushpin.Verify(&http.Request{Header: http.Header{grip.HeaderSig: {got.header.Get(grip.HeaderSig)}}}) == nil {
					to = "fanout"
				}
			}
			if to != row.to {
				t.Fatalf("%v went to %s", row, to)
			}
			if to != "fanout" && to != "origin" {
				return
			}
			line, status := row.method+" "+row.target+" HTTP/1.1", "HTTP/1.1 201 "
			if websocket && to == "fanout" {
				line, status = "POST "+row.target+" HTTP/1.1", "HTTP/1.1 101 "
			}
			if got.line != line || got.header.Get("Host") != p.Origin || !slices.Contains(got.header["X-Several"], "two, three") {
				t.Errorf("%+v arrived", got)
			}
			if !strings.HasPrefix(resp.line, status) {
				t.Errorf("the client got %+v", resp)
			}
		})
	}
	t.Run("malformed escapes", func(t *testing.T) {
		needs(t, "fanout", "GET")
		for _, target := range []string{"/%zz", "/50%off"} {
			p.exchange(t, "GET "+target+" HTTP/1.1\r\nHost: example.com\r\nX-Test: "+target+"\r\nConnection: close\r\n\r\n")
			got := origin.arrived(t)
			for got.header.Get("X-Test") != target {
				got = origin.arrived(t)
			}
			corrected := strings.Replace(target, "%", "%25", 1) // by Pushpin 1.36
			if got.line != "GET "+target+" HTTP/1.1" && got.line != "GET "+corrected+" HTTP/1.1" {
				t.Errorf("%s arrived as %s", target, got.line)
			}
		}
	})
	// The client gets a 502, from the app or from Pushpin, which does not have the origin's address.
	t.Run("origin down", func(t *testing.T) {
		origin.Close()
		for _, row := range table {
			if row.to != "fanout" && row.to != "origin" || row.header != "" {
				continue
			}
			resp := p.exchange(t, row.request("Connection: close\r\n"))
			if !strings.HasPrefix(resp.line, "HTTP/1.1 502 ") || strings.Contains(resp.body, "localhost") || strings.Contains(resp.body, "127.0.0.1") {
				t.Errorf("%v: got %+v, want a plain 502", row, resp)
			}
			if row.to == "origin" {
				p.waitForLog(t, row.method+` "`+row.target)
			}
		}
	})
}
