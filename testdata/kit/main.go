// Command kit does the work of the Makefile's targets. It installs the tools, checks the ports,
// and starts the app, alone or together with an origin.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/local"
	"compute-starter-kit-go-fanout-forward/testdata/origins"
)

const usage = `usage: kit [-addr host:port] [-origin directory] command [arguments]
The commands tools, testtools, env, build, serve and demo do what "make help" says.
`

var originDir = flag.String("origin", "",
	"the `directory` of an origin for the demo, in place of the demo's own")

func main() {
	addr := flag.String("addr", local.DefaultAddr, "where the app listens, `host:port`")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	commands := map[string]func(context.Context, string, []string) error{
		"tools": tools, "testtools": testTools, "env": env, "build": build, "serve": serve, "demo": demo,
	}
	command, ok := commands[flag.Arg(0)]
	if !ok {
		flag.Usage()
		os.Exit(2)
	}
	a, err := net.ResolveTCPAddr("tcp4", *addr)
	if err != nil || a.IP == nil || a.Port == 0 {
		fmt.Fprintf(os.Stderr, "%s: the address %q is not host:port, such as %s\n",
			flag.Arg(0), *addr, local.DefaultAddr)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // otherwise a closed pipe ends the demo
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
	if err == nil {
		fmt.Printf("Fastly CLI  %s\nViceroy     %s\nPushpin     %s\n", t.Fastly, t.Viceroy, t.Pushpin)
	}
	return err
}

// testTools installs what the tests need. If a browser, or a language of an origin, is missing, it
// fails in CI. Elsewhere it only reports what is not tested.
func testTools(ctx context.Context, _ string, _ []string) error {
	t, err := local.Ensure(ctx, os.Stderr)
	if err != nil {
		return err
	}
	fmt.Println(t.Versions(ctx))
	_, err = local.EnsureBrowser(ctx, os.Stderr)
	missing := []error{err}
	for _, dir := range origins.Ours {
		_, err := origins.Find(ctx, filepath.Join("testdata", "origins", dir))
		missing = append(missing, err)
	}
	for _, err := range missing {
		if err != nil && os.Getenv("CI") != "" {
			return err
		} else if err != nil {
			fmt.Fprintf(os.Stderr, "\n*** NOT TESTED: %v ***\n\n", err)
		}
	}
	return nil
}

// env prints shell commands that put the tools, or only the Fastly CLI, on PATH.
func env(ctx context.Context, _ string, args []string) error {
	var t local.Tools
	var err error
	if len(args) == 1 && args[0] == "fastly" {
		t.Fastly, err = local.EnsureFastly(ctx, os.Stderr)
	} else {
		t, err = local.Ensure(ctx, os.Stderr)
	}
	if err != nil {
		return err
	}
	var dirs []string
	for _, path := range []string{t.Fastly, t.Viceroy, t.Pushpin} {
		if found, _ := exec.LookPath(filepath.Base(path)); found != path {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if len(dirs) > 0 {
		fmt.Printf("export PATH=%s:\"$PATH\"\n", local.ShellQuote(strings.Join(dirs, ":")))
	}
	if t.Viceroy != "" {
		fmt.Println("export FASTLY_VICEROY_USE_PATH=1")
	}
	return nil
}

func build(ctx context.Context, _ string, args []string) error {
	fastly, err := local.EnsureFastly(ctx, os.Stderr)
	if err != nil {
		return err
	}
	return become(fastly, append([]string{"compute", "build", "--non-interactive"}, args...))
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
	if err := local.Preflight(ctx, m, append(m.Addresses(), addr)...); err != nil {
		return err
	}
	if conn, err := net.DialTimeout("tcp", m.Origin, time.Second); err != nil {
		fmt.Fprintf(os.Stderr, "serve: no origin answers at %s yet: "+
			"start your origin there, or set its url in fastly.toml\n", m.Origin)
	} else {
		conn.Close()
	}
	return become(t.Fastly, append(local.Args(t, addr), args...))
}

// become replaces this process with the program, which then gets the signals and the terminal.
func become(program string, args []string) error {
	err := syscall.Exec(program, append([]string{program}, args...), os.Environ())
	return fmt.Errorf("start %s: %w", program, err)
}
