package replace

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// LockMode says who else may hold the lock.
type LockMode int

const (
	Shared    LockMode = iota // others may hold it too, shared: for readers
	Exclusive                 // nobody else: for writers
)

// Lock locks the lock file path, making it if it is missing, and holds the lock
// until the result is closed. The file is a rendezvous: the lock is worth what the
// programs that agree to take it make of it. What the file contains is up to the
// holder; it is not durable.
//
// A context that can be cancelled is obeyed while waiting, by asking again every
// 1 to 25 ms; with one that cannot, the wait is in the kernel and as fair as the
// kernel is.
//
//   - Isolated by the lock: while one holds it exclusively nobody else holds it.
//     A lock on a file that has been replaced or removed guards nothing, since
//     others now lock another file under that name. So once the lock is there, the
//     path must still name the locked file; otherwise all begins again.
//   - The lock goes with the process: one that is killed holds nothing.
//
// Never remove the file of a lock that is in use, and keep the result reachable:
// the garbage collector closes a file that nobody can reach, and its lock is gone.
func Lock(ctx context.Context, path string, mode LockMode, opts ...Option) (File, error) {
	return LockedOpen(ctx, path, os.O_RDWR|os.O_CREATE, mode, opts...)
}

// TryLock is [Lock], but fails at once with [ErrLocked] if the lock is not free.
func TryLock(path string, mode LockMode, opts ...Option) (File, error) {
	return newOptions(opts).tryLockedOpen(path, os.O_RDWR|os.O_CREATE, mode)
}

// LockedOpen opens the file path with the flags of package os, and locks it: the
// file itself, as the article's LockedOpen does. It is [Lock] for a file whose
// contents matter, so that programs need to agree on nothing but the path. When it
// returns, path names the file that is open, which nobody who plays by the same
// rules replaces until the result is closed.
//
// O_TRUNC takes effect only once the lock is held: what another holder is reading
// is not cut from under it.
func LockedOpen(ctx context.Context, path string, flag int, mode LockMode, opts ...Option) (File, error) {
	return newOptions(opts).lockedOpen(path, flag, func(f File) error {
		return waitForLock(ctx, f, path, mode == Exclusive)
	})
}

func (o options) tryLockedOpen(path string, flag int, mode LockMode) (File, error) {
	return o.lockedOpen(path, flag, func(f File) error {
		return f.Lock(mode == Exclusive, false)
	})
}

func (o options) lockedOpen(path string, flag int, lock func(File) error) (File, error) {
	path = filepath.Clean(path)
	for {
		f, err := o.fsys.OpenFile(path, flag&^os.O_TRUNC, o.perm)
		if err != nil {
			return nil, err
		}
		current := false
		if err = lock(f); err == nil {
			current, err = o.names(path, f)
		}
		if err == nil && current && flag&os.O_TRUNC != 0 {
			err = f.Truncate(0)
		}
		if err == nil && current {
			return f, nil
		}
		f.Close() // nothing was written; if f is a ghost, its lock guards nothing
		if err != nil {
			return nil, err
		}
	}
}

// names reports whether path still is a name of f.
func (o options) names(path string, f File) (bool, error) {
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := o.fsys.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return o.fsys.SameFile(opened, named), nil
}

// waitForLock polls if ctx can be cancelled, since nothing can wake a thread that
// waits for a lock in the kernel but the lock.
func waitForLock(ctx context.Context, f File, path string, exclusive bool) error {
	if ctx.Done() == nil {
		return f.Lock(exclusive, true)
	}
	const shortest, longest = time.Millisecond, 25 * time.Millisecond
	for delay := shortest; ; delay = min(2*delay, longest) {
		if err := ctx.Err(); err != nil {
			return &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		if err := f.Lock(exclusive, false); !errors.Is(err, ErrLocked) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}
