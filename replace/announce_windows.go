package replace

import (
	"errors"

	"golang.org/x/sys/windows"
)

// announceRange is a byte beside that of lockRange.
func announceRange() *windows.Overlapped {
	return &windows.Overlapped{OffsetHigh: 0x7fffffff, Offset: 0xfffffffd}
}

// Announce implements [Announcer]. It waits for those who are just looking.
func (f osFile) Announce() error {
	return f.control("announce", func(h windows.Handle) error {
		return windows.LockFileEx(h, windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, announceRange())
	})
}

// Announced implements [Announcer].
func (f osFile) Announced() (there bool, err error) {
	err = f.control("announced", func(h windows.Handle) error {
		err := windows.LockFileEx(h, windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, announceRange())
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
			there = true
			return nil
		}
		if err != nil {
			return err
		}
		return windows.UnlockFileEx(h, 0, 1, 0, announceRange())
	})
	return there, err
}
