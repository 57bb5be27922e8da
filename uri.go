//go:build fastlyinternalsetparseuri

package main

import "github.com/fastly/compute-sdk-go/fsthttp"

// The SDK parses a request's URI before it calls the handler, and panics if net/url rejects the
// URI. This hook prevents that. The SDK has it only with the build tag above, which fastly.toml
// sets, and calls it experimental. Without the tag, the client of such a request gets a 500.
func init() { fsthttp.SetParseRequestURI(parseRequestURI) }
