package e2e

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestGetForwarded tests GET and HEAD requests that are not handed off. README.md recommends that for requests that
// Fanout does not need to hold. They arrive like a POST, and the client gets the origin's response unchanged.
func TestGetForwarded(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	withCondition(t, p, "\t\tuseFanout = false\n")
	app := serveAppAlone(t, p)
	tests := []struct {
		name, method, request string // request has the request's headers
		status                int
		headers, body         string // of the response, as the origin sends them
		framing               string // the framing header that the client gets, if the origin sends none
		cut                   bool   // the client must see that the body is incomplete
	}{
		{name: "200", method: "GET", status: 200, headers: "Content-Length: 5\r\nCache-Control: max-age=60\r\n", body: "hello"},
		{name: "200 in chunks", method: "GET", status: 200, headers: "Transfer-Encoding: chunked\r\n", body: "5\r\nhello\r\n0\r\n\r\n"},
		{name: "200 until close", method: "GET", status: 200, body: "hello", framing: "transfer-encoding: chunked"},
		{name: "206", method: "GET", request: "Range: bytes=1-3\r\nIf-Range: \"x\"\r\n", status: 206, headers: "Content-Range: bytes 1-3/5\r\nContent-Length: 3\r\n", body: "ell"},
		{name: "304", method: "GET", request: "If-None-Match: \"x\"\r\n", status: 304, headers: "ETag: \"x\"\r\n"},
		{name: "404", method: "GET", status: 404, headers: "Content-Length: 2\r\n", body: "no"},
		{name: "cut short of its length", method: "GET", status: 200, headers: "Content-Length: 100\r\n", body: "hello", cut: true},
		{name: "cut short between chunks", method: "GET", status: 200, headers: "Transfer-Encoding: chunked\r\n", body: "5\r\nhello\r\n", cut: true},
		{name: "HEAD", method: "HEAD", status: 200, headers: "Content-Length: 12345\r\nETag: \"x\"\r\n"},
		{name: "HEAD of what is 304", method: "HEAD", request: "If-None-Match: \"x\"\r\n", status: 304, headers: "ETag: \"x\"\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			app.origin.answers <- fmt.Sprintf("HTTP/1.1 %d A Reason\r\n%s\r\n%s", tt.status, tt.headers, tt.body)
			conn := app.send(t, tt.method+" /a%2Fb?c HTTP/1.1\r\nHost: example.com\r\n"+tt.request+"\r\n")
			defer conn.Close()
			got, err := receive(bufio.NewReader(conn), tt.method)
			if err != nil {
				t.Fatal(err)
			}

			arrived, fanout := app.arrived(t)
			if fanout || arrived.line != tt.method+" /a%2Fb?c HTTP/1.1" {
				t.Errorf("%q arrived, handed off: %t", arrived.line, fanout)
			}
			if want := expectedHeaders(tt.request, "", false, app); !slices.Equal(byName(arrived.headers), want) {
				t.Errorf("the headers %q arrived, want %q", byName(arrived.headers), want)
			}

			want := lowerCase(tt.headers)
			if tt.framing != "" {
				want = append(want, tt.framing)
			}
			headers := slices.DeleteFunc(byName(got.headers), func(line string) bool { return strings.HasPrefix(line, "date: ") })
			if got.status != fmt.Sprint(tt.status) || !slices.Equal(headers, byName(want)) {
				t.Errorf("status %s and the headers %q, want %d and %q", got.status, headers, tt.status, byName(want))
			}
			body := strings.NewReplacer("5\r\nhello\r\n", "hello", "0\r\n\r\n", "").Replace(tt.body)
			if tt.cut && strings.HasPrefix(body, got.body) {
				body = got.body // the error may arrive before the last data
			}
			if got.body != body || (got.err != nil) != tt.cut {
				t.Errorf("the body is %q, %v; want %q, and an error for a cut body: %t", got.body, got.err, body, tt.cut)
			}
		})
	}
}
