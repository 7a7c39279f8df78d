package replace

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Announce implements [Announcer]. It does not wait.
func (f osFile) Announce() error {
	return f.control("announce", func(fd int) error {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return ErrLocked
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOTSUP):
			return errors.ErrUnsupported // a kernel before 3.15, or a file system without such locks
		}
		return err
	})
}

// Announced implements [Announcer].
func (f osFile) Announced() (there bool, err error) {
	err = f.control("announced", func(fd int) error {
		lock := unix.Flock_t{Type: unix.F_RDLCK} // what only a writer's lock is in the way of
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock)
		there = lock.Type != unix.F_UNLCK
		return err
	})
	return there && err == nil, err
}
