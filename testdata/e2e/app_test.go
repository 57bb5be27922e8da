package e2e

import (
	"strconv"
	"testing"
)

// TestApp tests at the level of bytes what the app does with requests and responses. The function
// condition takes the place of the condition in main.go, so that GET and HEAD can go both ways.
func TestApp(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write(t, "condition.go", conditionGo)
	p.withCondition(t, "\t\tuseFanout = condition(r)\n")
	a := &app{p, startServer(t, p.origin), startServer(t, loopback(p.proxyPort))}
	p.serveAlone(t, "--local-pushpin-proxy-port", strconv.Itoa(p.proxyPort))

	t.Run("sandbox ends", a.testSandboxEnds) // first: it waits for the end of the only sandbox
	t.Run("requests", a.testRequests)
	t.Run("changed requests", a.testChangedRequests)
	t.Run("cut upload", a.testCutUpload)
	t.Run("smuggling", a.testSmuggling)
	t.Run("responses", a.testResponses)
	t.Run("origin fails", a.testOriginFails)
	t.Run("own answers", a.testOwnAnswers)
	t.Run("CPU time", a.testCPUTime)
}

// app is a project's app in Viceroy, without Pushpin and the Fastly CLI. It forwards to the
// server origin, and hands off to the server fanout, which stands where Pushpin would.
type app struct {
	*project
	origin, fanout *server
}

// With this condition, the app hands off what is for fanout.example, and forwards the rest. The
// answers for a WebSocket and for the method get are wrong: the app must not ask about these.
const conditionGo = `package main

import (
	"crypto/rand"
	"strings"
	"time"

	"github.com/fastly/compute-sdk-go/compute"
	"github.com/fastly/compute-sdk-go/fsthttp"
)

var sandbox = rand.Text() // the sandbox's name

func condition(r *fsthttp.Request) bool {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/old"); ok {
		r.URL.Path = "/new" + rest
		r.Header.Set("Own", "of the app")
	}
	if limit, err := time.ParseDuration(r.Header.Get("Use")); err == nil {
		for used := time.Duration(0); used < limit; {
			used, _ = compute.GetVCPUTime()
		}
		r.Header.Set("Sandbox", sandbox)
	}
	isWebSocket := r.Header.Get("Sec-WebSocket-Key") != ""
	return (r.Host == "fanout.example" || r.Method == "get") && !isWebSocket
}
`
