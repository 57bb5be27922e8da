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
			p, output := start(t, exec.Command("sh", "-c", tt.script))
			switch name {
			case "ended by itself":
				<-p.Done()
			case "other process groups":
				p.Tree() // as WaitForListener does
			}
			p.Stop()
			expectEnd(t, output)
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
		trap := map[string]string{"two Ctrl-C": "trap '' TERM; "}[end]
		cmd := exec.Command("sh", "-c", trap+"echo ready; while :; do sleep .1; done")
		cmd.Stdout = os.Stdout
		if _, err := Start(cmd); err != nil {
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
			p, output := start(t, cmd)
			for deadline := time.Now().Add(4 * time.Second); Alive(p.root) && time.Now().Before(deadline); {
				syscall.Kill(p.Pid(), signal)
				time.Sleep(300 * time.Millisecond)
			}
			expectEnd(t, output)
		})
	}
}

// start starts the command, and waits until it says "ready". The output ends when all its processes have ended.
func start(t *testing.T, cmd *exec.Cmd) (*Process, *os.File) {
	t.Helper()
	output, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd.Stdout = w
	p, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	output.SetReadDeadline(time.Now().Add(30 * time.Second))
	if line, err := bufio.NewReaderSize(output, 16).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return p, output
}

// expectEnd checks that all processes that have the output have ended, or end soon.
func expectEnd(t *testing.T, output *os.File) {
	t.Helper()
	output.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, output); err != nil {
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
