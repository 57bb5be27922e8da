// Package main is an edge app for Fastly Compute that puts Fastly Fanout in front of an origin:
// WebSockets, and GET and HEAD requests, reach the backend "origin" through the Fanout GRIP proxy,
// where the origin may hold them open and publish to them later; the rest is forwarded there as is.
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

const backend = "origin" // its name in fastly.toml, and in the service's configuration

func main() {
	fmt.Println("FASTLY_SERVICE_VERSION:", cmp.Or(os.Getenv("FASTLY_SERVICE_VERSION"), "local"))

	// A sandbox that serves several requests, one after the other, starts the Go runtime once for all of
	// them: 32 at the most, as Fastly allows one execution 32 backend requests. So keep nothing of a
	// request in a package variable: the next request, somebody else's, would find it. To have a sandbox
	// for each request, put fsthttp.ServeFunc(handle) here instead.
	fsthttp.ServeMany(handle, &fsthttp.ServeManyOptions{
		MaxRequests: 32,
		MaxLifetime: 30 * time.Second, // an execution may take 2 minutes, in a trial 60 s: the last request has time
		NextTimeout: time.Second,      // to wait costs no CPU, but memory
	})
}

func handle(ctx context.Context, w fsthttp.ResponseWriter, r *fsthttp.Request) {
	useFanout := false

	if r.Method == fsthttp.MethodGet && upgradesToWebSocket(r.Header) {
		// Fanout holds the WebSocket, and talks to the origin in WebSocket-over-HTTP:
		// https://pushpin.org/docs/protocols/websocket-over-http/
		useFanout = true
	} else if r.Method == fsthttp.MethodGet || r.Method == fsthttp.MethodHead {
		// The origin's response may carry GRIP instructions, to hold the connection open and to
		// subscribe it to channels: https://pushpin.org/docs/protocols/grip/

		// NOTE: A real app is selective, by path or by header, since what is handed off to Fanout
		// does not pass through the Fastly cache. See "What to hand off to Fanout":
		// https://www.fastly.com/documentation/guides/concepts/real-time-messaging/fanout/#what-to-hand-off-to-fanout
		// NOTE: HandoffFanout hands off what the client sent; what you change in r (a header, the path), only Send sends.

		// TODO: add any additional conditions before setting useFanout to true
		useFanout = true
	}

	if !useFanout {
		forward(ctx, w, r)
	} else if err := r.HandoffFanout(backend); err != nil { // without an error, nothing may be written to w any more
		if errors.Is(err, fsthttp.ErrFanoutNotEnabled) {
			err = fmt.Errorf("%w; to enable Fanout: fastly products --enable=fanout", err)
		}
		log.Printf("handoff to Fanout, backend %q: %v", backend, err)
		fail(w, fsthttp.StatusServiceUnavailable)
	}
}

// upgradesToWebSocket reports whether a request's Upgrade header, a comma-separated list over any
// number of lines (RFC 9110 section 7.8), names the protocol websocket (RFC 6455 section 4.2.1).
func upgradesToWebSocket(h fsthttp.Header) bool {
	protocols := strings.Split(strings.Join(h.Values("Upgrade"), ","), ",")
	return slices.ContainsFunc(protocols, func(p string) bool {
		return strings.EqualFold(strings.TrimSpace(p), "websocket")
	})
}

// forward sends the request to the origin, and the response to the client.
func forward(ctx context.Context, w fsthttp.ResponseWriter, r *fsthttp.Request) {
	r.Header.Del("Upgrade") // it is for one hop, from the client to here: RFC 9110 section 7.8
	// Send would spell a path such as /x|y anew. The client's spelling stays, unless Path was changed (err: a bad escape).
	if path, err := url.PathUnescape(r.URL.RawPath); path == r.URL.Path || err != nil && r.URL.RawPath == r.URL.Path {
		r.URL.Opaque = "//" + r.URL.Host + r.URL.RawPath
	}
	// Send looks for the response again and again. Each millisecond, for the 15 s that a backend may take,
	// that would use 150 ms of CPU, of which Fastly allows 50: so look less and less often.
	r.SendPollIntervalFn = func(n int) time.Duration { return time.Duration(1+n/16) * time.Millisecond }
	resp, err := r.Send(ctx, backend)
	if err != nil {
		fail(w, sendFailed(err))
		return
	}
	w.Header().Reset(resp.Header)
	w.SetManualFramingMode(true) // as the origin framed it: a client can tell a response that was cut short
	w.WriteHeader(resp.StatusCode)
	// The host joins the two bodies: they stream past the sandbox, not through it.
	if err := w.Append(resp.Body); err != nil {
		panic(fmt.Errorf("append the body from backend %q: %w", backend, err)) // else it would end as if whole
	}
}

// sendFailed logs why the backend gave no response, and returns the status for the client.
func sendFailed(err error) int {
	status := fsthttp.StatusBadGateway
	detail, _ := errors.AsType[fsthttp.SendError](err)
	switch cause := detail.Cause(); {
	case cause == fsthttp.SendErrorDNSTimeout, cause == fsthttp.SendErrorConnectionTimeout, cause == fsthttp.SendErrorHTTPResponseTimeout:
		status = fsthttp.StatusGatewayTimeout
	case cause == fsthttp.SendErrorDestinationNotFound, errors.Is(err, fsthttp.ErrBackendNotFound): // or any invalid argument
		status = fsthttp.StatusInternalServerError
		err = fmt.Errorf("%[2]w; if there is none, to make it: fastly backend create --name=%[1]s --address=HOST --port=443 --version=latest --autoclone", backend, err)
	}
	log.Printf("send to backend %q: %v", backend, err)
	return status
}

// fail answers a request that could not be passed on. The cause, which a client must not see, is in the log.
func fail(w fsthttp.ResponseWriter, status int) {
	w.Header().Set("Cache-Control", "no-store")
	fsthttp.Error(w, fsthttp.StatusText(status), status)
}
