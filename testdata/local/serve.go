// Package local runs the app as a person does, with `fastly compute serve`. The chain is the programs that this
// starts: the Fastly CLI starts Pushpin and Viceroy, and Viceroy runs the app.
package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
)

// DefaultAddr is where the app listens by default, with `fastly compute serve`.
const DefaultAddr = "127.0.0.1:7676"

// Args returns the arguments with which the Fastly CLI serves the app at addr, a host:port, with these tools.
func Args(tools Tools, addr string) []string {
	return []string{
		"compute", "serve", "--non-interactive", "--addr", addr,
		"--viceroy-path", tools.Viceroy, "--pushpin-path", tools.Pushpin,
	}
}

// Serve starts `fastly compute serve` in the project directory dir, with the extra arguments args. It waits until the
// app accepts connections at addr, a host:port. The output of all programs goes to out.
func Serve(ctx context.Context, tools Tools, dir, addr string, out io.Writer, args ...string) (*Process, error) {
	cmd := exec.Command(tools.Fastly, append(Args(tools, addr), args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	p, err := Start(cmd)
	if err != nil {
		return nil, err
	}
	if _, err := p.WaitForListener(ctx, addr); err != nil {
		p.Stop()
		return nil, fmt.Errorf("fastly compute serve in %s: %w", dir, err)
	}
	return p, nil
}

// Origin starts an origin with cmd. It waits until the origin accepts connections at m.Origin, where the app connects
// to it. The origin's environment has PORT, its port, and GRIP_URL, which describes its proxy. Its output goes to out.
func Origin(ctx context.Context, cmd *exec.Cmd, m Manifest, out io.Writer) (*Process, error) {
	cmd.Stdout, cmd.Stderr = out, out
	_, port, _ := net.SplitHostPort(m.Origin)
	cmd.Env = append([]string{"GRIP_URL=" + m.GripURL()}, os.Environ()...) // a GRIP_URL of the user, later in the list, wins
	cmd.Env = append(cmd.Env, "PORT="+port)
	p, err := Start(cmd)
	if err != nil {
		return nil, err
	}
	if _, err := p.WaitForListener(ctx, m.Origin); err != nil {
		p.Stop()
		return nil, fmt.Errorf("the origin: %w", err)
	}
	return p, nil
}
