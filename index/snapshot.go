package index

import "github.com/google/btree"

// Snapshot is the state of an index at one moment. It is safe for concurrent use.
type Snapshot struct {
	x      *Index
	levels *levels
	limit  ref     // of the top overlay: what it has from here on came later
	sorted [][]run // of each overlay
	len    int
	log    []*stretch
	last   uint64

	series *btree.BTreeG[*counted]
}

// Get returns the entry of a key. An error is damage in the table.
func (s *Snapshot) Get(key string) (Entry, bool, error) {
	top := s.levels.top
	switch r := top.find(key); {
	case r == 0:
		return s.levels.below(key)
	case r < s.limit:
		return top.entry(r, key)
	}
	for i := len(s.sorted[0]) - 1; i >= 0; i-- {
		list := s.sorted[0][i]
		if n, found := top.search(list, []byte(key)); found {
			return top.entry(list[n], key)
		}
	}
	return s.levels.below(key)
}

// Len is the number of keys.
func (s *Snapshot) Len() int { return s.len }

// Last is the greatest sequence number in it.
func (s *Snapshot) Last() uint64 { return s.last }

// Snapshot returns the present state, which later changes do not touch. It needs
// no closing; the positions in it hold as long as its user keeps their segments.
func (x *Index) Snapshot() *Snapshot {
	if s := x.current.Load(); s != nil {
		return s
	}
	// The overlay that we sort must still be the top one when its end is read:
	// frozen, it is sorted to its end by whoever comes first.
	for {
		l := x.levels.Load()
		if s := x.snapshotOf(l); s != nil {
			return s
		}
	}
}

// snapshotOf returns a snapshot unless the levels have been replaced.
func (x *Index) snapshotOf(l *levels) *Snapshot {
	s := &Snapshot{x: x, levels: l}
	l.top.order.mu.Lock()
	defer l.top.order.mu.Unlock()
	x.mu.Lock()
	if x.levels.Load() != l {
		x.mu.Unlock()
		return nil
	}
	x.payLocked()
	s.limit, s.len, s.log, s.last, s.series = l.top.end, x.mu.len, x.mu.log, x.mu.last, x.mu.series.snapshot()
	changes := x.mu.changes
	x.mu.Unlock()

	s.sorted = append(s.sorted, l.top.sortedLocked(s.limit))
	for _, o := range l.frozen {
		s.sorted = append(s.sorted, o.sorted())
	}
	x.mu.Lock()
	if x.mu.changes == changes {
		x.current.Store(s)
	}
	x.mu.Unlock()
	return s
}

// sorted returns the runs of an overlay that takes no more changes.
func (o *overlay) sorted() []run {
	o.order.mu.Lock()
	defer o.order.mu.Unlock()
	return o.sortedLocked(o.end)
}

// inOne is sorted for a walk over all of them.
func (o *overlay) inOne() []run {
	o.order.mu.Lock()
	defer o.order.mu.Unlock()
	return o.inOneLocked()
}

// sortAhead sorts what the top overlay has, so that the next who needs the order
// does not wait for long.
func (x *Index) sortAhead() {
	o := x.levels.Load().top
	o.order.mu.Lock()
	defer o.order.mu.Unlock()
	x.mu.Lock()
	limit := o.end
	x.mu.Unlock()
	o.sortAheadLocked(limit)
	o.order.ahead.Store(false)
}

// PrefixEnd returns the least key above all keys that begin with prefix, "" if
// there is none.
func PrefixEnd(prefix string) string {
	for n := len(prefix); n > 0; n-- {
		if c := prefix[n-1]; c < 0xFF {
			return prefix[:n-1] + string([]byte{c + 1})
		}
	}
	return ""
}
