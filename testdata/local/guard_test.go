package local

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

func TestASCIITempDir(t *testing.T) {
	for dir, want := range map[string]string{"/var/tmp/a b": "/var/tmp/a b", "/var/tmp/ä": "/tmp", "/var/tmp/\xff": "/tmp"} {
		t.Setenv("TMPDIR", dir)
		if got := ASCIITempDir(); got != want {
			t.Errorf("%s: got %s, want %s", dir, got, want)
		}
	}
}

// After a process is killed, its guard removes its directory, even if a program still writes there.
func TestKilled(t *testing.T) {
	const killed = "FANOUT_FORWARD_KILLED"
	if os.Getenv(killed) != "" { // this is the process to kill
		dir, err := TempDir()
		if err != nil {
			t.Fatal(err)
		}
		writer := exec.Command("sh", "-c", `while :; do mkdir -p "$TMPDIR/a/b/c"; done`)
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%d %q\n", writer.Process.Pid, dir)
		writer.Wait()
	}

	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), killed+"=1")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var pid int32
	var dir string
	_, err = fmt.Fscanf(out, "%d %q\n", &pid, &dir)
	cmd.Process.Kill()
	if err != nil {
		t.Fatal(err)
	}
	writer := &process.Process{Pid: pid}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(dir)
		if os.IsNotExist(err) && !Alive(writer) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a minute after the kill: %s: %v; the program that writes there lives: %v", dir, err, Alive(writer))
		}
	}
	cmd.Wait()
}
