package e2e

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// unchanged are header lines that arrive as they were sent, in requests and in responses.
var unchanged = "X-A: 1\nX-B: 2\nX-A: 3\nX-A: 1\nX-Empty:\n" +
	"X-Long: " + strings.Repeat("x", 6000) + "\n" +
	"X-Latin-1: caf\xe9\nX-UTF-8: caf\xc3\xa9\n" +
	"Cookie: a=1\nCookie: b=2; c=3\nSet-Cookie: a=1; Path=/\nSet-Cookie: b=2, c\n" +
	"Range: bytes=0-9\nIf-None-Match: \"x\", W/\"y\"\nAccept-Encoding: gzip, br\n" +
	"Age: 1\nLocation: /x%0d%0aX-Injected: 1\nServer: x\nVia: 1.1 y\n" +
	"Date: Thu, 01 Jan 1970 00:00:00 GMT\nForwarded: for=1.2.3.4\nX-Forwarded-For: 1.2.3.4\n" +
	"Grip-Sig: forged\nFastly-FF: x\nCDN-Loop: y\nPushpin-Route: other\n"

// requests are requests without a method, which does not matter. They are written with bare line
// feeds in the head, and without Host. If the app hands a request off, all that the client sent
// arrives at Fanout. If the app forwards it to the origin, the app removes the fields that are
// about one connection, and those that Connection names (RFC 9110 section 7.6.1). All other
// changes are the platform's:
//
//   - Header names are in lower case; they are case-insensitive (RFC 9110 section 5.1). The
//     order of names may change, but not that of the lines with one name, which has a meaning
//     (section 5.3).
//   - Host is the backend's override_host. In a handoff, Pushpin-Route is the backend's name.
//   - A forwarded request without a body gets Content-Length: 0.
//   - A target arrives in origin-form, without a fragment (RFC 9112 section 3.2).
//   - The sizes of chunks change. Trailers are removed, which is allowed (RFC 9110 section
//     6.5.1).
//   - Viceroy drops the body of a GET or HEAD that has no Content-Length.
var requests = []struct {
	sent      string
	forwarded string // how it arrives at the origin; "" if as it was sent
}{
	{sent: "/? HTTP/1.1\n\n"},
	{sent: "//x/./../caf%C3%A9/caf%E9/a%2Fb/[x]{y}|'!$&()*,=:@~+?c+d;e=%zz|100% HTTP/1.1\n\n"},
	{sent: "//%61dmin/./50%off/%zz/%?%zz HTTP/1.1\n\n"},
	// This one tries to add header lines.
	{sent: "/%0d%0aX-Injected:%201?%0aX-Injected:%201 HTTP/1.1\nX-A: %0d%0aX-Injected: 1\n\n"},
	{sent: "/ HTTP/1.1\n" + unchanged + "\n"},
	{
		sent: "/ HTTP/1.1\nConnection: X-First, close, Upgrade, HTTP2-Settings\n" +
			"Connection: keep-alive,X-SECOND\nX-First: 1\nX-Second: 2\nX-Third: 3\n" +
			"Upgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\nKeep-Alive: timeout=5\n" +
			"Proxy-Connection: close\nProxy-Authorization: Basic x\nTE: trailers\n\n",
		forwarded: "/ HTTP/1.1\nX-Third: 3\n\n",
	},
	{sent: "/ HTTP/1.1\nContent-Length: 65536\n\n" + strings.Repeat("\x00\r\n\xff", 16384)},
	{
		sent:      "/ HTTP/1.1\nConnection: Content-Length\nContent-Length: 5\n\nhello",
		forwarded: "/ HTTP/1.1\nContent-Length: 5\n\nhello",
	},
}

