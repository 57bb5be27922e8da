//go:build !linux

package local

import "syscall"

// ownGroup puts a program into a process group of its own. If this process is killed, the program
// goes on: the next `make demo` names it as the holder of its port.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
