package e2e

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// responses are responses to requests that the app forwards. The app removes the fields that are
// about one connection, and those that Connection names (RFC 9110 section 7.6.1). Where there was
// Transfer-Encoding, it also removes Content-Length (RFC 9112 section 6.3). The platform makes the
// same changes as in requests, and these:
//
//   - A response without Date gets a Date. A recipient with a clock must add it (RFC 9110
//     section 6.6.1).
//   - A body without Content-Length arrives in chunks.
var responses = []struct {
	sent    string
	arrives string // "" if it arrives as it was sent
}{
	{sent: "HTTP/1.1 503 Service Unavailable\n" + unchanged + "Content-Length: 4\n\n\x1f\x8b\x00\r"},
	{sent: "HTTP/1.1 204 No Content\n\n"},
	{sent: "HTTP/1.1 304 Not Modified\nETag: \"x\"\n\n"},
	{sent: "HTTP/1.1 302 Found\nContent-Length: 0\n\n"},
	{sent: "HTTP/1.1 200 OK\nContent-Length: 1048576\n\n" + mebibyte},
	{
		sent: "HTTP/1.1 200 OK\nConnection: close, X-First\nConnection: X-Second\n" +
			"X-First: 1\nX-Second: 2\nX-Third: 3\nKeep-Alive: timeout=5\n" +
			"Proxy-Connection: close\nProxy-Authenticate: Basic\nUpgrade: h2c\n" +
			"Content-Length: 2\n\nok",
		arrives: "HTTP/1.1 200 OK\nX-Third: 3\nContent-Length: 2\n\nok",
	},
	{
		sent:    "HTTP/1.1 200 OK\n\nhello",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello",
	},
	{
		sent: "HTTP/1.1 200 OK\nTrailer: X-T\nX-T: 0\nContent-Length: 3\n" +
			"Transfer-Encoding: chunked\n\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n",
		arrives: "HTTP/1.1 200 OK\nX-T: 0\nTransfer-Encoding: chunked\n\nabcde",
	},
}

// cutResponses have incomplete bodies, which the client must notice.
var cutResponses = []string{
	"HTTP/1.1 200 OK\nContent-Length: 100\n\nhello",
	"HTTP/1.1 200 OK\nConnection: Content-Length\nContent-Length: 100\n\nhello",
	"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\r\nhello\r\nff\r\nhel",
}

var mebibyte = strings.Repeat("0123456789abcdef", 1<<16)

func (a *app) testResponses(t *testing.T) {
	for _, r := range responses {
		a.checkResponse(t, "GET", r.sent, cmp.Or(r.arrives, r.sent))
	}
	const head = "HTTP/1.1 200 OK\nContent-Length: 12345\n\n"
	a.checkResponse(t, "HEAD", head, head)
	for _, sent := range cutResponses {
		if got := a.respond(t, "GET", sent); got.err == nil {
			t.Errorf("%q: to the client, this response looks whole: %+v", sent, got)
		}
	}
	// The client learns nothing about an origin that fails. Viceroy does not tell the app that an error
	// was a timeout; TestFailures in main_test.go tests the 504.
	a.origin.answer("HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	a.checkFailure(t, "POST", "502 Bad Gateway", `POST "/": send to backend "origin": unexpected final status 101`)
	a.origin.answer("")
	a.checkFailure(t, "PUT", "502 Bad Gateway", `PUT "/": send to backend "origin": `)
	if strings.Contains(a.app.output(), "falling back to automatic framing") {
		t.Error("Viceroy warns that a response without Content-Length has manual framing")
	}
}

// checkResponse has the origin send a response, and checks how it arrives at the client.
func (a *app) checkResponse(t testing.TB, method, sent, arrives string) {
	t.Helper()
	got, want := a.respond(t, method, sent), parse(arrives)
	if want.header.Get("Date") == "" {
		want.header["Date"] = got.header["Date"]
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%.100q arrived as\n%.3000q, want\n%.3000q", sent, fmt.Sprint(got), fmt.Sprint(want))
	}
}

// respond has the origin send a response, and returns what arrives.
func (a *app) respond(t testing.TB, method, response string) rawMessage {
	t.Helper()
	a.origin.answer(withCRLF(response))
	return a.exchange(t, method+" / HTTP/1.1\r\nHost: origin.example\r\n\r\n")
}
