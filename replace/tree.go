package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// syncTree makes dir and all that is in it durable, the contents of a directory
// before its names. Anything but files, directories and symbolic links is refused
// with ErrNotRegular.
func syncTree(fsys FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		switch {
		case entry.IsDir():
			err = syncTree(fsys, name)
		case entry.Type()&fs.ModeSymlink != 0:
			// A link is a name: the sync of dir is all it needs.
		default:
			err = syncFile(fsys, name)
		}
		if err != nil {
			return err
		}
	}
	if err := fsys.SyncDir(dir); err != nil {
		return &SyncError{Path: dir, Err: err}
	}
	return nil
}

// syncFile syncs a file that somebody else wrote. Windows wants it open for
// writing; elsewhere a file that we may only read will do.
func syncFile(fsys FS, name string) error {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		f, err = fsys.OpenFile(name, os.O_RDONLY, 0)
	}
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return &SyncError{Path: name, Err: err}
	}
	return nil
}

// removeTree removes dir and all that is in it, following no links.
func removeTree(fsys FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		if entry.IsDir() {
			err = removeTree(fsys, name)
		} else {
			err = fsys.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	return fsys.Remove(dir)
}
