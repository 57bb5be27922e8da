// Command kit does the work of the Makefile's targets. It installs the tools, checks the ports, and starts the app,
// alone or together with an origin.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/local"
	"compute-starter-kit-go-fanout-forward/testdata/origins"
)

const usage = `usage: kit [-addr host:port] [-origin directory] command [arguments]

  tools       installs the Fastly CLI, Viceroy and Pushpin, if they are missing
  browser     installs a browser, if there is none, for the test of the live page
  origins     says which of the origins in other languages cannot be tested
  shellcheck  installs ShellCheck, if it is missing, and prints its path
  summary     summarizes test runs; the arguments are files with the output of go test -json
  env         prints shell commands that put the tools on PATH
  build       runs fastly compute build
  serve       runs fastly compute serve, for your own origin
  demo        runs the app together with the demo origin, or with the origin in the directory

Arguments after build, serve and demo go to the Fastly CLI.
`

func main() {
	addr := flag.String("addr", local.DefaultAddr, "where the app listens, `host:port`")
	dir := flag.String("origin", "", "the `directory` of an origin for the demo, in place of the demo's own")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	commands := map[string]func(context.Context, string, []string) error{
		"tools": tools, "env": env, "browser": browser, "origins": checkOrigins, "shellcheck": shellcheck, "build": build, "summary": summary, "serve": serve,
		"demo": func(ctx context.Context, addr string, args []string) error { return demo(ctx, addr, *dir, args) },
	}
	command, ok := commands[flag.Arg(0)]
	if !ok {
		flag.Usage()
		os.Exit(2)
	}
	a, err := net.ResolveTCPAddr("tcp4", *addr)
	if err != nil || a.IP == nil || a.Port == 0 {
		fmt.Fprintf(os.Stderr, "%s: the address %q is not host:port, such as %s\n", flag.Arg(0), *addr, local.DefaultAddr)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	os.Setenv("TMPDIR", local.ASCIITempDir())
	err = command(ctx, a.String(), flag.Args()[1:])
	if err != nil && ctx.Err() != nil {
		fmt.Fprintf(os.Stderr, "\n%s: interrupted; run it again to continue\n", flag.Arg(0))
		os.Exit(130) // what shells report for a Ctrl-C
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\n%s: %v\n", flag.Arg(0), err)
		os.Exit(1)
	}
}

func tools(ctx context.Context, _ string, _ []string) error {
	t, err := local.Ensure(ctx, os.Stderr)
	if err != nil {
		return err
	}
	fmt.Printf("Fastly CLI  %s\nViceroy     %s\nPushpin     %s\n", t.Fastly, t.Viceroy, t.Pushpin)
	return nil
}

// browser installs a browser. In CI it fails if that is not possible. Elsewhere it only says that the page is not tested.
func browser(ctx context.Context, _ string, _ []string) error {
	path, err := local.Browser(ctx, os.Stderr)
	if err == nil {
		fmt.Printf("Browser     %s\n", path)
		return nil
	}
	if os.Getenv("CI") != "" {
		return err
	}
	fmt.Fprintf(os.Stderr, "\n*** The live page is NOT TESTED: %v ***\n\n", err)
	return nil
}

// checkOrigins checks that the origins can run. In CI it fails if one cannot. Elsewhere it only says that it is not tested.
func checkOrigins(ctx context.Context, _ string, _ []string) error {
	for _, dir := range origins.Ours {
		if _, err := origins.Find(ctx, filepath.Join("testdata", "origins", dir)); err != nil {
			if os.Getenv("CI") != "" {
				return err
			}
			fmt.Fprintf(os.Stderr, "\n*** An origin is NOT TESTED: %v ***\n\n", err)
		}
	}
	return nil
}

func shellcheck(ctx context.Context, _ string, _ []string) error {
	path, err := local.Shellcheck(ctx, os.Stderr)
	if err == nil {
		fmt.Println(path)
	}
	return err
}

func env(ctx context.Context, _ string, _ []string) error {
	t, err := local.Ensure(ctx, os.Stderr)
	if err != nil {
		return err
	}
	var dirs []string
	for _, path := range []string{t.Fastly, t.Viceroy, t.Pushpin} {
		if found, err := exec.LookPath(filepath.Base(path)); err != nil || found != path {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if len(dirs) > 0 {
		fmt.Printf("export PATH='%s':\"$PATH\"\n", strings.ReplaceAll(strings.Join(dirs, ":"), "'", `'\''`))
	}
	fmt.Println("export FASTLY_VICEROY_USE_PATH=1")
	return nil
}

func build(ctx context.Context, _ string, args []string) error {
	t, err := local.Ensure(ctx, os.Stderr)
	if err != nil {
		return err
	}
	return become(t.Fastly, append([]string{"compute", "build", "--non-interactive"}, args...))
}

func serve(ctx context.Context, addr string, args []string) error {
	t, err := local.Ensure(ctx, os.Stderr)
	if err != nil {
		return err
	}
	m, err := local.ReadManifest(".")
	if err != nil {
		return err
	}
	if err := local.Preflight(ctx, append(m.Addresses(), addr)...); err != nil {
		return err
	}
	if conn, err := net.DialTimeout("tcp", m.Origin, time.Second); err != nil {
		fmt.Fprintf(os.Stderr, "serve: no origin answers at %s yet: start your origin there, or set its url in fastly.toml\n", m.Origin)
	} else {
		conn.Close()
	}
	return become(t.Fastly, append(local.Args(t, addr), args...))
}

// become replaces this process with the program. So the program gets the signals and the terminal directly.
func become(program string, args []string) error {
	err := syscall.Exec(program, append([]string{program}, args...), os.Environ())
	return fmt.Errorf("start %s: %w", program, err)
}

func demo(ctx context.Context, addr, dir string, args []string) error {
	var other origins.Origin
	var err error
	if dir != "" { // report a missing language before the steps that take long
		if other, err = origins.Find(ctx, dir); err != nil {
			return err
		}
	}
	t, m, err := local.Prepare(ctx, addr)
	if err != nil {
		return err
	}
	out := &untilStop{w: os.Stdout}
	var cmd *exec.Cmd
	if dir != "" {
		cmd, err = other.Install(ctx, out)
	} else {
		cmd, err = demoOrigin(addr, m)
	}
	if err != nil {
		return err
	}
	defer local.StopAll()
	origin, err := local.Origin(ctx, cmd, m, out)
	if err != nil {
		return err
	}
	app, err := local.Serve(ctx, t, ".", addr, out, args...)
	if err != nil {
		return err
	}

	closed := ""
	if dir == "" { // another origin need not have these connections
		closed = notHeld(ctx, addr)
	}
	printInvitation(addr, dir, m)
	fmt.Print(closed)
	select {
	case <-ctx.Done():
		out.stop.Store(true)
		fmt.Println("\ndemo: stopping")
		return nil
	case <-origin.Done():
		return errors.Join(errors.New("the origin ended: see its output above"), origin.Err())
	case <-app.Done():
		return errors.Join(errors.New("fastly compute serve ended: see its output above"), app.Err())
	}
}

// demoOrigin returns the command that runs the demo's own origin behind the app at addr.
func demoOrigin(addr string, m local.Manifest) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	trust, err := appOrigins(addr)
	if err != nil {
		return nil, err
	}
	return exec.Command(filepath.Join(filepath.Dir(self), "origin"), "-addr", m.Origin, "-trust", strings.Join(trust, ",")), nil
}

// appOrigins returns the web origins of the app's pages at addr, such as http://localhost:7676. It adds those in the
// environment variable TRUST, for an app that has other names too.
func appOrigins(addr string) (origins []string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	hosts := []string{host}
	if ip := net.ParseIP(host); ip.IsLoopback() {
		hosts = append(hosts, "localhost")
	} else if ip.IsUnspecified() {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("list this machine's addresses: %w", err)
		}
		hosts = []string{"localhost"}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
				hosts = append(hosts, n.IP.String())
			}
		}
	}
	for _, host := range hosts {
		origins = append(origins, strings.TrimSuffix("http://"+net.JoinHostPort(host, port), ":80"))
	}
	if trust := os.Getenv("TRUST"); trust != "" {
		origins = append(origins, trust)
	}
	return origins, nil
}

// untilStop passes on the output of programs until stop is set. After that, their messages about their own end would
// look like failures.
type untilStop struct {
	w    io.Writer
	stop atomic.Bool
}

func (u *untilStop) Write(p []byte) (int, error) {
	if u.stop.Load() {
		return len(p), nil
	}
	return u.w.Write(p)
}

// printInvitation prints what to try. Each command is one line, to copy and paste.
func printInvitation(addr, dir string, m local.Manifest) {
	host, port, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); ip.IsLoopback() || ip.IsUnspecified() {
		host = "localhost"
	}
	what := "three live connections to the demo's origin"
	if dir != "" {
		what = "the page of the origin in " + dir
	}
	fmt.Printf(`
Open http://%[1]s/ in a browser: %[3]s (http://%[2]s/).
Or try these commands, each in another terminal. Ctrl-C here ends it all.

  An event stream that stays open:
    curl -N http://%[1]s/events

  A WebSocket, which echoes what you type:
    websocat ws://%[1]s/socket

  A message to all of them, and to the page:
    curl -d hello http://%[1]s/publish

`, net.JoinHostPort(host, port), m.Origin, what)
}
