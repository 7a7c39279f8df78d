//go:build unix

package replace

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openRegular opens a regular file, and never waits: O_NONBLOCK keeps a named
// pipe from blocking the open, O_NOCTTY a terminal from becoming ours.
func openRegular(name string, flag int, perm fs.FileMode) (*os.File, error) {
	fd, err := open(name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, perm)
	switch {
	case err == nil:
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EMLINK), // a symbolic link; EMLINK on FreeBSD
		errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO): // a directory; a pipe or socket
		return nil, notRegular(name)
	default:
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	// Done before os.NewFile, which would hand a non-blocking file to the poller.
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return mustBeRegular(os.NewFile(uintptr(fd), name))
}

// open is open(2), close-on-exec, never descriptor 0, 1 or 2: in a program started
// with one of those closed, a stray print to stderr would land in the data.
func open(name string, flag int, perm fs.FileMode) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Open(name, flag|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	if err != nil || fd > 2 {
		return fd, err
	}
	low := fd
	fd, err = unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, 3)
	return fd, errors.Join(err, unix.Close(low))
}

// retry repeats a call that a signal interrupted. No other error is ever retried.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func rename(oldname, newname string) error { return os.Rename(oldname, newname) }

func (osFS) SyncDir(name string) error {
	fd, err := open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close() // opened for reading: its error tells nothing
	return d.Sync()
}

// control runs call with the descriptor of f, which cannot be closed meanwhile.
func (f osFile) control(op string, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err == nil {
		var failed error
		err = conn.Control(func(fd uintptr) {
			failed = retry(func() error { return call(int(fd)) })
		})
		if err == nil {
			err = failed
		}
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}
