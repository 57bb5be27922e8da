package local

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Stop leaves no process of the program, whatever the program does. Each script says "ready" first.
func TestStop(t *testing.T) {
	for name, tt := range map[string]struct{ script, end string }{
		"ended by itself":      {"sleep 300 & echo ready", "it ended with exit status 0"},
		"born after SIGTERM":   {`sh -c "sleep .5; sleep 300; :" & echo ready; wait`, "signal: terminated"},
		"other process groups": {`exec bash -c "set -m; sleep 300 & echo ready; wait"`, "signal: terminated"},
		"suspended":            {"echo ready; kill -STOP $$", "signal: terminated"},
		"ignores SIGTERM":      {"trap '' TERM; sleep 300 & echo ready; while :; do wait; done", "signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alive := start(t, exec.Command("sh", "-c", tt.script))
			switch name {
			case "ended by itself":
				<-p.Done()
			case "suspended":
				for !strings.HasPrefix(fmt.Sprint(p.root.Status()), "[stop]") {
				}
			case "other process groups":
				p.Tree() // as WaitForListener does
			}
			p.Stop()
			expectEnd(t, alive)
			if got := p.Err().Error(); got != tt.end {
				t.Errorf("got %s, want %s", got, tt.end)
			}
			p.Stop() // has nothing to do
		})
	}
}

// However a process ends, the program that it started ends too. A second Ctrl-C does not wait for a slow program.
func TestParentEnds(t *testing.T) {
	const how = "FANOUT_FORWARD_PARENT_ENDS"
	if end := os.Getenv(how); end != "" { // this is the process that ends
		ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
		defer stop()
		trap := "echo stopping; kill $!; exit"
		if end == "two Ctrl-C" {
			trap = ""
		}
		script := "sleep 300 & trap '" + trap + "' TERM; echo ready; while :; do sleep .1; done"
		cmd := exec.Command("sh", "-c", script)
		cmd.ExtraFiles = []*os.File{os.NewFile(3, "alive")} // see start
		if _, err := Start(cmd, os.Stdout); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		if end == "panic" {
			panic("an end")
		}
		StopAll()
		return
	}
	for end, signal := range map[string]syscall.Signal{
		"killed": syscall.SIGKILL, "panic": syscall.SIGINT, "timeout": 0, "two Ctrl-C": syscall.SIGINT,
	} {
		t.Run(end, func(t *testing.T) {
			if runtime.GOOS != "linux" && end != "two Ctrl-C" {
				t.Skip("only Linux tells a process that its parent has ended")
			}
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestParentEnds$")
			if end == "timeout" {
				cmd.Args = append(cmd.Args, "-test.timeout=1s")
			}
			cmd.Env = append(os.Environ(), how+"="+end)
			p, alive := start(t, cmd)
			for deadline := time.Now().Add(4 * time.Second); Alive(p.root) && time.Now().Before(deadline); {
				syscall.Kill(p.Pid(), signal)
				time.Sleep(300 * time.Millisecond)
			}
			expectEnd(t, alive)
		})
	}
}

// start starts the command, and waits until it says "ready". All its processes have the other end
// of alive, so reading from alive ends when they have ended.
func start(t *testing.T, cmd *exec.Cmd) (p *Process, alive *os.File) {
	t.Helper()
	alive, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd.ExtraFiles = []*os.File{w}
	output, out := io.Pipe()
	if p, err = Start(cmd, out); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(output)
	if line, err := r.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	go io.Copy(io.Discard, r)
	return p, alive
}

// expectEnd checks that all processes have ended, or end soon.
func expectEnd(t *testing.T, alive *os.File) {
	t.Helper()
	alive.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, alive); err != nil {
		t.Errorf("a process goes on: %v", err)
	}
}

func TestASCIITempDir(t *testing.T) {
	for dir, want := range map[string]string{"/var/tmp/a b": "/var/tmp/a b", "/var/tmp/ä": "/tmp", "/var/tmp/\xff": "/tmp"} {
		t.Setenv("TMPDIR", dir)
		if got := ASCIITempDir(); got != want {
			t.Errorf("%s: got %s, want %s", dir, got, want)
		}
	}
}

// A server that listens only on the IPv6 address gets some of the requests to localhost.
func TestCheckFree(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "[::1]", "[::]"} {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Skip(err) // there is no IPv6
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		want := fmt.Sprintf("port %s is taken by process %d, ", port, os.Getpid())
		if err := CheckFree(t.Context(), "127.0.0.1:"+port); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with a server on %s: got %v, want %q", l.Addr(), err, want)
		}
	}
}
