//go:build !linux

package main

import "syscall"

// ownGroup keeps the terminal's Ctrl-C from a process, which is ended in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