func (a *app) testRequests(t *testing.T) {
	for _, method := range []string{"POST ", "GET ", "HEAD ", "get "} {
		for _, r := range requests {
			a.checkRequest(t, a.origin, method+r.sent, method+cmp.Or(r.forwarded, r.sent))
		}
	}
	for _, r := range requests {
		a.checkRequest(t, a.fanout, "GET "+r.sent, "GET "+r.sent)
		a.checkRequest(t, a.fanout, "HEAD "+r.sent, "HEAD "+r.sent)
	}
	const webSocket = "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\n" +
		"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n" +
		"Sec-WebSocket-Extensions: permessage-deflate\n\n"
	a.checkRequest(t, a.fanout, webSocket, webSocket)
	a.checkRequest(t, a.origin,
		"GET http://other.example/50%off?x#y HTTP/1.1\n\n", "GET /50%off?x HTTP/1.1\n\n")
	a.checkRequest(t, a.origin,
		"POST / HTTP/1.1\nTrailer: X-T\nTransfer-Encoding: chunked\n\n"+
			"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n",
		"POST / HTTP/1.1\nTransfer-Encoding: chunked\n\nabcde")
}

// checkRequest sends a request to the app, and checks how it arrives at the server.
func (a *app) checkRequest(t testing.TB, to *server, sent, arrives string) {
	t.Helper()
	to.drain()
	host := map[*server]string{a.origin: "origin.example", a.fanout: "fanout.example"}[to]
	resp := a.exchange(t, withCRLF(strings.Replace(sent, "\n", "\nHost: "+host+"\n", 1)))
	if !strings.HasPrefix(resp.line, "HTTP/1.1 200 ") {
		t.Errorf("%.200q: the response is %+v", sent, resp)
		return
	}
	want := parse(arrives)
	want.header.Set("Host", to.Addr().String())
	if to == a.fanout {
		want.header.Set("Pushpin-Route", "origin")
	} else if want.header.Get("Transfer-Encoding") == "" {
		want.header.Set("Content-Length", strconv.Itoa(len(want.body)))
	}
	if got := to.arrived(t); !reflect.DeepEqual(got, want) {
		t.Errorf("%.200q arrived as\n%.3000q, want\n%.3000q", sent, fmt.Sprint(got), fmt.Sprint(want))
	}
}

// testSmuggling sends requests that a proxy and an origin could read differently, with another request
// hidden in them. The app must refuse them, or send them on in a form with only one meaning, so the
// hidden request never arrives. Source: RFC 9112 section 11.2
func (a *app) testSmuggling(t *testing.T) {
	const hidden = "POST /hidden HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"
	const chunk = "3f\r\n" + hidden + "\r\n0\r\n\r\n" // its 63 bytes are 3f in hexadecimal
	for _, sent := range []string{
		"Content-Length: 63\r\n\r\n" + hidden, // unusual for a GET
		"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk,
		"Content-Length: 0\r\nContent-Length: 63\r\n\r\n" + hidden,
		"Content-Length: +0\r\n\r\n" + hidden,
		"Content-Length : 63\r\n\r\n" + hidden,
		"Content-Length: 63\r\nConnection: Content-Length\r\n\r\n" + hidden,
		"Transfer-Encoding: xchunked\r\n\r\n" + chunk,
		"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n\r\n" + chunk,
		"Transfer-Encoding:\r\n chunked\r\n\r\n" + chunk,
		"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n" + hidden,
		"X-A: b\rContent-Length: 63\r\n\r\n" + hidden,
		"X-A: b\x00\r\nContent-Length: 63\r\n\r\n" + hidden,
	} {
		for _, first := range []string{
			"POST /first HTTP/1.1\r\nHost: origin.example\r\n",
			"GET /first HTTP/1.1\r\nHost: fanout.example\r\n",
		} {
			conn := a.send(t, first+sent)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			arrived := append(a.origin.drain(), a.fanout.drain()...)
			if strings.Contains(strings.Join(arrived, "\n"), "/hidden") {
				t.Errorf("%q: the hidden request arrived: %q", first+sent, arrived)
			}
		}
	}
}
