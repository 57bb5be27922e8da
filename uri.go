//go:build fastlyinternalsetparseuri

package main

import (
	"net/url"
	"strings"

	"github.com/fastly/compute-sdk-go/fsthttp"
)

// Before the handler runs, the SDK parses the request's URI, and panics on one that net/url does not
// accept, such as /50%off. This hook accepts it. The SDK has it only under the build tag above, which
// fastly.toml sets, and says that it is "experimental", and "likely to change, so please avoid unless
// absolutely necessary". Without the tag the app builds too, and answers such a request with a 500.
func init() { fsthttp.SetParseRequestURI(parseRequestURI) }

// parseRequestURI parses the absolute URI of a request as url.ParseRequestURI does. Where that fails,
// Path is the path as it came, with nothing unescaped, and so is RawPath. It returns no error.
func parseRequestURI(uri string) (*url.URL, error) {
	if u, err := url.ParseRequestURI(uri); err == nil {
		return u, nil
	}
	scheme, rest, _ := strings.Cut(uri, "://")
	rest, query, hasQuery := strings.Cut(rest, "?")
	host, path, _ := strings.Cut(rest, "/")
	path = "/" + path
	return &url.URL{Scheme: scheme, Host: host, Path: path, RawPath: path, RawQuery: query, ForceQuery: hasQuery}, nil
}
