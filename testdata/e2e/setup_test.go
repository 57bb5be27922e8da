// Package e2e tests the app with the real programs: the Fastly CLI, Viceroy and Pushpin. The tests
// make new projects from this one with `fastly compute init`, and run them on free ports.
package e2e

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is the timeout of a wait; one for a build or for many messages has four times as long. It
// is long, so that the tests pass on a slow machine, and with -url over a slow network. Only a failing
// test waits this long.
const patience = time.Minute

// interrupted is canceled when somebody ends the tests, for example with a Ctrl-C.
var interrupted, _ = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)

// artifacts is the directory for what the programs print.
var artifacts, _ = filepath.Abs("../_artifacts")

// programs counts the programs that run.
var programs sync.WaitGroup

func TestMain(m *testing.M) {
	flag.Parse()
	// Commands must start as in a new shell, and not as under make or in a hook of git.
	foreign := regexp.MustCompile(`^(ADDR|ARGS|URL|MAKE.*|MFLAGS|PORT|PUBLISH_TOKEN|(GRIP|FASTLY|GIT)_.*)$`)
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); foreign.MatchString(name) && *liveURL == "" {
			os.Unsetenv(name)
		}
	}
	os.Setenv("FASTLY_VICEROY_USE_PATH", "1")
	for _, tool := range []string{"fastly", "viceroy", "pushpin"} {
		if _, err := exec.LookPath(tool); err != nil && *liveURL == "" {
			log.Fatalf("%v: run `eval \"$(testdata/tools.sh)\"` first", err)
		}
	}
	// Pushpin 1.36 needs a path in ASCII for its sockets, and macOS allows them 103 bytes.
	dir, err := os.MkdirTemp("/tmp", "fanout-")
	if err = errors.Join(err, os.MkdirAll(artifacts, 0o755)); err != nil {
		log.Fatal(err)
	}
	os.Setenv("TMPDIR", dir)
	context.AfterFunc(interrupted, func() {
		programs.Wait()
		os.RemoveAll(dir)
		os.Exit(130) // what shells report for a Ctrl-C
	})
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// program is a running program.
type program struct {
	*exec.Cmd
	in     io.WriteCloser
	stop   func()        // ends the program, and waits until it has ended
	done   chan struct{} // closed when the program and its process group have ended
	err    error         // how it ended; valid after done is closed
	log    string        // the file with its output
	waited int           // where in log the last match of wait ends
}

// start starts a program with additional environment variables, in a process group of its own, and
// stops it when the test ends, or after 28 minutes. What has not ended ten seconds after a signal is
// killed. Its output goes to a file in artifacts.
func start(t testing.TB, dir string, env []string, command ...string) *program {
	t.Helper()
	name := strings.ReplaceAll(t.Name(), "/", "-") + "-" + filepath.Base(command[0]) + "-*.log"
	log, err := os.CreateTemp(artifacts, name)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(interrupted, 28*time.Minute)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	p := &program{Cmd: cmd, log: log.Name(), done: make(chan struct{})}
	p.in, _ = cmd.StdinPipe() // cannot fail
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// After a SIGINT, Viceroy exits with status 0, and then the Fastly CLI may start it again.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	programs.Add(1) // after programs.Wait, no program starts: ctx has ended
	if err := cmd.Start(); err != nil {
		programs.Done()
		t.Fatal(err)
	}
	go func() {
		defer programs.Done()
		p.err = cmd.Wait()
		deadline := time.Now().Add(cmd.WaitDelay)
		for syscall.Kill(-cmd.Process.Pid, 0) == nil && time.Now().Before(deadline) { // zombies may stay
			time.Sleep(20 * time.Millisecond)
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		close(p.done)
	}()
	p.stop = func() {
		cancel()
		<-p.done
	}
	t.Cleanup(p.stop)
	return p
}

// output returns what the program has printed.
func (p *program) output() string {
	output, _ := os.ReadFile(p.log) // cannot fail
	return string(output)
}

// tail returns what the program printed last.
func (p *program) tail() string {
	output := p.output()
	return output[max(0, len(output)-4000):]
}

// wait waits until the program prints what matches the pattern, after the last match. It fails the test
// if this takes too long, or as soon as the program has ended.
func (p *program) wait(t testing.TB, pattern string) {
	t.Helper()
	matches, limit := regexp.MustCompile(pattern), time.After(4*patience)
	for over := false; ; {
		if found := matches.FindStringIndex(p.output()[p.waited:]); found != nil {
			p.waited += found[1]
			return
		}
		if over {
			t.Fatalf("%s did not print %s, but\n%s", p, pattern, p.tail())
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-p.done:
			over = true // look once more
		case <-limit:
			over = true
		}
	}
}

// freePorts returns the first of n ports in a row, at most nine, that nothing listens on. The test
// listens on the port before them, so that no other test gets them. They are below the ports that
// systems give to clients.
func freePorts(t testing.TB, n int) int {
	t.Helper()
	for {
		first := 20000 + 10*rand.IntN(1000)
		claim, err := net.Listen("tcp", loopback(first))
		if err != nil {
			continue
		}
		t.Cleanup(func() { claim.Close() })
		if !slices.ContainsFunc(addrs(first+1, n), listens) {
			return first + 1
		}
	}
}

// listens reports whether a program accepts connections at the address.
func listens(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func addrs(first, n int) (all []string) {
	for i := range n {
		all = append(all, loopback(first+i))
	}
	return all
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen within %v: %s", patience, what)
		}
	}
}

// sh runs a shell script in a directory, and returns its output. It fails the test if a command fails.
func sh(t testing.TB, dir, script string, args ...string) string {
	t.Helper()
	p := start(t, dir, nil, append([]string{"sh", "-ec", script, "sh"}, args...)...)
	p.in.Close()
	if <-p.done; p.err != nil {
		t.Fatalf("%s %q: %v\n%s", script, args, p.err, p.tail())
	}
	return p.output()
}
