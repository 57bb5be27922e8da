package chain

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/shirou/gopsutil/v4/process"
)

// guardVariable is set in the environment of a guard.
const guardVariable = "FANOUT_FORWARD_GUARD"

// What a guard is told, followed by a space, what it is about, and a line feed.
const (
	guardProgram   = "program"   // the process id of a program that was started
	guardDirectory = "directory" // a directory for temporary files
)

// A process that is killed can clean up nothing. So it has a guard: the same executable once more, in
// a process group of its own. When its parent ends, however it does, the guard stops what is left of the
// programs, and removes the directories.
func init() {
	if os.Getenv(guardVariable) != "" {
		guard(os.Stdin)
		os.Exit(0)
	}
}

func guard(told io.Reader) {
	var programs []*process.Process
	var directories []string
	for lines := bufio.NewScanner(told); lines.Scan(); { // until the parent ends
		switch kind, about, _ := strings.Cut(lines.Text(), " "); kind {
		case guardProgram:
			pid, err := strconv.Atoi(about)
			if err != nil {
				continue
			}
			if p, err := process.NewProcess(int32(pid)); err == nil {
				programs = append(programs, p)
			}
		case guardDirectory:
			directories = append(directories, about)
		}
	}
	for _, p := range programs {
		if Alive(p) {
			stop(p)
		}
	}
	for _, dir := range directories {
		os.RemoveAll(dir)
	}
}

// guarding is the guard of this process; running has the lock for it.
var guarding struct {
	*exec.Cmd
	in io.WriteCloser
}

// guarded starts the guard, if there is none yet; running is locked.
func guarded() error {
	if running.over {
		return errors.New("this process is about to exit")
	}
	if guarding.Cmd != nil {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start a guard: %w", err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), guardVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start a guard: %w", err)
	}
	guarding.Cmd, guarding.in = cmd, in
	return nil
}

// tellGuard tells the guard; running is locked.
func tellGuard(kind, about string) { fmt.Fprintf(guarding.in, "%s %s\n", kind, about) }

// TempDir makes a directory for the temporary files of this process and of what it starts, which it sets
// TMPDIR to. StopAll removes it, or the guard once the process has ended without that.
func TempDir() (string, error) {
	base := os.TempDir()
	if len(base) > 40 {
		base = "/tmp" // Pushpin's sockets are in it, whose paths may have 103 bytes on macOS
	}
	running.Lock()
	defer running.Unlock()
	if err := guarded(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(base, "fanout-")
	if err != nil {
		return "", fmt.Errorf("make a directory for temporary files: %w; set TMPDIR to one that can be written", err)
	}
	tellGuard(guardDirectory, dir)
	return dir, os.Setenv("TMPDIR", dir)
}
