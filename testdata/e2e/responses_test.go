package e2e

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
)

// response is a response that the origin sends, and how it must arrive. Both are written with bare line feeds in the
// head.
type response struct {
	sent    string
	arrives string // "" if it arrives as it was sent
	cut     bool   // the client must notice that the body is incomplete
}

// forwardedResponses are responses to requests that the app forwards. They arrive as the origin sent them, but for
// these changes:
//
//   - The app removes the fields that are about one connection, and those that Connection names (RFC 9110 section
//     7.6.1). Where there was Transfer-Encoding, it also removes Content-Length (RFC 9112 section 6.3).
//
// The others are the platform's:
//
//   - Header names are in lower case, and their order may change, as in requests.
//   - The reason phrase is the standard one for the status. A client should ignore it (RFC 9112 section 4).
//   - A response without Date gets a Date. A recipient with a clock must add it (RFC 9110 section 6.6.1).
//   - A body without Content-Length arrives in chunks, whose sizes may change.
//   - Trailers are removed, which is allowed (RFC 9110 section 6.5.1).
//   - Interim responses (103) are not forwarded, because the SDK does not get them.
var forwardedResponses = []response{
	{sent: "HTTP/1.1 201 Created\nContent-Length: 2\n\nok"},
	{sent: "HTTP/1.1 404 Not Found\nContent-Length: 2\n\nok"},
	{sent: "HTTP/1.1 503 Service Unavailable\nContent-Length: 2\n\nok"},
	{sent: "HTTP/1.1 204 No Content\n\n"},
	{sent: "HTTP/1.1 304 Not Modified\nETag: \"x\"\n\n"},
	{sent: "HTTP/1.1 200 Fine\nContent-Length: 2\n\nok", arrives: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
	{
		sent:    "HTTP/1.1 103 Early Hints\nLink: </style.css>; rel=preload\n\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		arrives: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	},

	{sent: "HTTP/1.1 200 OK\nX-A: 1\nX-B: 2\nX-A: 3\nX-A: 1\nContent-Length: 2\n\nok"},
	{sent: "HTTP/1.1 200 OK\nSet-Cookie: a=1; Path=/\nSet-Cookie: b=2, c\nContent-Length: 2\n\nok"},
	{sent: "HTTP/1.1 200 OK\nX-Empty:\nX-Latin-1: caf\xe9\nX-UTF-8: caf\xc3\xa9\nContent-Length: 2\n\nok"},
	{sent: "HTTP/1.1 200 OK\nX-Long: " + longText + "\n" + eightyHeaders + "Content-Length: 2\n\nok"},
	{sent: "HTTP/1.1 200 OK\nDate: Thu, 01 Jan 1970 00:00:00 GMT\nServer: x\nVia: 1.1 y\nAge: 1\nContent-Length: 2\n\nok"},
	{sent: "HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 4\n\n\x1f\x8b\x08\x00"},
	{
		sent:    "HTTP/1.1 200 OK\nConnection: close, X-First\nConnection: X-Second\nX-First: 1\nX-Second: 2\nX-Third: 3\nContent-Length: 2\n\nok",
		arrives: "HTTP/1.1 200 OK\nX-Third: 3\nContent-Length: 2\n\nok",
	},
	{
		sent:    "HTTP/1.1 200 OK\nKeep-Alive: timeout=5\nProxy-Connection: close\nProxy-Authenticate: Basic\nUpgrade: h2c\nContent-Length: 2\n\nok",
		arrives: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	},

	{sent: "HTTP/1.1 200 OK\nContent-Length: 0\n\n"},
	{sent: "HTTP/1.1 200 OK\nContent-Length: 1048576\n\n" + mebibyte},
	{sent: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nabcde"},
	{sent: "HTTP/1.1 200 OK\n\nhello", arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello"},
	{sent: "HTTP/1.0 200 OK\n\nhello", arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello"},
	{
		sent:    "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello",
	},
	{
		sent:    "HTTP/1.1 200 OK\nConnection: Content-Length\nContent-Length: 5\n\nhello",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello",
	},
	{
		sent:    "HTTP/1.1 200 OK\nTrailer: X-T\nX-T: 0\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
		arrives: "HTTP/1.1 200 OK\nX-T: 0\nTransfer-Encoding: chunked\n\nabc",
	},

	{sent: "HTTP/1.1 200 OK\nContent-Length: 100\n\nhello", cut: true},
	{sent: "HTTP/1.1 200 OK\nContent-Length: 2000000\n\n" + mebibyte, cut: true},
	{
		sent:    "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello", cut: true,
	},
	{
		sent:    "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\r\nhello\r\nff\r\nhel",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhellohel", cut: true,
	},
	{
		sent:    "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\r\nhello\r\nnonsense\r\n",
		arrives: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nhello", cut: true,
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
		if r.cut {
			a.origin.answers <- reset(r.sent)
			a.checkArrives(t, "POST", r)
		}
	}
	// A client that speaks HTTP/1.0 gets no chunks, and the end of the connection ends the body.
	a.origin.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	got, err := io.ReadAll(a.send(t, "POST / HTTP/1.0\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"))
	if head, body, _ := strings.Cut(string(got), "\r\n\r\n"); err != nil || body != "hello" || strings.Contains(head, "transfer-encoding") {
		t.Errorf("an HTTP/1.0 client got %q, %v", got, err)
	}
	// The origin's Connection: close does not close the client's connection.
	conn := a.dial(t)
	for range 2 {
		a.origin.answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		if resp := a.exchangeOn(t, conn, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"); resp.body != "ok" {
			t.Errorf("on a connection that stays open: %+v", resp)
		}
	}
}

// reset returns an answer that ends with a reset of the connection.
func reset(response string) func(net.Conn) {
	return func(conn net.Conn) {
		io.WriteString(conn, withCRLF(response))
		conn.(*net.TCPConn).SetLinger(0)
	}
}

// withCRLF returns the message with the line feeds in its head as CRLF.
func withCRLF(message string) string {
	head, body, _ := strings.Cut(message, "\n\n")
	return strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body
}

// checkResponse has the origin send a response, and checks that it arrives as it must.
func (a *app) checkResponse(t *testing.T, method string, r response) {
	t.Helper()
	a.origin.answer(withCRLF(r.sent))
	a.checkArrives(t, method, r)
}

func (a *app) checkArrives(t *testing.T, method string, r response) {
	t.Helper()
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
		t.Errorf("%.100q arrived as\n%.500q, want\n%.500q", r.sent, fmt.Sprint(got), fmt.Sprint(want))
	}
}
