package e2e

import (
	"bufio"
	"net/url"
	"strings"
	"testing"
)

// TestRewrite changes the app, so that it gives each request a new path. For every target of a client, the new path
// arrives, with the client's query. If the app sets the same path, the target arrives as the client sent it.
func TestRewrite(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	withCondition(t, p, `		useFanout = false
		if path := r.Header.Get("Path"); path != "" {
			r.URL.Path = path + r.URL.Path[len("/old"):]
		}
`)
	app := serveAppAlone(t, p)
	for _, path := range []string{"/old", "/old/", "/old/x|y", "/old/50%off", "/old/%zz", "/old//host/path", "/old/a%2Fb", "/old/caf%E9", "/old/[x]{y}^", "/old%"} {
		decoded, err := url.PathUnescape(path)
		if err != nil {
			decoded = path
		}
		spelled := (&url.URL{Path: strings.TrimPrefix(decoded, "/old")}).EscapedPath()
		for _, query := range []string{"", "?", "?q=%zz|", "??"} {
			for _, rewritten := range []string{"", "/new"} {
				conn := app.send(t, "GET "+path+query+" HTTP/1.1\r\nHost: example.com\r\nPath: "+rewritten+"\r\n\r\n")
				got, _ := app.arrived(t)
				_, target, _ := strings.Cut(strings.TrimSuffix(got.line, " HTTP/1.1"), " ")
				if rewritten == "" && target != path+query {
					t.Errorf("%s arrived as %s", path+query, target)
				}
				if want := "/new" + spelled + query; rewritten != "" && target != want {
					t.Errorf("%s, rewritten, arrived as %s, want %s", path+query, target, want)
				}
				if response, err := receive(bufio.NewReader(conn), "GET"); err != nil || response.status != "200" {
					t.Errorf("%s: the response is %+v, %v", path+query, response, err)
				}
				conn.Close()
			}
		}
	}
}
