package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/handoffs"
)

// table says which requests this project's main.go hands off. Tests that send requests choose them from this table, so
// that the tests pass with any condition in main.go.
var table handoffs.Table

const tablePath = "../handoffs.txt"

// needsDefault skips a test of the kit's default behavior if the project has its own condition.
func needsDefault(t *testing.T) {
	t.Helper()
	if !table.HandsOffAll() {
		t.Skip("this test needs every GET and HEAD to be handed off, but " + tablePath[3:] + " says that this project's main.go does not do that")
	}
}

// find returns a request that goes to this place. If the table has none, it skips the test.
func find(t *testing.T, to string, accept func(handoffs.Row) bool) handoffs.Row {
	t.Helper()
	row, ok := table.Find(to, accept)
	if !ok {
		t.Skipf("this test needs a request that goes to %s, but %s has none of this kind", to, tablePath[3:])
	}
	return row
}

// plain accepts a GET that does not ask for a WebSocket.
func plain(row handoffs.Row) bool {
	return row.Method == http.MethodGet && !strings.HasPrefix(row.Header, "Upgrade:")
}

// withBody accepts a request with a method that may have a body.
func withBody(row handoffs.Row) bool {
	return row.Method != http.MethodGet && row.Method != http.MethodHead && !strings.HasPrefix(row.Header, "Upgrade:")
}

// forwarded returns a request that the app forwards to the origin, with a method that may have a body.
func forwarded(t *testing.T) handoffs.Row { return find(t, handoffs.Origin, withBody) }

// headOf returns the row's header as a header line, with the line end, or "".
func headOf(row handoffs.Row) string {
	if row.Header == "" {
		return ""
	}
	return row.Header + "\r\n"
}

// below returns the row's target with another target added to its path. The other target begins with /.
func below(row handoffs.Row, target string) string {
	path, _, _ := strings.Cut(row.Target, "?")
	return strings.TrimSuffix(path, "/") + target
}

// request returns the row's request, for an http.Client.
func (p *project) request(t *testing.T, row handoffs.Row, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(withPatience(t), row.Method, p.url(row.Target), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	row.AddTo(req.Header)
	return req
}

// postFor returns the bytes of a request that the app forwards. The id names the exchange that rawOrigin expects.
func postFor(t *testing.T, id string) string {
	row := forwarded(t)
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: example.com\r\n%sX-Test: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", row.Method, row.Target, headOf(row), id)
}
