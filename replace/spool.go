package replace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrEmpty reports that a spool has no item that nobody has claimed.
var ErrEmpty = errors.New("spool is empty")

// Spool is a directory of items, one file each, that any number of producers put
// there and any number of consumers take away, in any number of processes:
//
//		spool/
//		|-- 1732284001000000000-9a0b1c2d5f0c7e31
//		|-- 1732284001000512000-1c2d3e4f9495b87a
//		`-- 1732284001000733000-229d937d149afc22.tmp
//
//	  - Atomic by the rename: an item is written under a name that ends in .tmp,
//	    which consumers pass over, and gets its own name once it is whole and synced.
//	  - Consistent since each item stands alone and never changes.
//	  - Isolated without any lock for producers, by names that no two of them choose.
//	    A consumer claims an item by an exclusive lock on its file, and checks that
//	    the file still has its name: one that another consumer has done is gone. A
//	    consumer that is killed loses its locks, and the item is there for another.
//	  - Durable once Put or Done returns nil, by the sync of the directory.
//
// So each item is done exactly once, except that a consumer killed after it
// acted on an item and before Done leaves it to be done again: make the action
// bear that, by the item's name for one.
//
// Programs in other languages take part by the same rules. A producer writes a
// file in the directory whose name ends in .tmp, syncs it and renames it. A
// consumer opens a file whose name neither ends in .tmp nor begins with a dot,
// does flock(LOCK_EX|LOCK_NB), checks that the name still is that file's, and
// removes it when done.
//
// A Spool may be used by many goroutines and processes at the same time.
type Spool struct {
	dir string
	options

	mu struct {
		sync.Mutex
		names []string // of the last listing, those not tried yet: one listing serves many claims
	}
}

// OpenSpool opens the spool in the directory dir, making it if it is missing.
func OpenSpool(dir string, opts ...Option) (*Spool, error) {
	s := &Spool{dir: filepath.Clean(dir), options: newOptions(opts)}
	if err := MkdirAll(s.fsys, s.dir, s.dirPerm()); err != nil {
		return nil, err
	}
	return s, nil
}

// Put adds an item and returns its name. Names sort by the time of Put, as far as
// the clocks of the producers agree.
func (s *Spool) Put(data []byte) (name string, err error) {
	name = fmt.Sprintf("%019d-%s", time.Now().UnixNano(), random())
	path := filepath.Join(s.dir, name)
	p, err := beginAs(s.fsys, path, path+tempSuffix, s.perm)
	if err != nil {
		return "", err
	}
	defer p.Discard()
	if _, err := p.Write(data); err != nil {
		return "", err
	}
	if err := p.Commit(); err != nil {
		return "", err
	}
	return name, nil
}

// Item is an item that its holder has claimed and nobody else gets, until Done or
// Release, or the end of the process. It is for one goroutine.
type Item struct {
	spool *Spool
	name  string
	file  File
	over  bool
}

// Claim claims an item, about the oldest that is free, or fails with [ErrEmpty].
// It does not wait.
func (s *Spool) Claim() (*Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for listed := false; ; {
		if len(s.mu.names) == 0 {
			if listed {
				return nil, ErrEmpty
			}
			names, err := s.list()
			if err != nil {
				return nil, err
			}
			s.mu.names, listed = names, true
			continue
		}
		name := s.mu.names[0]
		s.mu.names = s.mu.names[1:]
		file, err := s.tryLockedOpen(filepath.Join(s.dir, name), os.O_RDONLY, Exclusive)
		switch {
		case err == nil:
			return &Item{spool: s, name: name, file: file}, nil
		case errors.Is(err, ErrLocked), errors.Is(err, fs.ErrNotExist):
			// Another consumer has it, or has done it.
		default:
			return nil, err
		}
	}
}

func (s *Spool) list() (names []string, err error) {
	entries, err := s.fsys.ReadDir(s.dir)
	for _, entry := range entries {
		name := entry.Name()
		if entry.Type().IsRegular() && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, tempSuffix) {
			names = append(names, name)
		}
	}
	return names, err
}

// RemoveAbandoned removes items in progress that nobody has written to for the
// given time: their producers were killed. Maildir waits 36 hours.
func (s *Spool) RemoveAbandoned(age time.Duration) error {
	entries, err := s.fsys.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), tempSuffix) {
			continue
		}
		path := filepath.Join(s.dir, entry.Name())
		info, err := s.fsys.Lstat(path)
		if err == nil && time.Since(info.ModTime()) > age {
			err = s.fsys.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Name returns the name that Put returned.
func (i *Item) Name() string { return i.name }

// Bytes returns what Put was given.
func (i *Item) Bytes() ([]byte, error) { return readAll(i.file) }

// Done removes the item, durably. The Item is over in any case.
func (i *Item) Done() error {
	if i.over {
		return &fs.PathError{Op: "done", Path: i.name, Err: fs.ErrClosed} // it may be another's by now
	}
	i.over = true
	// The lock goes last, so that nobody can claim what is being removed.
	defer i.file.Close()
	if err := i.spool.fsys.Remove(filepath.Join(i.spool.dir, i.name)); err != nil {
		return err
	}
	return syncDir(i.spool.fsys, i.spool.dir)
}

// Release gives the item back: it may be claimed again. After Done it does nothing,
// so that "defer item.Release()" is always right.
func (i *Item) Release() error {
	if i.over {
		return nil
	}
	i.over = true
	return i.file.Close()
}
