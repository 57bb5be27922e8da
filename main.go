// Package main is an edge app for Fastly Compute that puts Fastly Fanout in front of an origin.
// The app hands off WebSockets, and GET and HEAD requests, to Fanout. Fanout passes them to the
// origin, and keeps a connection open for as long as the origin wants to push messages to it.
// The app forwards all other requests to the origin itself.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fastly/compute-sdk-go/compute"
	"github.com/fastly/compute-sdk-go/fsthttp"
)

const backend = "origin" // the backend's name in fastly.toml and in the service's configuration

// handle decides where a request goes: through Fanout to the origin, or directly to the origin.
func handle(ctx context.Context, w fsthttp.ResponseWriter, r *fsthttp.Request) {
	isWebSocket := upgradesToWebSocket(r)
	removeHopByHop(r.Header) // set your own headers after this: the client's Connection may name them
	useFanout := false

	if isWebSocket {
		// Fanout maintains the connection with the client, and transforms the WebSocket's messages
		// to and from HTTP requests: https://pushpin.org/docs/protocols/websocket-over-http/
		useFanout = true
	} else if r.Method == fsthttp.MethodGet || r.Method == fsthttp.MethodHead {
		// The origin's response can have GRIP instructions. They tell Fanout to hold the connection
		// open and to subscribe it to channels: https://pushpin.org/docs/protocols/grip/

		// NOTE: In an actual app, be selective. A request that is handed off to Fanout does not pass
		// through the Fastly cache. The response to a forwarded request may be cached, for two minutes
		// unless it says otherwise. For details, see "What to hand off to Fanout":
		// https://www.fastly.com/documentation/guides/concepts/real-time-messaging/fanout/

		// TODO: add any additional conditions before setting useFanout to true
		useFanout = true
	}

	if useFanout {
		// Fanout gets the request as the client sent it, without the changes that were made to r.
		if err := r.HandoffFanout(backend); err != nil {
			handoffFailed(w, r, err)
		}
		return // after a handoff the response is Fanout's, so nothing may be written to w
	}

	keepRawPath(r.URL)
	r.SendPollIntervalFn = pollInterval
	resp, err := r.Send(ctx, backend)
	if err != nil {
		sendFailed(w, r, err)
		return
	}
	respond(w, r, resp)
}

// upgradesToWebSocket reports whether the request asks to switch to a WebSocket. That takes a GET
// (RFC 6455 section 4.1) whose Upgrade header lists the protocol (RFC 9110 section 7.8).
func upgradesToWebSocket(r *fsthttp.Request) bool {
	protocols := strings.Split(strings.Join(r.Header.Values("Upgrade"), ","), ",")
	return r.Method == fsthttp.MethodGet && slices.ContainsFunc(protocols, func(p string) bool {
		return strings.EqualFold(strings.TrimSpace(p), "websocket")
	})
}

func main() {
	fmt.Println("FASTLY_SERVICE_VERSION:", os.Getenv("FASTLY_SERVICE_VERSION")) // locally 0

	// One sandbox serves several clients' requests in turn, so that the Go runtime starts only once
	// for all of them. A package variable is still there for the next client's request, so never
	// keep a request's data in one. For a sandbox per request, call fsthttp.ServeFunc(handle).
	fsthttp.ServeMany(handle, &fsthttp.ServeManyOptions{
		// Fastly allows an execution 32 backend requests (10 in a trial account), and handle makes one
		// for each request. If you make it send n requests instead, set this to 32/n.
		MaxRequests: 32,
		MaxLifetime: 30 * time.Second, // Fastly ends an execution after 2 minutes (1 in a trial account)
		NextTimeout: time.Second,      // a sandbox that waits occupies memory, but uses no CPU time
		// Fastly allows an execution 50 ms of CPU time. What is left after 20 ms is enough for a request
		// whose backend takes 15 s to respond, the default timeout: see pollInterval.
		Continue: func() bool {
			used, err := compute.GetVCPUTime()
			return err == nil && used < 20*time.Millisecond
		},
	})
}
