package fstest

import (
	"os"
	"time"

	"github.com/annalsdb/annals/replace"
)

func (s *suite) lockConflicts() {
	for _, c := range []struct {
		name                  string
		exclusive, exclusive2 bool
		conflict              bool
	}{
		{"shared and shared", false, false, false},
		{"shared and exclusive", false, true, true},
		{"exclusive and shared", true, false, true},
		{"exclusive and exclusive", true, true, true},
	} {
		a := s.open(c.name, os.O_RDWR|os.O_CREATE)
		b := s.open(c.name, os.O_RDONLY) // a lock needs no write permission
		s.ok(a.Lock(c.exclusive, false))
		if err := b.Lock(c.exclusive2, false); c.conflict {
			s.fails(err, replace.ErrLocked)
		} else {
			s.ok(err)
		}
	}
	// Locks are advisory: they stop nobody from using the file.
	a := s.open("a", os.O_RDWR|os.O_CREATE)
	s.ok(a.Lock(true, false))
	b := s.open("a", os.O_RDWR)
	_, err := b.WriteAt([]byte("1"), 0)
	s.ok(err)
	s.contains("a", "1")
}

func (s *suite) lockReleased() {
	a := s.open("a", os.O_RDWR|os.O_CREATE)
	b := s.open("a", os.O_RDWR)
	c := s.open("a", os.O_RDWR)
	s.ok(a.Lock(true, false))
	s.ok(c.Close()) // not the one that holds it
	s.fails(b.Lock(false, false), replace.ErrLocked)
	s.ok(a.Unlock())
	s.ok(b.Lock(true, false))
	s.fails(a.Lock(true, false), replace.ErrLocked)
	s.ok(b.Close())
	s.ok(a.Lock(false, false))
	s.ok(a.Unlock())
	s.ok(a.Lock(true, false)) // the same file may take it again, in another mode
}

func (s *suite) lockWaits() {
	for _, exclusive := range []bool{true, false} {
		for _, release := range []func(replace.File) error{replace.File.Unlock, replace.File.Close} {
			holder := s.open("a", os.O_RDWR|os.O_CREATE)
			waiter := s.open("a", os.O_RDWR)
			s.ok(holder.Lock(true, true))
			locked := make(chan error, 1)
			go func() { locked <- waiter.Lock(exclusive, true) }()
			select {
			case err := <-locked:
				s.Fatalf("Lock did not wait: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
			s.ok(release(holder))
			s.ok(<-locked)
			s.ok(waiter.Close())
		}
	}
}

func (s *suite) lockBelongsToTheFile() {
	a := s.open("a", os.O_RDWR|os.O_CREATE)
	s.ok(a.Lock(true, false))
	s.ok(s.FS.Link(s.path("a"), s.path("link")))
	s.ok(s.FS.Rename(s.path("a"), s.path("moved")))
	s.fails(s.open("link", os.O_RDWR).Lock(true, false), replace.ErrLocked)
	s.fails(s.open("moved", os.O_RDWR).Lock(true, false), replace.ErrLocked)
	// A new file under the old name is another file.
	s.ok(s.open("a", os.O_RDWR|os.O_CREATE).Lock(true, false))
}
