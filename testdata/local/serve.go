package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
)

// DefaultAddr is where the app listens by default, with `fastly compute serve`.
const DefaultAddr = "127.0.0.1:7676"

// Prepare is for a program that serves the app of this directory at addr, a host:port, and
// brings its own origin. It installs the tools, if needed, reads fastly.toml, and checks that
// the ports are free. It returns an error if the origin is not local. With an empty addr it
// checks only the origin's port.
func Prepare(ctx context.Context, addr string) (Tools, Manifest, error) {
	tools, err := Ensure(ctx, os.Stderr)
	if err != nil {
		return Tools{}, Manifest{}, err
	}
	m, err := ReadManifest(".")
	if err != nil {
		return Tools{}, Manifest{}, err
	}
	if a, err := net.ResolveTCPAddr("tcp", m.Origin); err != nil || !a.IP.IsLoopback() {
		return Tools{}, Manifest{}, fmt.Errorf("fastly.toml has the backend origin at %s, "+
			"but this command starts its own origin locally: "+
			"set url to http://localhost:3000/, or use make serve", m.Origin)
	}
	ports := []string{m.Origin}
	if addr != "" {
		ports = append(append(ports, addr), m.Addresses()...)
	}
	return tools, m, Preflight(ctx, m, ports...)
}

// Args returns the arguments with which the Fastly CLI serves the app at addr, a
// host:port, with these tools.
func Args(tools Tools, addr string) []string {
	return []string{
		"compute", "serve", "--non-interactive", "--addr", addr,
		"--viceroy-path", tools.Viceroy, "--pushpin-path", tools.Pushpin,
	}
}

// Serve starts `fastly compute serve` in the project directory dir, with the extra
// arguments args. It waits until the app accepts connections at addr, a host:port. The
// output of all programs goes to out.
func Serve(
	ctx context.Context, tools Tools, dir, addr string, out io.Writer, args ...string,
) (*Process, error) {
	cmd := exec.Command(tools.Fastly, append(Args(tools, addr), args...)...)
	cmd.Dir = dir
	p, err := Start(cmd, out)
	if err != nil {
		return nil, err
	}
	if _, err := p.WaitForListener(ctx, addr); err != nil {
		p.Stop()
		return nil, fmt.Errorf("fastly compute serve in %s: %w", dir, err)
	}
	return p, nil
}

// StartOrigin starts an origin with cmd and waits until it accepts connections at m.Origin,
// where the app connects to it. The environment has PORT, its port, and GRIP_URL, which
// describes its proxy. Its output goes to out.
func StartOrigin(ctx context.Context, cmd *exec.Cmd, m Manifest, out io.Writer) (*Process, error) {
	_, port, _ := net.SplitHostPort(m.Origin)
	// A GRIP_URL of the user, which is later in the list, wins.
	cmd.Env = slices.Concat([]string{"GRIP_URL=" + m.GripURL()}, os.Environ(), []string{"PORT=" + port})
	p, err := Start(cmd, out)
	if err != nil {
		return nil, err
	}
	if _, err := p.WaitForListener(ctx, m.Origin); err != nil {
		p.Stop()
		return nil, fmt.Errorf("the origin: %w", err)
	}
	return p, nil
}
