//go:build !linux

package cdctest

import "syscall"

// endWithParent does nothing where the kernel has no such signal: only a helper
// that is itself killed by SIGKILL leaves its server behind.
func endWithParent(*syscall.SysProcAttr, syscall.Signal) {}
