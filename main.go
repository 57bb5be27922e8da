// Package main is an edge app for Fastly Compute. It puts Fastly Fanout in front of an origin. It hands off
// WebSockets, and GET and HEAD requests, to the Fanout GRIP proxy, which sends them on to the backend "origin". The
// origin can tell the proxy to hold them open, and publish to them later. The app itself forwards all other requests.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fastly/compute-sdk-go/fsthttp"
)

const backend = "origin" // the backend's name in fastly.toml, and in the service's configuration

func main() {
	fmt.Println("FASTLY_SERVICE_VERSION:", cmp.Or(os.Getenv("FASTLY_SERVICE_VERSION"), "local"))

	// One sandbox serves several requests, one after another, so the Go runtime starts once for all of them. The limit
	// is 32, because Fastly allows one execution 32 backend requests. Do not keep a request's data in a package
	// variable: the next request, from another client, would find it. To use one sandbox for each request instead,
	// call fsthttp.ServeFunc(handle) here.
	fsthttp.ServeMany(handle, &fsthttp.ServeManyOptions{
		MaxRequests: 32,
		MaxLifetime: 30 * time.Second, // Fastly ends an execution after 2 minutes (a trial: 60 s); the last request needs time too
		NextTimeout: time.Second,      // waiting uses memory, but no CPU time
	})
}

func handle(ctx context.Context, w fsthttp.ResponseWriter, r *fsthttp.Request) {
	useFanout := false

	if r.Method == fsthttp.MethodGet && upgradesToWebSocket(r.Header) {
		// Fanout holds the WebSocket open, and talks to the origin in WebSocket-over-HTTP:
		// https://pushpin.org/docs/protocols/websocket-over-http/
		useFanout = true
	} else if r.Method == fsthttp.MethodGet || r.Method == fsthttp.MethodHead {
		// The origin's response may have GRIP instructions. They tell Fanout to hold the connection open, and to
		// subscribe it to channels: https://pushpin.org/docs/protocols/grip/

		// NOTE: Requests that are handed off to Fanout do not pass through the Fastly cache. So a real app hands off
		// only some of them, chosen by path or header. See "What to hand off to Fanout":
		// https://www.fastly.com/documentation/guides/concepts/real-time-messaging/fanout/#what-to-hand-off-to-fanout
		// NOTE: HandoffFanout hands off the request as the client sent it. Changes to r (a header, the path) affect only Send.

		// TODO: add any additional conditions before setting useFanout to true
		useFanout = true
	}

	if !useFanout {
		forward(ctx, w, r)
	} else if err := r.HandoffFanout(backend); err != nil { // if err is nil, do not write to w
		if errors.Is(err, fsthttp.ErrFanoutNotEnabled) {
			err = fmt.Errorf("%w; to enable Fanout: fastly products --enable=fanout", err)
		}
		log.Printf("handoff to Fanout, backend %q: %v", backend, err)
		fail(w, fsthttp.StatusServiceUnavailable)
	}
}

// upgradesToWebSocket reports whether the Upgrade header names the protocol websocket (RFC 6455 section 4.2.1).
// The header is a comma-separated list, in one line or several (RFC 9110 section 7.8).
func upgradesToWebSocket(h fsthttp.Header) bool {
	protocols := strings.Split(strings.Join(h.Values("Upgrade"), ","), ",")
	return slices.ContainsFunc(protocols, func(p string) bool {
		return strings.EqualFold(strings.TrimSpace(p), "websocket")
	})
}

// forward sends the request to the origin, and then the origin's response to the client.
func forward(ctx context.Context, w fsthttp.ResponseWriter, r *fsthttp.Request) {
	r.Header.Del("Upgrade") // this header is only for the connection between the client and this app: RFC 9110 section 7.8
	// Send would encode a path such as /x|y again. Keep the client's encoding, unless Path was changed. (err: a bad escape)
	if path, err := url.PathUnescape(r.URL.RawPath); path == r.URL.Path || err != nil && r.URL.RawPath == r.URL.Path {
		r.URL.Opaque = "//" + r.URL.Host + r.URL.RawPath
	}
	// Send polls for the response. A backend may take 15 s. A poll in each millisecond of that time would use 150 ms of
	// CPU time, and Fastly allows 50 ms. So the first wait between two polls is 2 ms, and the waits grow.
	r.SendPollIntervalFn = func(n int) time.Duration { return time.Duration(2+n/16) * time.Millisecond }
	resp, err := r.Send(ctx, backend)
	if err != nil {
		fail(w, sendFailed(err))
		return
	}
	w.Header().Reset(resp.Header)
	w.SetManualFramingMode(true) // keep the origin's framing: it shows the client that a response was cut short
	w.WriteHeader(resp.StatusCode)
	// The host connects the two bodies: the data streams to the client, and not through the sandbox.
	if err := w.Append(resp.Body); err != nil {
		panic(fmt.Errorf("append the body from backend %q: %w", backend, err)) // otherwise the cut body would look complete
	}
}

// sendFailed logs why there is no response from the backend, and returns the status for the client.
func sendFailed(err error) int {
	status := fsthttp.StatusBadGateway
	detail, _ := errors.AsType[fsthttp.SendError](err)
	switch cause := detail.Cause(); {
	case cause == fsthttp.SendErrorDNSTimeout, cause == fsthttp.SendErrorConnectionTimeout, cause == fsthttp.SendErrorHTTPResponseTimeout:
		status = fsthttp.StatusGatewayTimeout
	case cause == fsthttp.SendErrorDestinationNotFound, errors.Is(err, fsthttp.ErrBackendNotFound): // also for any invalid argument
		status = fsthttp.StatusInternalServerError
		err = fmt.Errorf("%[2]w; if there is none, to make it: fastly backend create --name=%[1]s --address=HOST --port=443 --version=latest --autoclone", backend, err)
	}
	log.Printf("send to backend %q: %v", backend, err)
	return status
}

// fail answers a request that failed. The client must not see the cause, which is in the log.
func fail(w fsthttp.ResponseWriter, status int) {
	w.Header().Set("Cache-Control", "no-store")
	fsthttp.Error(w, fsthttp.StatusText(status), status)
}
