package local

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Stop leaves no process of the program, whatever the program does. Each script says "ready" first.
func TestStop(t *testing.T) {
	for name, script := range map[string]string{
		"a child":                 "sleep 300 & echo ready; wait",
		"an end of its own":       "sleep 300 & echo ready",
		"born after the SIGTERM":  `sh -c "sleep .5; sleep 300; :" & echo ready; wait`,
		"another process group":   "set -m; sleep 300 & echo ready; wait",
		"suspended":               "echo ready; kill -STOP $$",
		"SIGTERM is not accepted": "trap '' TERM; sleep 300 & echo ready; while :; do wait; done",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, output := start(t, exec.Command("sh", "-c", script))
			if strings.HasPrefix(script, "set -m") {
				p.Tree() // as WaitForListener does
			}
			p.Stop()
			expectEnd(t, output)
			p.Stop() // has nothing to do
		})
	}
}

// However a process ends, the program that it started ends too.
func TestParentEnds(t *testing.T) {
	const how = "FANOUT_FORWARD_PARENT_ENDS"
	if os.Getenv(how) != "" { // this is the process to end
		cmd := exec.Command("sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep .1; done")
		cmd.Stdout = os.Stdout
		if _, err := Start(cmd); err != nil {
			t.Fatal(err)
		}
		if os.Getenv(how) == "panic" {
			time.Sleep(time.Second)
			panic("an end")
		}
		select {}
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a process that its parent has ended")
	}
	for _, end := range []string{"killed", "panic", "timeout"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestParentEnds$", "-test.timeout=60s")
			if end == "timeout" {
				cmd.Args[2] = "-test.timeout=1s"
			}
			cmd.Env = append(os.Environ(), how+"="+end)
			p, output := start(t, cmd)
			if end == "killed" {
				syscall.Kill(p.Pid(), syscall.SIGKILL)
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
