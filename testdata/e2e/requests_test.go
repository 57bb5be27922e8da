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
	"time"
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
		if !slices.ContainsFunc(rows(t, a.dir), other) {
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
func (a *app) check(t testing.TB, to *server, r request) {
	t.Helper()
	resp := a.exchange(t, withCRLF(strings.Replace(r.sent, "\n", "\nHost: example.com\n", 1)))
	if !strings.HasPrefix(resp.line, "HTTP/1.1 200 ") {
		t.Errorf("%.200q: the response is %+v", r.sent, resp)
		return
	}

	want := parse(t, cmp.Or(r.arrives, r.sent))
	want.header.Set("Host", a.project.origin)
	if to == a.fanout {
		want.header.Set("Host", loopback(a.proxyPort))
		want.header.Set("Pushpin-Route", "origin")
	} else if want.header.Get("Transfer-Encoding") == "" {
		want.header.Set("Content-Length", strconv.Itoa(len(want.body)))
	}
	if got := to.arrived(t); !reflect.DeepEqual(got, want) {
		t.Errorf("%.200q arrived as\n%.3000q, want\n%.3000q", r.sent, fmt.Sprint(got), fmt.Sprint(want))
	}
}

// parse parses a message that is written with bare line feeds in the head.
func parse(t testing.TB, text string) rawMessage {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	m, err := readHead(bufio.NewReader(strings.NewReader(head + "\n\n")))
	if err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	m.body = body
	return m
}

const postHead = "POST / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n"

// An upload streams: the origin gets the first bytes before the client sends the rest. If the
// client then leaves, the upload never looks whole to the origin.
func testCutUpload(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	for _, body := range []string{"5\r\nfirst\r\n", "ff\r\nfirst"} {
		conn := a.send(t, postHead+"Transfer-Encoding: chunked\r\n\r\n"+body)
		select {
		case <-a.origin.began:
		case <-time.After(patience):
			t.Fatal("no part of the body arrives before the client sends the rest")
		}
		conn.Close()
		if req := a.origin.arrived(t); req.err == nil {
			t.Errorf("to the origin, this upload looks whole: %+v", req)
		}
	}
	// Viceroy waits for the whole of a body with Content-Length, so nothing arrives.
	a.send(t, postHead+"Content-Length: 100\r\n\r\nfirst").Close()
	a.check(t, a.origin, request{sent: "POST /next HTTP/1.1\n\n"})
}

// testSmuggling sends requests that a proxy and an origin could read differently, with another
// request hidden in them, and then an honest request on the same connection. The app must refuse
// the first request, or send it on in a form with only one meaning. The hidden request never
// arrives, and the honest one gets its own answer or none. Source: RFC 9112 section 11.2
func testSmuggling(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	const hidden = "POST /hidden HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"
	const chunk = "3f\r\n" + hidden + "\r\n0\r\n\r\n" // its 63 bytes are 3f in hexadecimal
	const honest = "POST /honest HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n" +
		"Content-Length: 0\r\n\r\n"
	for _, method := range []string{"POST", "GET"} {
		if method == "GET" {
			needs(t, "fanout", "GET")
		}
		for _, sent := range []string{
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
			"Content-Length: 63\r\n\r\n" + hidden, // unusual for a GET
		} {
			r := bufio.NewReader(a.send(t, method+" /first HTTP/1.1\r\nHost: example.com\r\n"+sent+honest))
			var answers, arrived []string
			for {
				resp, err := readResponse(r, "POST")
				if err != nil || resp.err != nil {
					break
				}
				answers = append(answers, strings.Split(resp.line, " ")[1])
			}
			for _, s := range []*server{a.origin, a.fanout} {
				for len(s.requests) > 0 {
					arrived = append(arrived, (<-s.requests).line)
				}
			}
			if strings.Contains(strings.Join(arrived, "\n"), "/hidden") {
				t.Errorf("%s %q: the hidden request arrived: %q", method, sent, arrived)
			}
			// 400: the app refused the request. 502: the body was incomplete, and the request to
			// the origin ended too.
			refused := len(answers) > 0 && slices.Contains([]string{"400", "502"}, answers[len(answers)-1])
			if !refused && len(answers) != len(arrived) {
				t.Errorf("%s %q: %q arrived, and the answers were %q", method, sent, arrived, answers)
			}
		}
	}
}

// Several clients send many requests at the same time, each on its own connection, which stays
// open. Each gets the answers to its own requests. A sandbox must not mix two requests.
func testOwnAnswers(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	var clients []*bufio.Reader
	for client := range 8 {
		var requests strings.Builder
		for i := range 25 {
			fmt.Fprintf(&requests, "POST / HTTP/1.1\r\nHost: example.com\r\n"+
				"X-Own: %d-%d\r\nContent-Length: 0\r\n\r\n", client, i)
		}
		clients = append(clients, bufio.NewReader(a.send(t, requests.String())))
	}
	for client, r := range clients {
		for i := range 25 {
			own := fmt.Sprintf("%d-%d", client, i)
			resp, err := readResponse(r, "POST")
			if err != nil || resp.line != "HTTP/1.1 200 OK" || resp.body != own {
				t.Fatalf("%s got %+v, %v", own, resp, err)
			}
		}
	}
}

// TestChanged runs an app whose condition forwards everything and changes some requests.
func TestChanged(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.withCondition(t, `		useFanout = false
		if path := r.Header.Get("Path"); path != "" {
			r.URL.Path = path + r.URL.Path[len("/old"):]
			r.Header.Del("Path")
		}
		if r.URL.Path == "/own" {
			r.Header.Set("X-Own", "of the app")
		}
`)
	a := startApp(t, p)

	for _, method := range []string{"GET", "HEAD"} {
		for _, r := range forwardedRequests {
			if strings.Contains(r.arrives, "Transfer-Encoding") {
				continue // Viceroy drops such a body
			}
			r.sent = strings.Replace(r.sent, "POST", method, 1)
			r.arrives = strings.Replace(r.arrives, "POST", method, 1)
			a.check(t, a.origin, r)
		}
	}
	for _, r := range forwardedResponses {
		a.checkResponse(t, "GET", r)
	}
	a.checkResponse(t, "HEAD", response{sent: "HTTP/1.1 200 OK\nETag: \"x\"\nContent-Length: 12345\n\n"})

	// For every target of a client, the app's new path arrives, with the client's query.
	for old, arrives := range map[string]string{
		"/old":            "/new",
		"/old/x|y[":       "/new/x%7Cy%5B",
		"/old/50%off/%zz": "/new/50%25off/%25zz",
		"/old//host/path": "/new//host/path",
		"/old/a%2Fb":      "/new/a/b",
		"/old/caf%E9":     "/new/caf%E9",
	} {
		for _, query := range []string{"", "?", "?q=%zz|"} {
			a.check(t, a.origin, request{
				sent:    "GET " + old + query + " HTTP/1.1\nPath: /new\n\n",
				arrives: "GET " + arrives + query + " HTTP/1.1\n\n",
			})
		}
	}
	// A client cannot have the app's own header removed.
	a.check(t, a.origin, request{
		sent:    "GET /own HTTP/1.1\nConnection: X-Own\nX-Own: of the client\n\n",
		arrives: "GET /own HTTP/1.1\nX-Own: of the app\n\n",
	})
}
