package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/shirou/gopsutil/v4/process"
)

// Process is a running program that was started with Start.
type Process struct {
	cmd  *exec.Cmd
	root *process.Process // the program itself
	done chan struct{}    // closed when the program has ended
	err  error            // how the program ended; valid after done is closed

	mu   sync.Mutex
	tree []*process.Process // what Tree returned last
}

// running has the programs that were started and have not ended.
var running = struct {
	sync.Mutex
	programs map[*Process]bool
	tempDir  string // of TempDir
	over     bool   // StopAll was called: Start returns an error
}{programs: map[*Process]bool{}}

// Start starts cmd in its own process group, so a Ctrl-C in the terminal does not reach it. What
// it prints goes to out. Stop ends the program together with the processes that it started. On
// Linux the program also gets SIGTERM if this process is killed.
func Start(cmd *exec.Cmd, out io.Writer) (*Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	defer w.Close()
	cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = ownGroup(), w, w
	// The program has the reading end too. Otherwise, after this process is killed, the program
	// would die of its next line, before it has stopped what it started.
	cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	running.Lock()
	defer running.Unlock()
	if running.over {
		return nil, fmt.Errorf("start %s: this process is about to exit", cmd.Path)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux sends SIGTERM to the program when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			// Nobody has waited for the program yet, so no other process has the same id.
			p.root, err = process.NewProcess(int32(cmd.Process.Pid))
		}
		started <- err
		if err != nil {
			return
		}
		copied := make(chan struct{})
		go func() {
			io.Copy(out, r)
			r.Close()
			close(copied)
		}()
		p.err = cmd.Wait()
		select {
		case <-copied:
		case <-time.After(time.Second): // another process may keep the output open
		}
		running.Lock()
		delete(running.programs, p)
		running.Unlock()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	running.programs[p] = true
	return p, nil
}

// StopAll stops all programs that were started, and removes the directory of TempDir. A
// Ctrl-C while it waits for them kills them. Call it before the process exits:
// afterwards Start returns an error.
func StopAll() {
	running.Lock()
	running.over = true
	programs := slices.Collect(maps.Keys(running.programs))
	running.Unlock()
	hurry, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	var stopping sync.WaitGroup
	for _, p := range programs {
		stopping.Go(func() { p.stop(hurry) })
	}
	stopping.Wait()
	os.RemoveAll(running.tempDir)
}

// WaitForListener waits until the program, or a process that it started, accepts connections at
// addr, a host:port. It returns that process. It returns an error if the program ends first, or if
// three minutes have passed.
func (p *Process) WaitForListener(ctx context.Context, addr string) (*process.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute) // most of it for the first build of the app
	defer cancel()
	_, port, _ := net.SplitHostPort(addr)
	for {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			conn.Close()
			pids := listeners(ctx, port)
			for _, q := range p.Tree() {
				if slices.Contains(pids, q.Pid) {
					return q, nil
				}
			}
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("it ended before it accepted connections at %s: %w", addr, p.Err())
		case <-ctx.Done():
			return nil, fmt.Errorf("it did not accept connections at %s: %w", addr,
				errors.Join(context.Cause(ctx), CheckFree(context.WithoutCancel(ctx), addr)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Pid returns the program's process id. Its process group has the same id.
func (p *Process) Pid() int { return int(p.root.Pid) }

// Done returns a channel that is closed when the program has ended. Err then says how it ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the program ended. It never returns nil: a server should not end by itself.
func (p *Process) Err() error {
	if p.err == nil {
		return errors.New("it ended with exit status 0")
	}
	return p.err
}

// Stop stops the program and all processes that it started, and returns when they have ended. It
// sends SIGTERM first, so that the CLI can clean up. After ten seconds, or one second after the
// program itself has ended, it kills what is left.
func (p *Process) Stop() { p.stop(context.Background()) }

// stop is Stop. It kills at once when hurry ends.
func (p *Process) stop(hurry context.Context) {
	p.cmd.Process.Signal(syscall.SIGTERM) // fails if the program has ended
	for _, q := range p.Tree() {
		q.Resume() // a suspended process ignores other signals until then
	}
	ended, limit := p.Done(), time.After(10*time.Second)
	for len(p.Tree()) > 0 {
		select {
		case <-time.After(20 * time.Millisecond):
			continue
		case <-ended:
			ended, limit = nil, time.After(time.Second)
			continue
		case <-limit:
		case <-hurry.Done():
		}
		if left := p.kill(); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "cannot stop processes %v, which %s started: "+
				"they still run although they were killed\n", left, p.cmd.Path)
			return
		}
	}
	<-p.done
}

// kill kills all processes of the tree. It returns those that have not ended ten seconds later.
// While the CLI builds, it ignores SIGTERM, and it starts Viceroy later. So each process is
// suspended first, and cannot start another one.
func (p *Process) kill() (left []*process.Process) {
	deadline := time.Now().Add(10 * time.Second)
	for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, q := range p.Tree() {
			q.Suspend()
		}
		if left = p.Tree(); len(left) == 0 {
			break
		}
		for _, q := range left {
			q.Kill()
		}
	}
	return left
}

// Tree returns the program's process and all its descendants that still run. A process
// whose parent has ended is known from the last call, or by its process group. (Pushpin's
// services have other groups.)
func (p *Process) Tree() []*process.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	running, _ := p.root.IsRunning()
	all, _ := process.Processes()
	family := map[int32]bool{}
	add := func(q *process.Process) {
		if !family[q.Pid] && Alive(q) {
			family[q.Pid] = true
			p.tree = append(p.tree, q)
		}
	}
	known := append(p.tree, p.root)
	p.tree = nil
	for _, q := range known {
		add(q)
	}
	reused := !running && slices.ContainsFunc(all, func(q *process.Process) bool {
		return q.Pid == p.root.Pid // so another process has the id by now
	})
	for before := -1; before < len(p.tree); { // again, as a child may come before its parent in the list
		before = len(p.tree)
		for _, q := range all {
			parent, _ := q.Ppid()
			group, _ := syscall.Getpgid(int(q.Pid))
			if family[parent] || group == p.Pid() && !reused {
				add(q)
			}
		}
	}
	return slices.Clone(p.tree)
}

// Alive reports whether the process runs. A zombie, which has ended but whose parent has
// not waited for it, does not.
func Alive(p *process.Process) bool {
	// It compares the start time too: another process may have the same id by now.
	running, _ := p.IsRunning()
	status, err := p.Status()
	return running && err == nil && !slices.Contains(status, process.Zombie)
}

// ASCIITempDir returns the directory for temporary files, or /tmp if there are letters other than
// ASCII in its path. The zurl of Pushpin 1.36 ends at once where its sockets have such a path.
func ASCIITempDir() string {
	if dir := os.TempDir(); !strings.ContainsFunc(dir, func(r rune) bool { return r > unicode.MaxASCII }) {
		return dir
	}
	return "/tmp"
}

// TempDir makes a directory for temporary files, and sets TMPDIR to it for this process and those
// that it starts. StopAll removes the directory.
func TempDir() (string, error) {
	base := ASCIITempDir()
	if len(base) > 40 {
		base = "/tmp" // Pushpin's sockets are in this directory, and macOS limits their paths to 103 bytes
	}
	dir, err := os.MkdirTemp(base, "fanout-")
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w; "+
			"set TMPDIR to a directory that you can write to", err)
	}
	running.Lock()
	defer running.Unlock()
	running.tempDir = dir
	return dir, os.Setenv("TMPDIR", dir)
}
