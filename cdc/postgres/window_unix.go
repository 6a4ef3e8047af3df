//go:build unix

package postgres

import "syscall"

// setReceiveBuffer is a tuning, not a need: its failure is ignored.
func setReceiveBuffer(fd uintptr, bytes int) {
	_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes)
}
