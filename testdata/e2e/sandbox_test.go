package e2e

import (
	"strconv"
	"testing"
)

// TestSandbox runs an app that uses as much CPU time as a request asks for. A sandbox that has used
// more than 20 ms gets no further request. One that has used less does, and keeps its variables.
func TestSandbox(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write(t, "served.go", `package main

import (
	"time"

	"github.com/fastly/compute-sdk-go/compute"
)

var served int

func use(limit time.Duration) {
	for used := time.Duration(0); used < limit; {
		used, _ = compute.GetVCPUTime()
	}
}
`)
	p.withCondition(t, `		useFanout = false
		served++
		limit, _ := time.ParseDuration(r.Header.Get("Use"))
		use(limit)
		r.Header.Set("Served", fmt.Sprint(served))
`)
	a := startApp(t, p)
	served := func(use string) int {
		a.exchange(t, "GET / HTTP/1.1\r\nHost: example.com\r\nUse: "+use+"\r\n\r\n")
		n, _ := strconv.Atoi(a.origin.arrived(t).header.Get("Served"))
		return n
	}
	for range 10 {
		if n := served("25ms"); n != 1 {
			t.Fatalf("a sandbox that has used 25 ms of CPU time served request %d", n)
		}
	}
	eventually(t, "a sandbox that has used 10 ms of CPU time serves a second request",
		func() bool { return served("10ms") > 1 })
}
