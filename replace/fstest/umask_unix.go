//go:build unix

package fstest

import "syscall"

// umask sets the mask of the process and returns a func that restores it.
func umask(mask int) (restore func()) {
	old := syscall.Umask(mask)
	return func() { syscall.Umask(old) }
}
