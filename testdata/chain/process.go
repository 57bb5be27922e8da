package chain

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
// that it is Stop that ends it, with what it started. If this process is killed, its guard does that.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a grandchild may hold the output open
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

// StopAll stops all the programs that were started, and removes what TempDir made, for a process that is
// about to exit: Start fails from then on.
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

// WaitForListener waits until the program, or one that it has started, takes connections at addr, a
// host:port, and returns the process that does. A process listed in except does not count: one that has
// been killed may hold its port for a moment longer. It returns an error if the program ends before
// that, or takes three minutes.
func (p *Process) WaitForListener(ctx context.Context, addr string, except ...*process.Process) (*process.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute) // a first build of the app takes most of it
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
			return nil, fmt.Errorf("it ended before it took connections at %s: %w", addr, p.Err())
		case <-ctx.Done():
			return nil, fmt.Errorf("it took no connections at %s: %w", addr, errors.Join(context.Cause(ctx), CheckFree(context.WithoutCancel(ctx), addr)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// listener returns which process of the program's listens at addr, or nil.
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
	if root, err := process.NewProcess(int32(p.Pid())); err == nil {
		stop(root)
	}
	<-p.done
}

func stop(root *process.Process) {
	started := append(descendants(root), root) // a group is not enough: Pushpin's services have their own
	root.SendSignal(syscall.SIGTERM)
	for _, p := range started {
		p.SendSignal(syscall.SIGCONT) // a suspended one takes no notice of any other
	}
	limit := time.Now().Add(10 * time.Second)
	for slices.ContainsFunc(started, Alive) {
		if left := time.Now().Add(time.Second); !Alive(root) && left.Before(limit) {
			limit = left
		}
		if time.Now().After(limit) {
			// While it builds, the CLI takes no notice, and starts Viceroy all the same. Suspended, it cannot do
			// that between this look at what it has started and its end.
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

// Tree returns the program's process, and its descendants.
func (p *Process) Tree() []*process.Process {
	self, err := process.NewProcess(int32(p.Pid()))
	if err != nil {
		return nil // it has ended
	}
	return append(descendants(self), self)
}

// Descendants returns the processes that the program has started, and those that they have.
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

// Alive reports whether the process still runs, and is not just unburied by its parent.
func Alive(p *process.Process) bool {
	running, err := p.IsRunning() // compares the start time too: its pid may be another's by now
	if err != nil || !running {
		return false
	}
	status, err := p.Status()
	return err == nil && !slices.Contains(status, process.Zombie)
}
