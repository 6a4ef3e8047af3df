package e2e

import "syscall"

// endWithParent lets the kernel kill the process when the thread that started
// it ends.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
