// Package chain runs the app as a person does, with `fastly compute serve`. The chain is the programs that this
// starts: the Fastly CLI starts Pushpin and Viceroy, and Viceroy runs the app.
package chain

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"

	"compute-starter-kit-go-fanout-forward/testdata/toolchain"
)

// DefaultAddr is where `fastly compute serve` has the app listen.
const DefaultAddr = "127.0.0.1:7676"

// Args returns the arguments that have the Fastly CLI serve the app at addr, with these tools.
func Args(tools toolchain.Tools, addr string) []string {
	return []string{
		"compute", "serve", "--non-interactive", "--addr", addr,
		"--viceroy-path", tools.Viceroy, "--pushpin-path", tools.Pushpin,
	}
}

// Serve starts `fastly compute serve` in the project directory dir, with extra arguments args, and
// waits until the app takes connections at addr, a host:port. The output of all these
// programs goes to out.
func Serve(ctx context.Context, tools toolchain.Tools, dir, addr string, out io.Writer, args ...string) (*Process, error) {
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

// Origin starts an origin with cmd, and waits until it takes connections where m has the app look for
// it. In its environment PORT says where that is, and GRIP_URL which proxy it works behind. What it
// prints goes to out.
func Origin(ctx context.Context, cmd *exec.Cmd, m Manifest, out io.Writer) (*Process, error) {
	cmd.Stdout, cmd.Stderr = out, out
	_, port, _ := net.SplitHostPort(m.Origin)
	cmd.Env = append([]string{"GRIP_URL=" + m.GripURL()}, os.Environ()...) // the user's own goes before
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
