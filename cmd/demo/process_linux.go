package main

import "syscall"

// ownGroup keeps the terminal's Ctrl-C from a process, which is ended in order,
// and lets the kernel end it with the thread that started it.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
