package replace

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Update replaces the contents of the file path with what fn makes of them:
// write-replace under a lock. old is nil if there is no such file, and empty but
// not nil if the file is empty. If fn returns an error, Update returns it and the
// file stays as it was.
//
//   - Atomic and durable as [Pending] is: by the rename, and the two syncs.
//   - Consistent if fn makes a valid new state out of a valid old one.
//   - Isolated by an exclusive lock on the file itself, checked as [LockedOpen]
//     does: whoever waited for a file that has been replaced meanwhile starts over
//     with the new one, so no update is lost. The new file is locked as well before
//     it gets the name, until the directory is synced: nobody who takes the lock
//     sees contents that a power cut could undo.
//
// A missing file cannot be locked. The new one is made whole under a temporary
// name and then linked to path, which fails if path exists by then. In that
// case, and only in that, fn is called again, with the contents that the other
// process wrote; its first result is thrown away. (This needs a file system that
// has hard links; FAT has not.)
//
// fn must not use Update on the same path: it would wait for itself.
func Update(path string, fn func(old []byte) (new []byte, err error), opts ...Option) error {
	o := newOptions(opts)
	path = filepath.Clean(path)
	for {
		f, err := LockedOpen(context.Background(), path, os.O_RDONLY, Exclusive, opts...)
		if err == nil {
			return o.updateLocked(path, f, fn)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		data, err := fn(nil)
		if err != nil {
			return err
		}
		if err := o.install(path, data, o.linkNew); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

func (o options) updateLocked(path string, f File, fn func([]byte) ([]byte, error)) error {
	defer f.Close() // opened for reading: its error tells nothing
	old, err := readAll(f)
	if err != nil {
		return err
	}
	data, err := fn(old)
	if err != nil {
		return err
	}
	return o.install(path, data, o.fsys.Rename)
}

// install writes data to a temporary file, gives it the name path by the function
// name, and keeps it locked until that is durable.
func (o options) install(path string, data []byte, name func(temp, path string) error) error {
	p, err := o.begin(path)
	if err != nil {
		return err
	}
	defer p.Discard()
	if _, err := p.Write(data); err != nil {
		return err
	}
	if err := p.seal(); err != nil {
		return err
	}
	f, err := o.tryLockedOpen(p.temp, os.O_RDONLY, Exclusive)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.install(name)
}

// linkNew is a rename that does not replace anything.
func (o options) linkNew(temp, path string) error {
	if err := o.fsys.Link(temp, path); err != nil {
		return err
	}
	// The file has its name. That the other one goes too is only tidy, and if it
	// does not, IsTempOf knows it for what it is.
	_ = o.fsys.Remove(temp)
	return nil
}

func readAll(f File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return data[:n], nil // the lock is advisory: somebody may have cut the file
}
