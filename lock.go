package annals

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/annalsdb/annals/replace"
)

const (
	lockName       = "LOCK"
	manifestName   = "MANIFEST"
	quarantineName = "quarantine"

	visibleAt    = 512 // offset in LOCK of the greatest seq that others may see
	generationAt = 520 // and of MANIFEST's generation
	lockSize     = 528
)

// dirLock is the exclusive lock on a store. Its file is never removed or renamed:
// a second one under the same name would guard nothing.
type dirLock struct {
	fs   replace.FS
	path string
	file replace.File // reachable as long as the lock is held: the collector would close it

	words *replace.Words // the numbers for readers, in memory; nil where files can't be mapped
}

// lockDir takes the lock of a store, or says at once who holds it.
func lockDir(fsys replace.FS, dir string) (*dirLock, error) {
	path := filepath.Join(dir, lockName)
	file, err := replace.TryLock(path, replace.Exclusive, replace.On(fsys))
	if errors.Is(err, replace.ErrLocked) {
		return nil, fmt.Errorf("%w: %q is held by process %s", ErrLocked, dir, holder(fsys, path))
	}
	if err != nil {
		return nil, err
	}
	l := &dirLock{fs: fsys, path: path, file: file}
	err = l.onlyName()
	if err == nil {
		err = l.sign()
	}
	if err == nil {
		err = l.announce()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if m, ok := file.(replace.WordMapper); ok {
		l.words, _ = m.MapWords(visibleAt, 2) // without, they are written
	}
	return l, nil
}

// onlyName refuses a LOCK that has a second name: writing to it would change a file
// that may be somebody else's, and whoever locks that one would lock the store.
func (l *dirLock) onlyName() error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if n := replace.Links(info); n > 1 {
		return fmt.Errorf("annals: %q has %d names (hard links), so it may be a file that is not the store's; remove it while no process has the store open", l.path, n)
	}
	return nil
}

// sign writes our pid, for people, and nothing visible yet, for readers.
func (l *dirLock) sign() error {
	text := bytes.Repeat([]byte{' '}, lockSize)
	copy(text, strconv.Itoa(os.Getpid()))
	text[visibleAt-1] = '\n'
	clear(text[visibleAt:])
	copy(text[31:], "\n")
	_, err := l.file.WriteAt(text, 0)
	return err
}

// announce shows readers that there is a writer, once the numbers say that nothing is
// served yet: what those of an earlier writer say is of no use beside this one.
func (l *dirLock) announce() error {
	a, ok := l.file.(replace.Announcer)
	if !ok {
		return nil
	}
	err := a.Announce()
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // readers judge the log, as if it had no writer
	}
	if errors.Is(err, replace.ErrLocked) {
		return fmt.Errorf("%w: a program that is no writer holds a record lock on %q", ErrLocked, l.path)
	}
	return err
}

// holder reads the pid of the process that holds the lock.
func holder(fsys replace.FS, path string) string {
	file, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	text := make([]byte, 32)
	n, _ := file.ReadAt(text, 0)
	pid, _, _ := bytes.Cut(text[:n], []byte("\n"))
	if pid, err := strconv.ParseUint(string(bytes.TrimSpace(pid)), 10, 31); err == nil {
		return strconv.FormatUint(pid, 10)
	}
	return "unknown" // or not what we wrote, and nothing to repeat to a terminal
}

// check makes sure that LOCK is still the file that we hold.
func (l *dirLock) check() error {
	held, err := l.file.Stat()
	if err != nil {
		return err
	}
	named, err := l.fs.Lstat(l.path)
	if err != nil {
		return fmt.Errorf("annals: the lock file is gone: %w", err)
	}
	if !l.fs.SameFile(held, named) {
		return fmt.Errorf("annals: %q was replaced while the store was open: another writer may be at work", l.path)
	}
	return nil
}

// publish tells readers in other processes what they may see. The numbers are
// advice, never evidence, so a failure to write them is no failure of the store.
// It happens once a batch: through memory it costs no system call, and the file's
// time of change stays as it is.
func (l *dirLock) publish(at int64, n uint64) {
	if l.words != nil && l.words.Store(int(at-visibleAt)/8, n) == nil {
		return
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	l.file.WriteAt(b[:], at)
}

// release gives the lock up.
func (l *dirLock) release() error {
	if l.words != nil {
		l.words.Close()
	}
	return l.file.Close()
}
