package replace

import (
	"errors"
	"time"
)

// Noticer is what an [FS] may be besides: one that tells when something changes in a
// directory. [OS] is on Linux (inotify).
type Noticer interface {
	// Notices begins to watch a directory, which must be readable.
	Notices(dir string) (Notices, error)
}

// Notices tells when a file in a directory is written to, closed after that, or
// renamed into place, by whatever process. It says only that, not what: whoever is
// told looks. What is written through shared memory, as [Words] are, is not noticed.
type Notices interface {
	// Wait waits until something has happened since Notices or the Wait before, d at
	// the most, and tells whether something has. One goroutine at a time may wait.
	Wait(d time.Duration) (happened bool, err error)

	// Close ends the watching, and a Wait with fs.ErrClosed.
	Close() error
}

// NoticesIn watches a directory of a file system. It fails with
// errors.ErrUnsupported where there is no such thing, and whoever meets an error looks
// every now and then instead.
func NoticesIn(fsys FS, dir string) (Notices, error) {
	n, ok := fsys.(Noticer)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return n.Notices(dir)
}
