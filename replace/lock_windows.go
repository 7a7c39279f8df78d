package replace

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/windows"
)

// lockRange is the byte that stands for the whole file. Locks are mandatory here,
// so it lies far beyond any contents: others may read and write what is there.
func lockRange() *windows.Overlapped {
	return &windows.Overlapped{OffsetHigh: 0x7fffffff, Offset: 0xfffffffe}
}

func (f osFile) Lock(exclusive, wait bool) error {
	var flags uint32
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	if !wait {
		flags |= windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	return f.control("lock", func(h windows.Handle) error {
		err := windows.LockFileEx(h, flags, 0, 1, 0, lockRange())
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
			return ErrLocked
		}
		return err
	})
}

func (f osFile) Unlock() error {
	return f.control("unlock", func(h windows.Handle) error {
		return windows.UnlockFileEx(h, 0, 1, 0, lockRange())
	})
}

// control runs call with the handle of f, which cannot be closed meanwhile.
func (f osFile) control(op string, call func(windows.Handle) error) error {
	conn, err := f.SyscallConn()
	if err == nil {
		var failed error
		err = conn.Control(func(h uintptr) { failed = call(windows.Handle(h)) })
		if err == nil {
			err = failed
		}
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}
