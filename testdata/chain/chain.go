// Package chain runs the app as a person does, with `fastly compute serve`: the Fastly CLI starts
// Pushpin and Viceroy, and Viceroy the app.
package chain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v4/process"

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

// Process is a running program that was started with Start.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the program has ended
	err  error         // how it ended; valid once done is closed
}

// running are the programs that were started and have not ended.
var running struct {
	sync.Mutex
	programs map[*Process]bool
	over     bool // none may be started any more
}

// Start starts cmd in a process group of its own: a Ctrl-C in the terminal does not reach it, so
// that it is Stop that ends it, with what it started.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a grandchild may hold the output open
	running.Lock()
	defer running.Unlock()
	if running.over {
		return nil, fmt.Errorf("start %s: it is over", cmd.Path)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	if running.programs == nil {
		running.programs = map[*Process]bool{}
	}
	running.programs[p] = true
	go func() {
		p.err = cmd.Wait()
		running.Lock()
		delete(running.programs, p)
		running.Unlock()
		close(p.done)
	}()
	return p, nil
}

// StopAll stops all the programs that were started, for a process that is about to exit: Start fails
// from then on.
func StopAll() {
	running.Lock()
	running.over = true
	programs := slices.Collect(maps.Keys(running.programs))
	running.Unlock()
	var stopping sync.WaitGroup
	for _, p := range programs {
		stopping.Go(p.Stop)
	}
	stopping.Wait()
}

// Serve starts `fastly compute serve` in the project directory dir, with extra arguments args, and
// waits until the app takes connections at addr, a host:port. What all the programs of the chain
// print goes to out.
func Serve(ctx context.Context, tools toolchain.Tools, dir, addr string, out io.Writer, args ...string) (*Process, error) {
	cmd := exec.Command(tools.Fastly, append(Args(tools, addr), args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	p, err := Start(cmd)
	if err != nil {
		return nil, err
	}
	if err := p.WaitForListener(ctx, addr); err != nil {
		p.Stop()
		return nil, fmt.Errorf("fastly compute serve in %s: %w", dir, err)
	}
	return p, nil
}

// Origin starts an origin with cmd, and waits until it takes connections where m has the app look for
// it. What it prints goes to out.
func Origin(ctx context.Context, cmd *exec.Cmd, m Manifest, out io.Writer) (*Process, error) {
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append([]string{"GRIP_URL=" + m.GripURL()}, os.Environ()...) // the user's own goes before
	p, err := Start(cmd)
	if err != nil {
		return nil, err
	}
	if err := p.WaitForListener(ctx, m.Origin); err != nil {
		p.Stop()
		return nil, fmt.Errorf("the origin: %w", err)
	}
	return p, nil
}

// WaitForListener waits until something takes connections at addr, a host:port. It returns an error
// if the program ends before that, or takes three minutes.
func (p *Process) WaitForListener(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute) // a first build of the app takes most of it
	defer cancel()
	for {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended before it took connections at %s: %w", addr, p.Err())
		case <-ctx.Done():
			return fmt.Errorf("it took no connections at %s: %w", addr, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Pid is the program's process id, and that of its process group.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed once the program has ended; Err then says how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the program ended. It never returns nil: a server that ends has failed.
func (p *Process) Err() error {
	if p.err == nil {
		return errors.New("it ended, with success")
	}
	return p.err
}

// Stop ends the program and all that it started, and returns once they are gone: by a SIGTERM, on
// which the CLI cleans up, and whatever is left after ten seconds by a SIGKILL.
func (p *Process) Stop() {
	started := descendants(int32(p.Pid())) // a group is not enough: Pushpin's services have their own
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		// While it builds, the CLI takes no notice, and starts Viceroy all the same.
		started = append(started, p.Descendants()...)
		p.cmd.Process.Kill()
		<-p.done
	}
	for deadline := time.Now().Add(5 * time.Second); slices.ContainsFunc(started, Alive) && time.Now().Before(deadline); {
		for _, left := range started {
			if Alive(left) && time.Until(deadline) < 4*time.Second {
				left.Kill()
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Tree returns the program's process, and its descendants.
func (p *Process) Tree() []*process.Process {
	all := p.Descendants()
	if self, err := process.NewProcess(int32(p.Pid())); err == nil {
		all = append(all, self)
	}
	return all
}

// Descendants returns the processes that the program has started, and those that they have.
func (p *Process) Descendants() []*process.Process { return descendants(int32(p.Pid())) }

func descendants(pid int32) []*process.Process {
	parent, err := process.NewProcess(pid)
	if err != nil {
		return nil // it has ended
	}
	children, _ := parent.Children()
	all := slices.Clone(children)
	for _, child := range children {
		all = append(all, descendants(child.Pid)...)
	}
	return all
}

// Alive reports whether the process still runs, and is not just unburied by its parent.
func Alive(p *process.Process) bool {
	running, err := p.IsRunning() // compares the start time too: its pid may be another's by now
	if err != nil || !running {
		return false
	}
	status, err := p.Status()
	return err == nil && !slices.Contains(status, process.Zombie)
}
