package e2e

import (
	"net/url"
	"strings"
	"testing"
)

// TestChanged runs an app whose condition forwards everything, and changes requests on the way.
func TestChanged(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	withCondition(t, p, `		useFanout = false
		if r.Header.Get("Panic") != "" {
			panic("as asked")
		}
		if path := r.Header.Get("Path"); path != "" {
			r.URL.Path = path + r.URL.Path[len("/old"):]
			r.Header.Del("Path")
		}
		if r.URL.Path == "/own" {
			r.Header.Set("X-Own", "of the app")
		}
`)
	a := startApp(t, p)

	t.Run("GET and HEAD", func(t *testing.T) {
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
		a.checkResponse(t, "HEAD", response{sent: "HTTP/1.1 304 Not Modified\nETag: \"x\"\n\n"})
	})
	// For every target of a client, the app's new path arrives, with the client's query.
	t.Run("path", func(t *testing.T) {
		for _, path := range []string{"/old", "/old/", "/old/x|y", "/old/50%off", "/old/%zz", "/old//host/path", "/old/a%2Fb", "/old/caf%E9", "/old/[x]{y}^", "/old%"} {
			decoded, err := url.PathUnescape(path)
			if err != nil {
				decoded = path
			}
			spelled := (&url.URL{Path: strings.TrimPrefix(decoded, "/old")}).EscapedPath()
			for _, query := range []string{"", "?", "?q=%zz|", "??"} {
				a.check(t, a.origin, request{
					sent:    "GET " + path + query + " HTTP/1.1\nPath: /new\n\n",
					arrives: "GET /new" + spelled + query + " HTTP/1.1\n\n",
				})
			}
		}
	})
	// A client cannot have the app's own header removed.
	t.Run("header", func(t *testing.T) {
		a.check(t, a.origin, request{
			sent:    "GET /own HTTP/1.1\nConnection: X-Own\nX-Own: of the client\n\n",
			arrives: "GET /own HTTP/1.1\nX-Own: of the app\n\n",
		})
	})
	// After a panic, later requests are served.
	t.Run("panic", func(t *testing.T) {
		resp := a.exchange(t, "GET / HTTP/1.1\r\nHost: example.com\r\nPanic: now\r\n\r\n")
		if !strings.HasPrefix(resp.line, "HTTP/1.1 500 ") {
			t.Errorf("got %+v", resp)
		}
		a.waitForLog(t, "as asked")
		for range 8 {
			a.check(t, a.origin, request{sent: "GET / HTTP/1.1\n\n"})
		}
	})
}
