package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// notHeld returns a line for each of the page's connections that the app at addr, a host:port, does not hand off. It
// returns "" if the app hands off all. The origin refuses to hold a connection that did not come through Fanout.
func notHeld(ctx context.Context, addr string) string {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var lines strings.Builder
	for _, c := range []struct {
		name, request string
		connect       func() (*http.Response, error)
	}{
		{"the WebSocket", "GET /socket", func() (*http.Response, error) {
			conn, resp, err := websocket.Dial(ctx, "ws://"+addr+"/socket", nil)
			if err == nil {
				conn.CloseNow()
			}
			return resp, err
		}},
		{"the event stream", "GET /events", func() (*http.Response, error) { return get(ctx, "http://"+addr+"/events") }},
		{"the long-poll", "GET /poll", func() (*http.Response, error) { return get(ctx, "http://"+addr+"/poll?after=") }},
	} {
		resp, err := c.connect()
		if resp == nil {
			fmt.Fprintf(&lines, "  %s (%s): %v\n", c.name, c.request, err)
		} else if resp.StatusCode >= 400 {
			fmt.Fprintf(&lines, "  %s (%s): status %d\n", c.name, c.request, resp.StatusCode)
		}
	}
	if lines.Len() == 0 {
		return ""
	}
	return "\nmain.go does not hand off these connections of the page, so they stay closed:\n" + lines.String()
}

// get returns the response, with its body closed: the body may never end.
func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}
