//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package replace

import "golang.org/x/sys/unix"

// Announce implements [Announcer]. The lock that flock took is seen by those who ask
// for record locks: these systems keep both in one list.
func (f osFile) Announce() error { return nil }

// Announced implements [Announcer].
func (f osFile) Announced() (there bool, err error) {
	err = f.control("announced", func(fd int) error {
		lock := unix.Flock_t{Type: unix.F_RDLCK}
		err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lock)
		there = lock.Type != unix.F_UNLCK
		return err
	})
	return there && err == nil, err
}
