package replace

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// inotify is a watched directory. Events are read, and not looked at: the kernel
// joins those that are alike while nobody reads, so a busy file costs its reader
// no more than an idle one.
type inotify struct {
	file *os.File
	buf  []byte
}

// Notices implements [Noticer].
func (osFS) Notices(dir string) (Notices, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, &fs.PathError{Op: "inotify_init", Path: dir, Err: err}
	}
	const mask = unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	err = retry(func() error {
		_, err := unix.InotifyAddWatch(fd, dir, mask)
		return err
	})
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "inotify_add_watch", Path: dir, Err: err}, unix.Close(fd))
	}
	return &inotify{file: os.NewFile(uintptr(fd), dir), buf: make([]byte, 4<<10)}, nil
}

// Wait implements [Notices].
func (n *inotify) Wait(d time.Duration) (bool, error) {
	if err := n.file.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false, err
	}
	_, err := n.file.Read(n.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// Close implements [Notices].
func (n *inotify) Close() error { return n.file.Close() }

// Nap sleeps for a short while. A goroutine's timer is no finer than a millisecond
// where the process is idle; the kernel's is.
func Nap(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil) // a signal ends it early, and whoever naps looks again
}
