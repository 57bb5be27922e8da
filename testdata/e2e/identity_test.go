package e2e

import (
	"bufio"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"
)

// testIdentity tests the header that says who the client is. It is the app's, whatever the
// client sends, and nothing else about a request changes.
func testIdentity(t *testing.T, a *app) {
	expires := time.Now().Add(time.Hour)
	ann, bob := sessionTarget("ann", "demo", expires), sessionTarget("bob", "demo", expires)
	for _, forged := range []string{
		"",
		"X-User: eve\r\nX-USER: eve\r\nX_User: eve\r\nX_USER:\r\nx.user: eve\r\nClient_IP: 1.2.3.4\r\n",
		"Connection: X-User\r\nX-User: eve\r\nClient-IP: 1.2.3.4\r\n",
		"Connection: Upgrade, X-User\r\nX-User: eve\r\n",
	} {
		for _, tt := range []struct{ to, method, target, header, user string }{
			{"fanout", "GET", ann, "", "ann"},
			{"fanout", "GET", ann, "Upgrade: websocket\r\n", "ann"},
			{"origin", "POST", ann, "", "ann"},
			{"origin", "POST", "/", "", ""},
			{"origin", "POST", strings.Replace(ann, "user=ann", "user=bob", 1), "", ""},
		} {
			got := a.checkRow(t, row{tt.to, tt.method, tt.target, strings.TrimSuffix(tt.header+forged, "\r\n")})
			checkVouched(t, got, "X-User", tt.user)
			checkVouched(t, got, "Client-Ip", "127.0.0.1")
		}
	}
	// Clients that share sandboxes never get each other's name.
	for range 16 {
		checkVouched(t, a.checkRow(t, row{"fanout", "GET", ann, ""}), "X-User", "ann")
		checkVouched(t, a.checkRow(t, row{"fanout", "GET", bob, ""}), "X-User", "bob")
		checkVouched(t, a.checkRow(t, row{"origin", "POST", "/", ""}), "X-User", "")
	}
	for _, r := range handoffRequests {
		line, rest, _ := strings.Cut(r.sent, "\n")
		path, _, _ := strings.Cut(strings.TrimSuffix(line, " HTTP/1.1"), "?")
		line = path + ann[1:] + "&x=a|b%41 HTTP/1.1\n"
		a.check(t, a.fanout, request{
			sent:    line + rest,
			arrives: line + "X-User: ann\nClient-IP: 127.0.0.1\n" + rest,
		})
	}
}

// checkVouched checks that a request has the header once, with this value, and under no similar
// name. If value is empty, it must not have it.
func checkVouched(t *testing.T, got rawMessage, name, value string) {
	t.Helper()
	for key, values := range got.header {
		similar := textproto.CanonicalMIMEHeaderKey(strings.NewReplacer("_", "-", ".", "-").Replace(key)) == name
		if similar && (key != name || value == "") {
			t.Errorf("%s arrived with %s: %q", got.line, key, values)
		}
	}
	if values := got.header[name]; value != "" && !slices.Equal(values, []string{value}) {
		t.Errorf("%s arrived with %s: %q, want %q", got.line, name, values, value)
	}
}

// TestIdentity runs the recipe behind the real Pushpin. The origin gets the app's header with
// the requests that Pushpin makes for a client, such as those for each event of a WebSocket, and
// never the client's.
func TestIdentity(t *testing.T) {
	t.Parallel()
	needsDefault(t)
	p := newProject(t)
	p.apply(t, validSession)
	p.apply(t, identity)
	p.edit(t, "main.go", "\tvouch(r.Header, \"X-User\"", "\tr.URL.Path += \"new\"\n\tvouch(r.Header, \"X-User\"")
	origin := startServer(t, p.Origin)
	app := p.serve(t)
	origin.drain() // Viceroy sends a request when it starts
	ann := sessionTarget("ann", "demo", time.Now().Add(time.Hour))
	const forged = "X-User: eve\r\nx_user: eve\r\nConnection: X-User\r\n"

	t.Run("long-poll", func(t *testing.T) {
		const hold = "HTTP/1.1 200 OK\r\nGrip-Hold: response\r\nGrip-Channel: poll\r\nContent-Length: 0\r\n\r\n"
		origin.answer(hold)
		origin.answer(hold)
		p.send(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\n"+forged+"\r\n")
		checkVouched(t, origin.arrived(t), "X-User", "ann")
		// Pushpin asks again after the first subscription to a channel.
		checkVouched(t, origin.arrived(t), "X-User", "ann")
	})
	t.Run("stream", func(t *testing.T) {
		const hold = "HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: stream\r\nContent-Length: 0\r\n" +
			"Grip-Link: </next>; rel=next; timeout=1\r\n\r\n"
		origin.answer(hold)
		p.send(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\n"+forged+"\r\n")
		checkVouched(t, origin.arrived(t), "X-User", "ann")
		next := origin.arrived(t)
		if !strings.HasPrefix(next.line, "GET /next ") {
			t.Errorf("%s arrived, want /next", next.line)
		}
		checkVouched(t, next, "X-User", "") // this request has no header of the client or the app
	})
	t.Run("WebSocket", func(t *testing.T) {
		conn := p.send(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\n"+
			"X-User: eve\r\nx_user: eve\r\nConnection: Upgrade, X-User\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		readUntil(t, bufio.NewReader(conn), "\r\n\r\n")
		for _, event := range []string{"OPEN\r\n", "TEXT 2\r\nhi\r\n", "TEXT 2\r\nhi\r\n"} {
			got := origin.arrived(t)
			for got.line != "POST /new"+ann[1:]+" HTTP/1.1" || !strings.HasPrefix(got.body, event) {
				got = origin.arrived(t) // a request for the stream above
			}
			checkVouched(t, got, "X-User", "ann")
			// A masked frame with the text "hi" (RFC 6455 section 5.7).
			conn.Write([]byte("\x81\x82\x00\x00\x00\x00hi"))
		}
	})

	// Without Fanout, the handoff fails as the SDK's does.
	app.Stop()
	p.startViceroy(t)
	resp := p.exchange(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if resp.line != "HTTP/1.1 503 Service Unavailable" {
		t.Errorf("got %+v", resp)
	}
	p.waitForLog(t, "; to enable Fanout: fastly products --enable=fanout")
}
