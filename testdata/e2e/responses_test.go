package e2e

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
)

// response is a response that the origin sends, and how it must arrive. Both are written with
// bare line feeds in the head.
type response struct {
	sent    string
	arrives string // "" if it arrives as it was sent
	cut     bool   // the client must notice that the body is incomplete
}

// forwardedResponses are responses to requests that the app forwards. They arrive as the origin
// sent them, except for these changes:
//
//   - The app removes the fields that are about one connection, and those that Connection names
//     (RFC 9110 section 7.6.1). Where there was Transfer-Encoding, it also removes
//     Content-Length (RFC 9112 section 6.3).
//
// The others are the platform's:
//
//   - Header names are in lower case, and their order may change, as in requests.
//   - The reason phrase is the standard one for the status. A client should ignore it (RFC 9112
//     section 4).
//   - A response without Date gets a Date. A recipient with a clock must add it (RFC 9110
//     section 6.6.1).
//   - A body without Content-Length arrives in chunks, whose sizes may change.
//   - Trailers are removed, which is allowed (RFC 9110 section 6.5.1).
//   - Interim responses (103) are not forwarded, because the SDK does not get them.
var forwardedResponses = []response{
	{sent: "HTTP/1.1 503 Service Unavailable\n" + unchanged + "Content-Length: 2\n\nok"},
	{sent: "HTTP/1.1 204 No Content\n\n"},
	{sent: "HTTP/1.1 304 Not Modified\nETag: \"x\"\n\n"},
	{
		sent: "HTTP/1.1 103 Early Hints\nLink: </style.css>; rel=preload\n\n" +
			"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok",
		arrives: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	},
	{
		sent: "HTTP/1.1 200 OK\nConnection: close, X-First\nConnection: X-Second\n" +
			"X-First: 1\nX-Second: 2\nX-Third: 3\nKeep-Alive: timeout=5\nProxy-Connection: close\n" +
			"Proxy-Authenticate: Basic\nUpgrade: h2c\nContent-Length: 2\n\nok",
		arrives: "HTTP/1.1 200 OK\nX-Third: 3\nContent-Length: 2\n\nok",
	},

	{sent: "HTTP/1.1 302 Found\nContent-Length: 0\n\n"},
	{sent: "HTTP/1.1 404 Not Found\nContent-Encoding: gzip\nContent-Length: 4\n\n\x1f\x8b\x08\x00"},
	{sent: "HTTP/1.1 200 OK\nContent-Length: 1048576\n\n" + mebibyte},
	{
		sent: "HTTP/1.1 200 OK\nTrailer: X-T\nX-T: 0\nTransfer-Encoding: chunked\n\n" +
			"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n",
		arrives: "HTTP/1.1 200 OK\nX-T: 0\nTransfer-Encoding: chunked\n\nabcde",
	},
	{sent: "HTTP/1.1 200 OK\n\nhello", arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello"},
	{
		sent:    "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello",
	},
	{
		sent:    "HTTP/1.1 200 OK\nConnection: Content-Length\nContent-Length: 5\n\nhello",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello",
	},

	{sent: "HTTP/1.1 200 OK\nContent-Length: 100\n\nhello", cut: true},
	{
		sent:    "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\r\nhello\r\nff\r\nhel",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhellohel", cut: true,
	},
	{
		sent:    "HTTP/1.1 200 OK\nConnection: Content-Length\nContent-Length: 100\n\nhello",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello", cut: true,
	},
}

var mebibyte = strings.Repeat("0123456789abcdef", 1<<16)

func testResponses(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for _, r := range forwardedResponses {
		a.checkResponse(t, "POST", r)
	}
	if strings.Contains(a.log.String(), "falling back to automatic framing") {
		t.Error("Viceroy warns that a response without Content-Length has manual framing")
	}
	// A client that speaks HTTP/1.0 gets no chunks, and the end of the connection ends the body.
	a.origin.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	got, err := io.ReadAll(a.send(t, "POST / HTTP/1.0\r\nHost: example.com\r\n\r\n"))
	head, body, _ := strings.Cut(string(got), "\r\n\r\n")
	if err != nil || body != "hello" || strings.Contains(head, "transfer-encoding") {
		t.Errorf("an HTTP/1.0 client got %q, %v", got, err)
	}
}

// checkResponse has the origin send a response, and checks that it arrives as it must.
func (a *app) checkResponse(t testing.TB, method string, r response) {
	t.Helper()
	a.origin.answer(withCRLF(r.sent))
	got := a.exchange(t, method+" / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n")
	a.origin.arrived(t)
	want := parse(t, cmp.Or(r.arrives, r.sent))
	if want.header.Get("Date") == "" {
		want.header["Date"] = got.header["Date"]
	}
	if method == "HEAD" {
		want.body = ""
	}
	if r.cut && got.err != nil && strings.HasPrefix(want.body, got.body) {
		got.body, got.err = want.body, nil // the end of the connection may overtake the last data
	} else if r.cut {
		t.Errorf("%.100q: the client cannot tell that the body was cut short: %+v", r.sent, got)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%.100q arrived as\n%.3000q, want\n%.3000q", r.sent, fmt.Sprint(got), fmt.Sprint(want))
	}
}

// withCRLF returns the message with the line feeds in its head as CRLF.
func withCRLF(message string) string {
	head, body, _ := strings.Cut(message, "\n\n")
	return strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body
}

// A response streams: the client gets the first bytes before the origin sends the rest. It does
// not pass through the sandbox: the rest arrives although the sandbox has ended.
func testSandboxEnds(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for first, rest := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst":                  "later",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n": "5\r\nlater\r\n0\r\n\r\n",
	} {
		ended := make(chan struct{})
		a.origin.answers <- func(conn net.Conn) {
			io.WriteString(conn, first)
			<-ended
			io.WriteString(conn, rest)
		}
		a.log.skip()
		r := bufio.NewReader(a.send(t, postHead+"Content-Length: 0\r\n\r\n"))
		readUntil(t, r, "first")
		// Viceroy logs this when the sandbox ends, after it has waited for another request.
		a.waitForLog(t, "request completed using ")
		close(ended)
		readUntil(t, r, rest)
		a.origin.arrived(t)
	}
}
