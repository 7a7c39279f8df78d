package replace

import (
	"errors"
	"io"
	"io/fs"
)

// FS is the file system as annals and the patterns of this package see it: the
// few verbs that reliable updates need, each with the promise it makes. [OS] is
// the real one. A fault-injecting one in a test runs the very same callers.
//
// Names are paths as the os package takes them. No verb follows a symbolic link
// in the last element of a name, so that a planted link can neither be written
// through nor read through. ReadDir and SyncDir do: they must reach the very
// directory that a longer name through the link reaches. An error is a
// *fs.PathError or *os.LinkError, so that it names the file and matches
// fs.ErrNotExist, syscall.ENOSPC and so on.
//
// Implementations are safe for concurrent use.
type FS interface {
	// OpenFile opens name with the flags of package os, O_APPEND excepted. It takes
	// regular files only: a directory, a device or a symbolic link is
	// ErrNotRegular (with O_EXCL, fs.ErrExist). With O_CREATE the new file gets
	// exactly perm, whatever the umask. The new name is durable only after SyncDir
	// of its directory.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)

	// Rename gives oldname the name newname, replacing what was there in one
	// step: another process sees the one or the other. Durable after SyncDir.
	Rename(oldname, newname string) error

	// Link makes newname a second name of the file oldname; it fails with
	// fs.ErrExist if newname exists. Durable after SyncDir.
	Link(oldname, newname string) error

	// Symlink makes name a symbolic link to target; it fails with fs.ErrExist if
	// name exists. Durable after SyncDir.
	Symlink(target, name string) error

	// Readlink returns where the symbolic link name points.
	Readlink(name string) (string, error)

	// Remove removes a file, a symbolic link or an empty directory. Durable after
	// SyncDir; until then a crash may bring the name back.
	Remove(name string) error

	// Mkdir makes one directory with exactly perm. Durable after SyncDir of its
	// parent.
	Mkdir(name string, perm fs.FileMode) error

	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)

	// Lstat describes name itself, not what a symbolic link points to. Its result
	// can be compared with File.Stat by SameFile.
	Lstat(name string) (fs.FileInfo, error)

	// SameFile reports whether two results of Lstat or File.Stat are one file.
	SameFile(a, b fs.FileInfo) bool

	// SyncDir makes every create, link, rename and remove that happened in the
	// directory before the call durable. On Windows, which has no such call, it
	// does nothing.
	SyncDir(name string) error
}

// File is an open regular file. Reads and writes at different offsets may run
// at the same time.
type File interface {
	io.ReaderAt // io.EOF and nothing else means the end of the file
	io.WriterAt // n < len(p) only with an error; what lies outside [off, off+len(p)) stays as it was
	io.Closer   // releases a lock taken with Lock; its error may be the only report of a lost write

	Stat() (fs.FileInfo, error)

	// Truncate sets the size. Durable after Sync.
	Truncate(size int64) error

	// Sync makes contents and metadata durable (fsync; F_FULLFSYNC on macOS).
	// After an error the lost pages may look clean: calling it again proves
	// nothing, and no caller in this module does.
	Sync() error

	// SyncData makes the contents, and the size if it grew, durable (fdatasync).
	SyncData() error

	// Lock takes an advisory lock on the whole file (flock; LockFileEx on
	// Windows), exclusive or shared, and holds it until Unlock or Close. With
	// wait it blocks until the lock is free, else it fails at once with
	// ErrLocked. Two opens of one file conflict even in one process. The lock
	// belongs to the file, whatever its name is or becomes. A file that holds a
	// lock must be unlocked before it is locked again.
	Lock(exclusive, wait bool) error

	// Unlock releases the lock.
	Unlock() error
}

// Hastener is what a [File] may be besides: one that can be asked to begin writing
// to the disk. Files of [OS] are on Linux.
type Hastener interface {
	// StartWriteback has the kernel begin to write n bytes from offset off, which it
	// would do by itself some seconds later, and does not wait. It promises nothing:
	// what is written is durable once a sync has succeeded, which has less to do
	// then. An error means what that of a sync means. That of a write under way is
	// left to the sync. (sync_file_range with SYNC_FILE_RANGE_WRITE alone; the flags
	// that wait would take the error away from it.)
	StartWriteback(off, n int64) error
}

// ErrLocked reports that another open file, in this process or another, holds
// the lock.
var ErrLocked = errors.New("file is locked")

// SizeOf returns the length of a file, and asks nothing else where that is possible.
// It may move the place where Read and Write, which no File has, would go on. A Stat
// between two writes makes the sync of the second one longer, by two fifths where it
// was measured: a kernel that keeps times as fine as somebody looks at them (Linux
// since 6.13) must then write the inode too.
func SizeOf(f File) (int64, error) {
	if s, ok := f.(io.Seeker); ok {
		return s.Seek(0, io.SeekEnd)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
