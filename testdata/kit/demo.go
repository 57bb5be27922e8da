package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/local"
	"compute-starter-kit-go-fanout-forward/testdata/origins"
)

func demo(ctx context.Context, addr string, args []string) (err error) {
	var other origins.Program
	if *originDir != "" { // report a missing language before the steps that take long
		if other, err = origins.Find(ctx, *originDir); err != nil {
			return err
		}
	}
	t, m, err := local.Prepare(ctx, addr)
	if err != nil {
		return err
	}
	out := &output{}
	var cmd *exec.Cmd
	if *originDir != "" {
		cmd, err = other.Install(ctx, out)
	} else {
		cmd, err = demoOrigin(addr, m)
	}
	if err != nil {
		return err
	}
	defer local.StopAll()
	err = run(ctx, cmd, t, m, addr, out, args)
	if ctx.Err() != nil {
		out.closed.Store(true)
		fmt.Println("\ndemo: stopping")
		return nil
	}
	return err
}

// run runs the origin and the app until one of them ends or ctx is done.
func run(
	ctx context.Context, cmd *exec.Cmd, t local.Tools, m local.Manifest,
	addr string, out *output, args []string,
) error {
	origin, err := local.StartOrigin(ctx, cmd, m, out)
	if err != nil {
		return err
	}
	app, err := local.Serve(ctx, t, ".", addr, out, args...)
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); ip.IsLoopback() || ip.IsUnspecified() {
		host = "localhost"
	}
	var faults []fault
	what := "the page of the origin in " + *originDir
	if *originDir == "" {
		what = fmt.Sprintf("three live connections to the demo's origin (http://%s/)", m.Origin)
		faults = probe(ctx, addr)
	}
	out.settle(ctx)
	fmt.Print(invitation(net.JoinHostPort(host, port), what, faults))
	select {
	case <-ctx.Done():
		return nil
	case <-origin.Done():
		return fmt.Errorf("the origin ended: %w; see its output above", origin.Err())
	case <-app.Done():
		return fmt.Errorf("fastly compute serve ended: %w; see its output above", app.Err())
	}
}

// invitation says what to try, and leaves out what does not work. Each command is a line to paste.
func invitation(where, what string, faults []fault) string {
	text := fmt.Sprintf("\nOpen http://%s/ in a browser: %s.\n", where, what) +
		"Or try these commands, each in another terminal.\n"
	for _, hint := range []struct{ path, about, command string }{
		{"/events", "An event stream that stays open", "curl -N http://%s/events"},
		{"/socket", "A WebSocket, which echoes what you type", "websocat ws://%s/socket"},
		{"/socket", "The same, without websocat", "npx --yes wscat@6.1.0 -c ws://%s/socket"},
		{"", "A message to all of them, and to the page", "curl -d hello http://%s/publish"},
	} {
		if !slices.ContainsFunc(faults, func(f fault) bool { return f.path == hint.path }) {
			text += fmt.Sprintf("\n  %s:\n    "+hint.command+"\n", hint.about, where)
		}
	}
	for _, f := range faults {
		text += fmt.Sprintf("\nThe page's %s (GET %s) stays closed: %s\n", f.name, f.path, f.why)
	}
	return text + "\nAfter you change main.go, restart the demo, or have it rebuild the app: " +
		"make demo ARGS=--watch\nPress Ctrl-C here to stop everything.\n\n"
}

// demoOrigin returns the command that runs the demo's own origin behind the app at addr. The
// origin trusts the app's pages, such as http://localhost:7676, and those in the environment
// variable TRUST, for an app that has other names too.
func demoOrigin(addr string, m local.Manifest) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	hosts, ip := []string{host}, net.ParseIP(host)
	if ip.IsLoopback() || ip.IsUnspecified() {
		hosts = append(hosts, "localhost")
	}
	if ip.IsUnspecified() {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("list this machine's addresses: %w", err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
				hosts = append(hosts, n.IP.String())
			}
		}
	}
	trust := os.Getenv("TRUST")
	for _, host := range hosts {
		trust += "," + strings.TrimSuffix("http://"+net.JoinHostPort(host, port), ":80")
	}
	origin := filepath.Join(filepath.Dir(self), "origin")
	return exec.Command(origin, "-addr", m.Origin, "-trust", strings.TrimPrefix(trust, ",")), nil
}

// output passes on what the programs print. When it is closed, it does not: their messages about
// their own end would look like failures.
type output struct {
	last   atomic.Int64 // when a program printed last, in nanoseconds since 1970
	closed atomic.Bool
}

func (o *output) Write(p []byte) (int, error) {
	if o.closed.Load() {
		return len(p), nil
	}
	o.last.Store(time.Now().UnixNano())
	os.Stdout.Write(p) // the demo goes on after `make demo | head`
	return len(p), nil
}

// settle waits until the programs have printed nothing for a little longer than a sandbox
// waits for its next request. Then Viceroy's lines about the end of the sandbox do not
// follow what is printed next.
func (o *output) settle(ctx context.Context) {
	limit := time.Now().Add(5 * time.Second)
	for time.Since(time.Unix(0, o.last.Load())) < 1200*time.Millisecond && time.Now().Before(limit) && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
}
