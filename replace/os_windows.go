package replace

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// openRegular is CreateFile with what os.OpenFile leaves out: other processes may
// rename and remove the file while it is open, as on Unix, and a symbolic link is
// opened itself, to be refused.
func openRegular(name string, flag int, perm fs.FileMode) (*os.File, error) {
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	access, disposition := accessAndDisposition(flag)
	h, err := windows.CreateFile(path, access, share, nil, disposition,
		windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		if info, lerr := os.Lstat(name); lerr == nil && !info.Mode().IsRegular() && flag&os.O_EXCL == 0 {
			err = ErrNotRegular // a directory is "access denied" otherwise
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f, err := mustBeRegular(os.NewFile(uintptr(h), name))
	if err != nil {
		return nil, err
	}
	// Not by TRUNCATE_EXISTING, which would cut a link's target before the check.
	if flag&os.O_TRUNC != 0 && flag&os.O_EXCL == 0 {
		if err := f.Truncate(0); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// accessAndDisposition translates the flags of package os.
func accessAndDisposition(flag int) (access, disposition uint32) {
	switch flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR) {
	case os.O_RDONLY:
		access = windows.GENERIC_READ
	case os.O_WRONLY:
		access = windows.GENERIC_WRITE
	case os.O_RDWR:
		access = windows.GENERIC_READ | windows.GENERIC_WRITE
	}
	if flag&os.O_CREATE != 0 {
		return access, windows.CREATE_NEW // see OpenFile: it creates with O_EXCL only
	}
	return access, windows.OPEN_EXISTING
}

// rename goes through os.Root where it can, since that renames as POSIX does,
// also over a file that somebody has open. os.Rename does not.
func rename(oldname, newname string) error {
	dir := filepath.Dir(oldname)
	if dir != filepath.Dir(newname) {
		return os.Rename(oldname, newname)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() // only a handle of a directory, nothing was written to it
	return root.Rename(filepath.Base(oldname), filepath.Base(newname))
}

// SyncDir does nothing: Windows has no such call. NTFS writes names through its
// own journal, in order, but when is not for us to say.
func (osFS) SyncDir(name string) error { return nil }

// SyncData is Sync, FlushFileBuffers: there is no lesser one.
func (f osFile) SyncData() error { return f.Sync() }

// NetworkFS returns "remote" if dir is on a network drive, or "" if it is local.
func NetworkFS(dir string) (kind string, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path, err := windows.UTF16PtrFromString(abs)
	if err != nil {
		return "", &fs.PathError{Op: "GetVolumePathName", Path: dir, Err: err}
	}
	volume := make([]uint16, windows.MAX_LONG_PATH)
	if err := windows.GetVolumePathName(path, &volume[0], uint32(len(volume))); err != nil {
		return "", &fs.PathError{Op: "GetVolumePathName", Path: dir, Err: err}
	}
	return networkKind(windows.GetDriveType(&volume[0])), nil
}

func networkKind(driveType uint32) string {
	if driveType == windows.DRIVE_REMOTE {
		return "remote"
	}
	return ""
}
