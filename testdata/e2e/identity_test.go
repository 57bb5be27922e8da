package e2e

import (
	"bufio"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"
)

// testIdentity tests the header that says who the client is. It is the app's, whatever the client sends, and nothing
// else about a request changes.
func testIdentity(t *testing.T, a *app) {
	expires := time.Now().Add(time.Hour)
	ann, bob := sessionTarget("ann", "demo", expires), sessionTarget("bob", "demo", expires)
	expired := sessionTarget("ann", "demo", time.Now().Add(-time.Second))
	forged := map[string]string{
		"none":              "",
		"the name":          "X-User: eve\r\n",
		"upper case":        "X-USER: eve\r\n",
		"an underscore":     "X_User: eve\r\n",
		"a dot":             "x.user: eve\r\n",
		"repeated":          "X-User: eve\r\nX-User: eve\r\nX_USER: eve\r\n",
		"empty":             "X-User:\r\n",
		"named":             "Connection: X-User\r\nX-User: eve\r\n",
		"named, an upgrade": "Connection: Upgrade, X-User\r\nX-User: eve\r\n",
	}
	for name, forged := range forged {
		t.Run(name, func(t *testing.T) {
			for _, tt := range []struct{ method, target, header, to, user string }{
				{"GET", ann, "", "fanout", "ann"},
				{"HEAD", ann, "", "fanout", "ann"},
				{"GET", ann, "Upgrade: websocket\r\n", "fanout", "ann"},
				{"POST", ann, "", "origin", "ann"},
				{"POST", expired, "", "origin", ""},
				{"POST", "/", "", "origin", ""},
				{"GET", expired, "", "401", ""},
				{"GET", "/", "Upgrade: websocket\r\n", "401", ""},
			} {
				got := a.checkRow(t, row{tt.to, tt.method, tt.target, strings.TrimSuffix(tt.header+forged, "\r\n")})
				checkVouched(t, got, "X-User", tt.user)
				if tt.to != "401" {
					checkVouched(t, got, "Client-Ip", "127.0.0.1")
				}
			}
		})
	}
	// Clients that share sandboxes never get each other's name.
	t.Run("alternating clients", func(t *testing.T) {
		for range 16 {
			checkVouched(t, a.checkRow(t, row{"fanout", "GET", ann, ""}), "X-User", "ann")
			checkVouched(t, a.checkRow(t, row{"fanout", "GET", bob, ""}), "X-User", "bob")
			checkVouched(t, a.checkRow(t, row{"origin", "POST", "/", ""}), "X-User", "")
		}
	})
	t.Run("nothing else changes", func(t *testing.T) {
		for _, r := range handoffRequests {
			line, rest, _ := strings.Cut(r.sent, "\n")
			method, target, _ := strings.Cut(strings.TrimSuffix(line, " HTTP/1.1"), " ")
			path, query, _ := strings.Cut(target, "?")
			target = path + ann[1:] + "&" + query
			if strings.Contains(query, ";") || strings.Contains(query, "%zz") {
				continue // not a query that the session's check accepts
			}
			headers := rest
			if r.arrives != "" {
				_, headers, _ = strings.Cut(r.arrives, "\n")
			}
			a.check(t, a.fanout, request{
				sent:    method + " " + target + " HTTP/1.1\n" + rest,
				arrives: method + " " + target + " HTTP/1.1\nX-User: ann\nClient-IP: 127.0.0.1\n" + headers,
			})
		}
	})
}

// checkVouched checks that a request has the header once, with this value, and under no similar name. If value is
// empty, it must not have it.
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

// TestIdentity runs the recipe behind the real Pushpin. The origin gets the app's header with the requests that Pushpin
// makes for a client, such as those for each event of a WebSocket, and never the client's.
func TestIdentity(t *testing.T) {
	t.Parallel()
	needsDefault(t)
	p := newProject(t)
	for _, b := range blocks(t, "../recipes.md") {
		if b.section == "A valid session" || b.section == identity {
			p.apply(t, b)
		}
	}
	origin := startServer(t, p.Origin)
	app := p.serve(t)
	origin.drain() // Viceroy sends a request when it starts
	ann := sessionTarget("ann", "demo", time.Now().Add(time.Hour))
	const forged = "X-User: eve\r\nx_user: eve\r\nConnection: X-User\r\n"

	t.Run("GET", func(t *testing.T) {
		p.exchange(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\n"+forged+"\r\n")
		checkVouched(t, origin.arrived(t), "X-User", "ann")
	})
	t.Run("long-poll", func(t *testing.T) {
		const hold = "HTTP/1.1 200 OK\r\nGrip-Hold: response\r\nGrip-Channel: poll\r\nContent-Length: 0\r\n\r\n"
		origin.answer(hold)
		origin.answer(hold)
		p.send(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\n"+forged+"\r\n")
		checkVouched(t, origin.arrived(t), "X-User", "ann")
		checkVouched(t, origin.arrived(t), "X-User", "ann") // Pushpin asks again after the first subscription to a channel
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
		checkVouched(t, next, "X-User", "") // this request has no headers of the client's, not even the app's
	})
	t.Run("WebSocket", func(t *testing.T) {
		conn := p.send(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\n"+strings.Replace(forged, "Connection: ", "Connection: Upgrade, ", 1)+
			"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		readUntil(t, bufio.NewReader(conn), "\r\n\r\n")
		for _, event := range []string{"OPEN\r\n", "TEXT 2\r\nhi\r\n", "TEXT 2\r\nhi\r\n"} {
			got := origin.arrived(t)
			for !strings.HasPrefix(got.body, event) { // a request for the stream above
				got = origin.arrived(t)
			}
			checkVouched(t, got, "X-User", "ann")
			conn.Write([]byte("\x81\x82\x00\x00\x00\x00hi")) // a masked frame with the text "hi": RFC 6455 section 5.7
		}
	})
	t.Run("without Fanout", func(t *testing.T) {
		app.Stop()
		p.startViceroy(t)
		if resp := p.exchange(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\n\r\n"); resp.line != "HTTP/1.1 503 Service Unavailable" {
			t.Errorf("got %+v", resp)
		}
		p.waitForLog(t, "; to enable Fanout: fastly products --enable=fanout")
	})
}
