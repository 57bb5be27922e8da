package e2e

import (
	"bufio"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// request is a request that a client sends, and how it must arrive. Both are written without
// Host, and with bare line feeds in the head.
type request struct {
	sent    string
	arrives string // "" if it arrives as it was sent
}

var longText = strings.Repeat("x", 6000)

// unchanged are header lines that arrive as they were sent, in requests and in responses.
var unchanged = "X-A: 1\nX-B: 2\nX-A: 3\nX-A: 1\nX-Empty:\nX-Long: " + longText + "\n" +
	"X-Latin-1: caf\xe9\nX-UTF-8: caf\xc3\xa9\n" +
	"Cookie: a=1\nCookie: b=2; c=3\nSet-Cookie: a=1; Path=/\nSet-Cookie: b=2, c\n" +
	"Range: bytes=0-9\nIf-None-Match: \"x\", W/\"y\"\nAccept-Encoding: gzip, br\n" +
	"Age: 1\nLocation: /x%0d%0aX-Injected: 1\nServer: x\nVia: 1.1 y\nDate: Thu, 01 Jan 1970 00:00:00 GMT\n" +
	"Forwarded: for=1.2.3.4;proto=https\nX-Forwarded-For: 1.2.3.4\n" +
	"Grip-Sig: forged\nFastly-FF: x\nCDN-Loop: y\nPushpin-Route: other\n"

// forwardedRequests are requests that the app forwards to the origin. They arrive as they were
// sent, except for these changes:
//
//   - The app removes the fields that are about one connection, and those that Connection names
//     (RFC 9110 section 7.6.1).
//
// The others are the platform's:
//
//   - Header names are in lower case; they are case-insensitive (RFC 9110 section 5.1). The
//     order of names may change, but not that of the lines with one name, which has a meaning
//     (section 5.3).
//   - Host is the backend's override_host.
//   - A request without a body gets Content-Length: 0. The Content-Length of a body arrives.
//   - A target arrives in origin-form, and * arrives as /. A fragment is removed (RFC 9112
//     section 3.2).
//   - The sizes of chunks change. Trailers are removed, which is allowed (RFC 9110 section
//     6.5.1).
//   - If there are both Transfer-Encoding and Content-Length, Content-Length is removed (RFC
//     9112 section 6.3).
//   - Viceroy drops the body of a GET or HEAD that has no Content-Length.
var forwardedRequests = []request{
	{sent: "POST /? HTTP/1.1\n\n"},
	{sent: "POST /* HTTP/1.1\n\n"},
	{sent: "POST //double//slashes/./../x?c+d;e=%zz|100% HTTP/1.1\n\n"},
	{sent: "POST /caf%C3%A9/caf%E9/a%2Fb/[x]{y}|'!$&()*,=:@~+ HTTP/1.1\n\n"},
	{sent: "POST //%61dmin/./50%off/%zz/%?%zz HTTP/1.1\n\n"},
	{sent: "POST /" + longText + "?" + longText + " HTTP/1.1\n\n"},
	{sent: "POST http://other.example/50%off?x#y HTTP/1.1\n\n", arrives: "POST /50%off?x HTTP/1.1\n\n"},

	// These try to become header lines.
	{sent: "POST /%0d%0aX-Injected:%201?%0aX-Injected:%201 HTTP/1.1\nX-A: %0d%0aX-Injected: 1\n\n"},
	{sent: "POST /%E5%98%8D%E5%98%8AX-Injected:%201/%00/%zz HTTP/1.1\n\n"},

	{sent: "POST / HTTP/1.1\n" + unchanged + "\n"},
	{
		sent: "POST / HTTP/1.1\nConnection: X-First, close, Upgrade, HTTP2-Settings\n" +
			"Connection: keep-alive,X-SECOND\nX-First: 1\nX-Second: 2\nX-Third: 3\nUpgrade: h2c\n" +
			"HTTP2-Settings: AAMAAABkAAQAAP__\nKeep-Alive: timeout=5\nProxy-Connection: close\n" +
			"Proxy-Authorization: Basic x\nTE: trailers\n\n",
		arrives: "POST / HTTP/1.1\nX-Third: 3\n\n",
	},

	{sent: "POST / HTTP/1.1\nContent-Length: 65536\n\n" + strings.Repeat("\x00\r\n\xff", 16384)},
	{
		sent:    "POST / HTTP/1.1\nConnection: Content-Length\nContent-Length: 5\n\nhello",
		arrives: "POST / HTTP/1.1\nContent-Length: 5\n\nhello",
	},
	{
		sent: "POST / HTTP/1.1\nTrailer: X-T\nTransfer-Encoding: chunked\n\n" +
			"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n",
		arrives: "POST / HTTP/1.1\nTransfer-Encoding: chunked\n\nabcde",
	},
	{
		sent:    "POST / HTTP/1.1\nContent-Length: 3\nTransfer-Encoding: chunked\n\n5\r\nabcde\r\n0\r\n\r\n",
		arrives: "POST / HTTP/1.1\nTransfer-Encoding: chunked\n\nabcde",
	},
}

// handoffRequests are requests that the app hands off. All that the client sent arrives at
// Fanout, with the platform's changes above. In addition, the platform sets Pushpin-Route to the
// backend's name.
var handoffRequests = []request{
	{sent: "HEAD / HTTP/1.1\n\n"},
	{sent: "GET //a%2Fb//../[x]{y}|'!$&()*,=:@~?d;e=%zz| HTTP/1.1\n\n"},
	{sent: "GET /caf%E9/50%off? HTTP/1.1\n\n"},
	{sent: "GET /%0d%0aX-Injected:%201?%0aX-Injected:%201 HTTP/1.1\nX-A: %0d%0aX-Injected: 1\n\n"},
	{sent: "GET /" + longText + "?" + longText + " HTTP/1.1\n\n"},
	{sent: "GET / HTTP/1.1\n" + unchanged + "\n"},
	{sent: "GET / HTTP/1.1\nContent-Length: 5\n\nhello"},
	{
		sent: "GET / HTTP/1.1\nConnection: Upgrade, HTTP2-Settings, X-Named\nUpgrade: h2c\n" +
			"HTTP2-Settings: AAMAAABkAAQAAP__\nX-Named: 1\nKeep-Alive: timeout=5\nTE: trailers\n\n",
	},
	{
		sent: "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Extensions: permessage-deflate\n\n",
	},
}

func testRequests(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for _, r := range forwardedRequests {
		a.check(t, a.origin, r)
	}
	for _, method := range []string{"PUT", "TRACE", "QUERY", "M-SEARCH", "get", "Post"} {
		other := func(row row) bool { return row.method == method && row.to != "origin" }
		if !slices.ContainsFunc(table, other) {
			a.check(t, a.origin, request{sent: method + " / HTTP/1.1\n\n"})
		}
	}
}

func testHandoffs(t *testing.T, a *app) {
	needsDefault(t)
	for _, r := range handoffRequests {
		a.check(t, a.fanout, r)
	}
}

// check sends a request and checks that it arrives at the server as it must.
func (a *app) check(t *testing.T, to *server, r request) {
	t.Helper()
	resp := a.exchange(t, withCRLF(strings.Replace(r.sent, "\n", "\nHost: example.com\n", 1)))
	if !strings.HasPrefix(resp.line, "HTTP/1.1 200 ") {
		t.Errorf("%.200q: the response is %+v", r.sent, resp)
		return
	}

	want := parse(t, cmp.Or(r.arrives, r.sent))
	want.header.Set("Host", a.Origin)
	if to == a.fanout {
		want.header.Set("Host", loopback(a.ProxyPort))
		want.header.Set("Pushpin-Route", "origin")
	} else if want.header.Get("Transfer-Encoding") == "" {
		want.header.Set("Content-Length", strconv.Itoa(len(want.body)))
	}
	if got := to.arrived(t); !reflect.DeepEqual(got, want) {
		t.Errorf("%.200q arrived as\n%.3000q, want\n%.3000q", r.sent, fmt.Sprint(got), fmt.Sprint(want))
	}
}

// parse parses a message that is written with bare line feeds in the head.
func parse(t *testing.T, text string) rawMessage {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	m, err := readHead(bufio.NewReader(strings.NewReader(head + "\n\n")))
	if err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	m.body = body
	return m
}
