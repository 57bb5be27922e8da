//go:build fastlyinternalsetparseuri

package main

import (
	"net/url"
	"strings"

	"github.com/fastly/compute-sdk-go/fsthttp"
)

// The SDK parses each request's URI before the handler runs, and panics on one that net/url does
// not accept, such as /50%off; what it does accept it may spell anew on the way to the backend.
// An origin must get the target that the client sent, so the app brings a parser of its own.
// The SDK offers the hook only under the build tag above, which fastly.toml sets.
func init() { fsthttp.SetParseRequestURI(parseRequestURI) }

// parseRequestURI parses the absolute URI of a request as url.ParseRequestURI does. Where that
// fails, or would not give the same bytes again, the URL keeps the target as it came in Opaque,
// which String prefers to Path: if you set Path on the way to the backend, clear Opaque. It returns no
// error.
func parseRequestURI(uri string) (*url.URL, error) {
	u, err := url.ParseRequestURI(uri)
	if err == nil && u.String() == uri {
		return u, nil
	}
	scheme, rest, _ := strings.Cut(uri, ":")
	opaque, query, hasQuery := strings.Cut(rest, "?")
	if err != nil {
		host, path := strings.TrimPrefix(opaque, "//"), ""
		if i := strings.IndexByte(host, '/'); i >= 0 {
			host, path = host[:i], host[i:]
		}
		u = &url.URL{Host: host, Path: path}
	}
	u.Scheme, u.Opaque, u.RawQuery, u.ForceQuery = scheme, opaque, query, hasQuery && query == ""
	return u, nil
}
