package cdctest

import "syscall"

// endWithParent makes the kernel send sig to the child when the thread that
// started it ends. The caller keeps that thread locked.
func endWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }
