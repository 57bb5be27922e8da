package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// Process is a running program that was started with Start.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended
	err  error         // how the program ended; valid after done is closed
}

// running has the programs that were started and have not ended.
var running struct {
	sync.Mutex
	programs map[*Process]bool
	over     bool // StopAll was called: Start returns an error
}

// Start starts cmd in its own process group. So a Ctrl-C in the terminal does not reach it. Stop ends it, together
// with the processes that it started. If this process is killed, its guard does the same.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // another process may keep the output open
	running.Lock()
	defer running.Unlock()
	if err := guarded(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	tellGuard(guardProgram, strconv.Itoa(p.Pid()))
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

// StopAll stops all programs that were started, and removes the directory of TempDir. Call it before the process
// exits: afterwards Start returns an error.
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
	running.Lock()
	defer running.Unlock()
	if guarding.Cmd != nil {
		guarding.in.Close()
		guarding.Wait()
		guarding.Cmd = nil
	}
}

// WaitForListener waits until the program, or a process that it started, accepts connections at addr, a host:port. It
// returns that process. The processes in except do not count: a process that was just killed may keep its port for
// a moment. It returns an error if the program ends first, or if three minutes have passed.
func (p *Process) WaitForListener(ctx context.Context, addr string, except ...*process.Process) (*process.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute) // most of it for the first build of the app
	defer cancel()
	for {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			conn.Close()
			if listener := p.listener(ctx, addr); listener != nil && !slices.ContainsFunc(except, func(e *process.Process) bool { return e.Pid == listener.Pid }) {
				return listener, nil
			}
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("it ended before it accepted connections at %s: %w", addr, p.Err())
		case <-ctx.Done():
			return nil, fmt.Errorf("it did not accept connections at %s: %w", addr, errors.Join(context.Cause(ctx), CheckFree(context.WithoutCancel(ctx), addr)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// listener returns the process in p.Tree that listens at addr, or nil.
func (p *Process) listener(ctx context.Context, addr string) *process.Process {
	_, port, _ := net.SplitHostPort(addr)
	for _, process := range p.Tree() {
		connections, _ := psnet.ConnectionsPidWithContext(ctx, "tcp", process.Pid)
		for _, c := range connections {
			if c.Status == "LISTEN" && strconv.Itoa(int(c.Laddr.Port)) == port {
				return process
			}
		}
	}
	return nil
}

// Pid returns the program's process id. Its process group has the same id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the program has ended. Err then says how it ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the program ended. It never returns nil: a server should not end by itself.
func (p *Process) Err() error {
	if p.err == nil {
		return errors.New("it ended with exit status 0")
	}
	return p.err
}

// Stop stops the program and all processes that it started, and returns when they have ended. It sends SIGTERM first,
// so that the CLI can clean up. It kills the processes that still run after ten seconds.
func (p *Process) Stop() {
	if root, err := process.NewProcess(int32(p.Pid())); err == nil {
		stop(root)
	}
	<-p.done
}

func stop(root *process.Process) {
	started := append(descendants(root), root) // all descendants, because Pushpin's services have their own process groups
	root.SendSignal(syscall.SIGTERM)
	for _, p := range started {
		p.SendSignal(syscall.SIGCONT) // a suspended process ignores other signals until then
	}
	limit := time.Now().Add(10 * time.Second)
	for slices.ContainsFunc(started, Alive) {
		if left := time.Now().Add(time.Second); !Alive(root) && left.Before(limit) {
			limit = left
		}
		if time.Now().After(limit) {
			// While the CLI builds, it ignores SIGTERM, and starts Viceroy later. So suspend it first. Then it cannot
			// start a process between the list of its descendants and its end.
			for root.Suspend(); Alive(root) && !suspended(root); {
				time.Sleep(time.Millisecond)
			}
			started = append(started, descendants(root)...)
			for _, left := range started {
				left.Kill()
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func suspended(p *process.Process) bool {
	status, err := p.Status()
	return err == nil && slices.Contains(status, process.Stop)
}

// Tree returns the program's process and all its descendants.
func (p *Process) Tree() []*process.Process {
	self, err := process.NewProcess(int32(p.Pid()))
	if err != nil {
		return nil // the program has ended
	}
	return append(descendants(self), self)
}

// Descendants returns the processes that the program started, and those that they started.
func (p *Process) Descendants() []*process.Process {
	tree := p.Tree()
	return tree[:max(0, len(tree)-1)]
}

func descendants(parent *process.Process) []*process.Process {
	children, _ := parent.Children()
	all := slices.Clone(children)
	for _, child := range children {
		all = append(all, descendants(child)...)
	}
	return all
}

// Alive reports whether the process runs. A zombie, which has ended but whose parent has not waited for it, does not.
func Alive(p *process.Process) bool {
	running, err := p.IsRunning() // compares the start time too: another process may have the same pid by now
	if err != nil || !running {
		return false
	}
	status, err := p.Status()
	return err == nil && !slices.Contains(status, process.Zombie)
}
