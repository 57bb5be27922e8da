package local

import "syscall"

// ownGroup puts a program into a process group of its own. When this process ends, in whatever
// way, the system sends SIGTERM to the program.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
