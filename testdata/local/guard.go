package local

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/shirou/gopsutil/v4/process"
)

// guardVariable is set in the environment of a guard process.
const guardVariable = "FANOUT_FORWARD_GUARD"

// A guard reads lines: one of these words, a space, and the process id or the directory.
const (
	guardProgram   = "program"   // the process id of a program that was started
	guardDirectory = "directory" // a directory for temporary files
)

// A process that is killed cannot clean up. So it starts a guard: a second process with the same executable, in its
// own process group. When the first process ends, for any reason, the guard stops the programs that still run, and
// those that use the directories, and removes the directories.
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
		// Other programs, such as npm, may still write there, and RemoveAll would then leave something.
		for left := using(dir); len(left) > 0; left = using(dir) {
			for _, p := range left {
				stop(p)
			}
		}
		os.RemoveAll(dir)
	}
}

// using returns the processes that were started with dir as their directory for temporary files.
func using(dir string) (found []*process.Process) {
	all, _ := process.Processes()
	for _, p := range all {
		// There is an error for other users' processes, and for those that just ended.
		if env, _ := p.Environ(); slices.Contains(env, "TMPDIR="+dir) && Alive(p) {
			found = append(found, p)
		}
	}
	return found
}

// guarding is the guard of this process. The lock in running protects it.
var guarding struct {
	*exec.Cmd
	in io.WriteCloser
}

// guarded starts the guard, if it does not run yet. The caller has locked running.
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
	cmd.Env = append(os.Environ(), guardVariable+"=1", "TMPDIR=") // without TMPDIR, so that no other guard stops it
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

// tellGuard sends the guard one line. The caller has locked running.
func tellGuard(kind, about string) { fmt.Fprintf(guarding.in, "%s %s\n", kind, about) }

// ASCIITempDir returns the directory for temporary files, or /tmp if there are letters other than ASCII in its path. The
// zurl of Pushpin 1.36 ends at once where its sockets have such a path.
func ASCIITempDir() string {
	if dir := os.TempDir(); !strings.ContainsFunc(dir, func(r rune) bool { return r > unicode.MaxASCII }) {
		return dir
	}
	return "/tmp"
}

// TempDir makes a directory for temporary files, and sets TMPDIR to it for this process and those that it starts.
// StopAll removes the directory. If the process ends without StopAll, its guard removes it.
func TempDir() (string, error) {
	base := ASCIITempDir()
	if len(base) > 40 {
		base = "/tmp" // Pushpin's sockets are in this directory, and macOS limits their paths to 103 bytes
	}
	running.Lock()
	defer running.Unlock()
	if err := guarded(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(base, "fanout-")
	if err != nil {
		return "", fmt.Errorf("make a directory for temporary files: %w; set TMPDIR to a directory that you can write to", err)
	}
	tellGuard(guardDirectory, dir)
	return dir, os.Setenv("TMPDIR", dir)
}
