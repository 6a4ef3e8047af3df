//go:build !linux

package relaytest

import "syscall"

// endWithParent does nothing here: only Linux can do it.
func endWithParent() *syscall.SysProcAttr { return nil }
