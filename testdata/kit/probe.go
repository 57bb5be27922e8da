package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// fault is a connection of the demo's page that does not work.
type fault struct{ name, path, why string }

// probe opens the connections of the demo's page through the app at addr, a host:port,
// and returns those that fail.
func probe(ctx context.Context, addr string) (faults []fault) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, f := range []fault{
		{name: "WebSocket", path: "/socket"},
		{name: "event stream", path: "/events"},
		{name: "long-poll", path: "/poll"},
	} {
		if f.why = open(ctx, "http://"+addr+f.path, f.path == "/socket"); f.why != "" {
			faults = append(faults, f)
		}
	}
	return faults
}

// open opens a connection and closes it again. It returns why that fails, or "".
func open(ctx context.Context, url string, webSocket bool) (why string) {
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"?after=", nil)
	want := http.StatusOK
	if webSocket {
		want = http.StatusSwitchingProtocols
		req.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if resp.StatusCode == want {
		return "" // without reading the body, which may never end
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	// The demo's origin refuses with these words only what did not come through the proxy.
	if resp.StatusCode == http.StatusForbidden && strings.Contains(string(body), "through the GRIP proxy only") {
		return "main.go does not hand it off."
	}
	return fmt.Sprintf("it was answered with %s (%.80s).", resp.Status, strings.TrimSpace(string(body)))
}
