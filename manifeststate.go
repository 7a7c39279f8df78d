package annals

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// manifestState is the present MANIFEST of an open store.
type manifestState struct {
	next atomic.Uint64 // the number of the next new segment

	mu sync.Mutex
	segment.Manifest
}

// change replaces MANIFEST by one that edit has changed. After an error it is as
// it was, unless that is a *replace.SyncError. The lock is looked at again: if
// somebody has replaced its file, another writer may be at work.
func (ms *manifestState) change(s *Store, edit func(*segment.Manifest)) error {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if err := s.log.Failure(); err != nil {
		return &FailedError{Err: err}
	}
	if err := s.lock.check(); err != nil {
		return &replace.SyncError{Path: s.lock.path, Err: err}
	}
	m := ms.Manifest
	m.Sealed = slices.Clone(m.Sealed)
	edit(&m)
	m.Generation++
	m.Next = ms.next.Load()
	m.Clock = s.clock.now()
	if err := writeManifest(s.opts.FS, s.dir, &m); err != nil {
		ms.Generation = m.Generation // never a second MANIFEST with the same number
		return err
	}
	ms.Manifest = m
	s.lock.publish(generationAt, m.Generation)
	return nil
}

// copy returns the present MANIFEST.
func (ms *manifestState) copy() segment.Manifest {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.Manifest
	m.Sealed = slices.Clone(m.Sealed)
	return m
}

// lists tells whether a segment is listed as sealed.
func (ms *manifestState) lists(number uint64) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	_, found := slices.BinarySearchFunc(ms.Sealed, number, bySegment)
	return found
}

// insertFooter keeps footers in the order of their segments' numbers.
func insertFooter(sealed []segment.Footer, f segment.Footer) []segment.Footer {
	i, _ := slices.BinarySearchFunc(sealed, f.Segment, bySegment)
	return slices.Insert(sealed, i, f)
}

func bySegment(f segment.Footer, number uint64) int { return cmp.Compare(f.Segment, number) }
