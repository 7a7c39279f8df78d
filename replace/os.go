package replace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// OS is the real file system, on top of package os.
//
// Its files also have the methods of *os.File, and are a [Mapper] on most systems.
// On Windows [FS.SyncDir] does nothing, and the
// permissions of files are only the read-only bit.
var OS FS = osFS{}

// ErrNotRegular reports a name that stands for something other than a regular
// file: a directory, a device, a named pipe or a symbolic link.
var ErrNotRegular = errors.New("not a regular file")

type osFS struct{}

// osFile adds the verbs that *os.File lacks: SyncData, Lock and Unlock, one file
// per platform.
type osFile struct{ *os.File }

// OpenFile makes a new file with O_EXCL always. That alone tells it whether the
// file is new, so that perm is set on a file that this call made and on no other.
func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	for {
		exclusive := flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0
		if !exclusive {
			f, err := openRegular(name, flag&^os.O_CREATE, 0)
			if err == nil {
				return osFile{f}, nil
			}
			if flag&os.O_CREATE == 0 || !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		f, err := openRegular(name, flag|os.O_CREATE|os.O_EXCL, perm)
		if err == nil {
			return exactPerm(f, perm)
		}
		if exclusive || !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		// Somebody made the file in between: open that one.
	}
}

// exactPerm undoes the umask on a file just made.
func exactPerm(f *os.File, perm fs.FileMode) (File, error) {
	if err := f.Chmod(perm.Perm()); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return osFile{f}, nil
}

// mustBeRegular closes f unless it is a regular file.
func mustBeRegular(f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(f.Name())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func notRegular(name string) error {
	return &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
}

func (osFS) Rename(oldname, newname string) error   { return rename(oldname, newname) }
func (osFS) Link(oldname, newname string) error     { return os.Link(oldname, newname) }
func (osFS) Symlink(target, name string) error      { return os.Symlink(target, name) }
func (osFS) Readlink(name string) (string, error)   { return os.Readlink(name) }
func (osFS) Remove(name string) error               { return os.Remove(name) }
func (osFS) Lstat(name string) (fs.FileInfo, error) { return os.Lstat(name) }
func (osFS) SameFile(a, b fs.FileInfo) bool         { return os.SameFile(a, b) }

func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

// Mkdir leaves the mode alone if the umask did, and with it a set-group-ID bit
// that the directory has from its parent.
func (osFS) Mkdir(name string, perm fs.FileMode) error {
	if err := os.Mkdir(name, perm.Perm()); err != nil {
		return err
	}
	info, err := os.Lstat(name)
	if err == nil && info.Mode().Perm() != perm.Perm() {
		err = os.Chmod(name, perm.Perm())
	}
	if err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// MkdirAll makes the directory dir and every missing directory above it, with
// exactly perm, and makes all of them durable: a new directory is a name in its
// parent, so each parent is synced, up to one that was there before.
//
// The parent of the lowest directory that was there is synced as well: a
// process killed between making a directory and syncing the parent leaves a name
// that a power cut can still undo. A directory whose parent's sync fails is
// removed again.
func MkdirAll(fsys FS, dir string, perm fs.FileMode) error {
	dir = filepath.Clean(dir)
	var missing []string // lowest first
	for {
		info, err := fsys.Lstat(dir)
		if err == nil && !info.IsDir() && info.Mode()&fs.ModeSymlink == 0 {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		if err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return err
		}
		missing = append(missing, dir)
		dir = parent
	}
	if parent := filepath.Dir(dir); parent != dir {
		// A directory above ours that we may enter but not read is not ours.
		if err := fsys.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			return &SyncError{Path: parent, Err: err}
		}
	}
	for i := len(missing) - 1; i >= 0; i-- {
		made := fsys.Mkdir(missing[i], perm)
		if made != nil && !errors.Is(made, fs.ErrExist) {
			return made
		}
		if err := syncDir(fsys, filepath.Dir(missing[i])); err != nil {
			// No later sync need cover this name. Were it left, the next call would
			// find it and take it for durable.
			if made == nil {
				err = errors.Join(err, fsys.Remove(missing[i]))
			}
			return err
		}
	}
	return nil
}

// SyncError reports that a change could not be made durable: a sync failed, or
// the close of a file that was written, which may be the only report of a lost
// write. Do not sync again: after an error the lost pages may look clean.
//
// Every other error of this package, "no space left on device" for one, means
// that the change was not made.
type SyncError struct {
	Path string // the file or directory that could not be synced
	Err  error

	// Unknown is false if the change was not made: the old state stands, durable
	// as before. It is true if the change was made and can be seen, but may or
	// may not survive a crash.
	Unknown bool
}

func (e *SyncError) Error() string {
	if e.Unknown {
		return fmt.Sprintf("%v (done, but perhaps not durable)", e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns the error of the sync or close.
func (e *SyncError) Unwrap() error { return e.Err }

// syncDir makes names in dir durable that have been made or changed already.
func syncDir(fsys FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return &SyncError{Path: dir, Err: err, Unknown: true}
	}
	return nil
}
