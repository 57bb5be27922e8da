package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/clients"
	"compute-starter-kit-go-fanout-forward/testdata/handoffs"
)

// table says which requests this project's main.go hands off. The tests of what happens to a request take
// theirs from it, so that they hold whatever the project's condition is.
var table handoffs.Table

const tablePath = "../handoffs.txt"

// needsDefault skips a test of what the kit does by default in a project that has a condition of its own.
func needsDefault(t *testing.T) {
	t.Helper()
	if !table.HandsOffAll() {
		t.Skip("it needs every GET and HEAD to be handed off, and " + tablePath[3:] + " says that this project's main.go does not do that")
	}
}

// find returns a request that goes there, or skips the test if the table has none.
func find(t *testing.T, to string, accept func(handoffs.Row) bool) handoffs.Row {
	t.Helper()
	row, ok := table.Find(to, accept)
	if !ok {
		t.Skipf("it needs a request that goes to %s, and %s has none of this kind", to, tablePath[3:])
	}
	return row
}

// plain accepts a request that is not for a WebSocket, of a method that has no body.
func plain(row handoffs.Row) bool {
	return row.Method == http.MethodGet && !strings.HasPrefix(row.Header, "Upgrade:")
}

// withBody accepts a request of a method that may have a body.
func withBody(row handoffs.Row) bool {
	return row.Method != http.MethodGet && row.Method != http.MethodHead && !strings.HasPrefix(row.Header, "Upgrade:")
}

// forwarded returns a request that the app sends to the origin, whose method may have a body.
func forwarded(t *testing.T) handoffs.Row { return find(t, handoffs.Origin, withBody) }

// headOf returns the row's header as a line of a request's head, or "".
func headOf(row handoffs.Row) string {
	if row.Header == "" {
		return ""
	}
	return row.Header + "\r\n"
}

// below returns the row's target with another one appended, which must begin with /.
func below(row handoffs.Row, target string) string {
	path, _, _ := strings.Cut(row.Target, "?")
	return strings.TrimSuffix(path, "/") + target
}

// request returns a request of the row, for a client.
func (p *project) request(t *testing.T, row handoffs.Row, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(withPatience(t), row.Method, p.url(row.Target), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	row.AddTo(req.Header)
	return req
}

// heldBy returns the request by which each kind of client is held, of those that the table hands off.
func heldBy() map[clients.Kind]handoffs.Row {
	rows := map[clients.Kind]handoffs.Row{}
	if row, ok := table.Find(handoffs.Fanout, plain); ok {
		rows[clients.Stream] = row
	}
	if row, ok := table.Find(handoffs.Fanout, func(row handoffs.Row) bool { return row.Method == http.MethodGet && row.Upgrades() }); ok {
		rows[clients.Socket] = row
	}
	return rows
}

// postFor returns the bytes of a request that the app sends to the origin, for the exchange that is expected.
func postFor(t *testing.T, id string) string {
	row := forwarded(t)
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: example.com\r\n%sX-Test: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", row.Method, row.Target, headOf(row), id)
}
