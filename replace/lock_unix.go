//go:build unix

package replace

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Lock uses flock and not the record locks of fcntl: those belong to the process,
// so that two opens in one process do not exclude each other, and closing any
// descriptor of the file, by whatever library, gives up the lock.
func (f osFile) Lock(exclusive, wait bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	if !wait {
		how |= unix.LOCK_NB
	}
	return f.control("lock", func(fd int) error {
		err := unix.Flock(fd, how)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		}
		return err
	})
}

func (f osFile) Unlock() error {
	return f.control("unlock", func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) })
}
