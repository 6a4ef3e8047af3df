//go:build !linux

package e2e

import "syscall"

// endWithParent does nothing here: only Linux can do it.
func endWithParent() *syscall.SysProcAttr { return nil }
