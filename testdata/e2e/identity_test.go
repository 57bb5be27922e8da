package e2e

import (
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
				checkVouched(t, got, "x-user", tt.user)
				if tt.to != "401" {
					checkVouched(t, got, "client-ip", "127.0.0.1")
				}
			}
		})
	}
	// Clients that share sandboxes never get each other's name.
	t.Run("alternating clients", func(t *testing.T) {
		for range 16 {
			checkVouched(t, a.checkRow(t, row{"fanout", "GET", ann, ""}), "x-user", "ann")
			checkVouched(t, a.checkRow(t, row{"fanout", "GET", bob, ""}), "x-user", "bob")
			checkVouched(t, a.checkRow(t, row{"origin", "POST", "/", ""}), "x-user", "")
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
	var want, found []string
	if value != "" {
		want = []string{name + ": " + value}
	}
	for _, line := range got.headers {
		if similar, _, _ := strings.Cut(line, ":"); strings.NewReplacer("_", "-", ".", "-").Replace(similar) == name {
			found = append(found, line)
		}
	}
	if !slices.Equal(found, want) {
		t.Errorf("%s arrived with %q, want %q", got.line, found, want)
	}
}
