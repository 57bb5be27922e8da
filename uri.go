//go:build fastlyinternalsetparseuri

package main

import (
	"net/url"
	"strings"

	"github.com/fastly/compute-sdk-go/fsthttp"
)

// The SDK parses the request's URI before the handler runs. It panics if net/url does not accept the URI, for
// example /50%off. This hook accepts it. The SDK has the hook only with the build tag above, which fastly.toml
// sets. The SDK calls it "experimental", and "likely to change, so please avoid unless absolutely necessary".
// Without the tag, the app still builds; such a request then gets a 500.
func init() { fsthttp.SetParseRequestURI(parseRequestURI) }

// parseRequestURI parses the absolute URI of a request as url.ParseRequestURI does. If that fails, Path and RawPath
// are both the path as the client sent it, without unescaping. It never returns an error.
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
