package e2e

import (
	"strings"
	"testing"
)

// TestChanged runs an app whose condition forwards everything and changes some requests.
func TestChanged(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	withCondition(t, p, `		useFanout = false
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
