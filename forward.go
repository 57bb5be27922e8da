package main

import (
	"errors"
	"fmt"
	"log"
	"math"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/fastly/compute-sdk-go/fsthttp"
)

// hopByHop lists the fields that are about one connection, as httputil.ReverseProxy does.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// removeHopByHop removes what an intermediary must not forward: the fields in hopByHop, and those
// that Connection names (RFC 9110 section 7.6.1).
func removeHopByHop(h fsthttp.Header) {
	for name := range strings.SplitSeq(strings.Join(h.Values("Connection"), ","), ",") {
		h.Del(strings.TrimSpace(name))
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// keepRawPath makes Send keep the path as the client wrote it, such as /x|y, which url.URL would
// escape. It does nothing if Path was changed, or if there is no RawPath.
func keepRawPath(u *url.URL) {
	if u.RawPath != "" && unescape(u.RawPath) == u.Path {
		u.Opaque = "//" + u.Host + u.RawPath
	}
}

// pollInterval returns how long Send waits for the response after it has polled n+1 times. Each
// wait is 3% longer than the last, so Send finds a response at most 3% late, plus 2 ms. Measured
// with compute.GetVCPUTime in Viceroy 0.22, a response after 5 s took 147 polls and 22 ms of CPU
// time, and one after 15 s took 184 polls and 26 ms. In 5 s, polls every 1 ms took over 100 ms.
func pollInterval(n int) time.Duration {
	return time.Duration(float64(2*time.Millisecond) * math.Pow(1.03, float64(n)))
}

// parseRequestURI parses the URI of a client's request, as url.ParseRequestURI does. It also
// accepts a path with a malformed percent-escape, such as /50%off, and never returns an error.
func parseRequestURI(uri string) (*url.URL, error) {
	if u, err := url.ParseRequestURI(uri); err == nil {
		return u, nil
	}
	scheme, rest, _ := strings.Cut(uri, "://")
	rest, query, hasQuery := strings.Cut(rest, "?")
	host, path, _ := strings.Cut(rest, "/")
	return &url.URL{
		Scheme: scheme, Host: host, Path: unescape("/" + path), RawPath: "/" + path,
		RawQuery: query, ForceQuery: hasQuery,
	}, nil
}

// unescape decodes the percent-escapes of a path, and keeps the malformed ones as they are. Some
// origins do the same, and a condition on Path must see the path that the origin sees.
func unescape(path string) string {
	return escape.ReplaceAllStringFunc(path, func(e string) string {
		char, _ := url.PathUnescape(e) // cannot fail
		return char
	})
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// respond sends the origin's response to the client.
func respond(w fsthttp.ResponseWriter, r *fsthttp.Request, resp *fsthttp.Response) {
	if resp.StatusCode < 200 { // such as 101, to a protocol that nobody has asked for
		sendFailed(w, r, fmt.Errorf("unexpected final status %d", resp.StatusCode))
		return
	}
	if resp.Header.Values("Transfer-Encoding") != nil {
		resp.Header.Del("Content-Length") // Transfer-Encoding overrides it: RFC 9112 section 6.3
	}
	removeHopByHop(resp.Header)
	w.Header().Reset(resp.Header)
	// With the origin's Content-Length, the client notices if the body is cut short.
	w.SetManualFramingMode(resp.Header.Values("Content-Length") != nil)
	w.WriteHeader(resp.StatusCode)
	// The host connects the two bodies, so the data does not pass through the sandbox.
	if err := w.Append(resp.Body); err != nil {
		log.Printf("%s %q: send the response to the client: %v", r.Method, r.URL.Path, err)
		os.Exit(1) // if this returned, the SDK would end the response as if it were whole
	}
}

// handoffFailed answers a request that was not handed off. The log omits the query, which may be
// secret.
func handoffFailed(w fsthttp.ResponseWriter, r *fsthttp.Request, err error) {
	if errors.Is(err, fsthttp.ErrFanoutNotEnabled) {
		err = fmt.Errorf("%w; to enable Fanout: fastly products --enable=fanout", err)
	}
	log.Printf("%s %q: handoff to Fanout, backend %q: %v", r.Method, r.URL.Path, backend, err)
	fail(w, fsthttp.StatusServiceUnavailable)
}

// sendFailed answers a request that got no usable response from the backend.
func sendFailed(w fsthttp.ResponseWriter, r *fsthttp.Request, err error) {
	status := fsthttp.StatusBadGateway
	var detail fsthttp.SendError
	errors.As(err, &detail)
	switch cause := detail.Cause(); {
	case cause == fsthttp.SendErrorDNSTimeout, cause == fsthttp.SendErrorConnectionTimeout,
		cause == fsthttp.SendErrorHTTPResponseTimeout:
		status = fsthttp.StatusGatewayTimeout
	case cause == fsthttp.SendErrorDestinationNotFound, errors.Is(err, fsthttp.ErrBackendNotFound):
		status = fsthttp.StatusInternalServerError
		err = fmt.Errorf("%w; to create the backend: fastly service backend create --name=%s "+
			"--address=HOST --port=443 --version=latest --autoclone, and activate that version", err, backend)
	}
	log.Printf("%s %q: send to backend %q: %v", r.Method, r.URL.Path, backend, err)
	fail(w, status)
}

// fail answers a request with an error. The client must not see the cause, which is in the log.
func fail(w fsthttp.ResponseWriter, status int) {
	w.Header().Set("Cache-Control", "no-store")
	fsthttp.Error(w, fsthttp.StatusText(status), status)
}
