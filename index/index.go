package index

import (
	"sync"

	"github.com/google/btree"
)

// Pos says where a line lies: in which segment, at which offset, and how long it
// is with its newline.
type Pos struct {
	Segment uint64
	Offset  uint32
	Len     uint32
}

// Entry is the newest record of a key. Expires is in microseconds since 1970, 0
// for never; an expired entry stays until it is deleted or dropped.
type Entry struct {
	Key     string
	Seq     uint64
	Expires int64
	Pos
}

// Op tells what a Change does.
type Op uint8

// The kinds of changes.
const (
	Put Op = iota + 1
	Delete
	Sample
)

// Change is one record as the index sees it. Name is the key, or the series for
// a Sample, whose time At is in microseconds since 1970.
type Change struct {
	Op      Op
	Name    string
	Seq     uint64
	Expires int64
	At      int64
	Pos
}

// Usage is how many bytes of a segment's lines matter still: those of entries,
// of samples, and of tombstones (deletes), which can go only when no older
// segment can hold their key.
type Usage struct {
	Entries    int64
	Samples    int64
	Tombstones int64

	Expiring     int64 // of Entries, those that expire some time
	LatestExpiry int64 // no entry of the segment expires later
}

// enter and leave count an entry in and out.
func (u *Usage) enter(e *Entry) {
	u.Entries += int64(e.Len)
	if e.Expires != 0 {
		u.Expiring += int64(e.Len)
		u.LatestExpiry = max(u.LatestExpiry, e.Expires)
	}
}

func (u *Usage) leave(e *Entry) {
	u.Entries -= int64(e.Len)
	if e.Expires != 0 {
		u.Expiring -= int64(e.Len)
	}
}

// degree of the tree: nodes of 32 to 63 entries, the fastest of 16, 32 and 64 for
// random puts of a million keys.
const degree = 32

func less(a, b Entry) bool { return a.Key < b.Key }

// Index is safe for concurrent use.
type Index struct {
	mu struct {
		sync.RWMutex
		keys    *btree.BTreeG[Entry]
		usage   map[uint64]*Usage
		log     []*stretch // of each segment with blocks, in the order of their first seq; copied when changed
		series  *seriesTable
		last    uint64    // the greatest seq applied
		current *Snapshot // of this very state; nil if none was taken
	}
}

// New returns an empty index.
func New() *Index {
	x := &Index{}
	x.mu.keys = btree.NewG(degree, less)
	x.mu.usage = map[uint64]*Usage{}
	x.mu.series = newSeriesTable()
	return x
}

// Get returns the entry of a key.
func (x *Index) Get(key string) (Entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.mu.keys.Get(Entry{Key: key})
}

// Len is the number of keys.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.mu.keys.Len()
}

// Last is the greatest sequence number applied.
func (x *Index) Last() uint64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.mu.last
}

// Apply makes changes visible, all at once. Their sequence numbers rise and are
// above all earlier ones.
func (x *Index) Apply(changes []Change) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.current = nil
	for i := range changes {
		c := &changes[i]
		x.applyLocked(c)
		x.blockLocked(c)
		x.mu.last = c.Seq
	}
}

func (x *Index) applyLocked(c *Change) {
	switch c.Op {
	case Put:
		e := Entry{Key: c.Name, Seq: c.Seq, Expires: c.Expires, Pos: c.Pos}
		x.usageLocked(c.Segment).enter(&e)
		if old, had := x.mu.keys.ReplaceOrInsert(e); had {
			x.usageLocked(old.Segment).leave(&old)
		}
	case Delete:
		x.usageLocked(c.Segment).Tombstones += int64(c.Len)
		if old, had := x.mu.keys.Delete(Entry{Key: c.Name}); had {
			x.usageLocked(old.Segment).leave(&old)
		}
	case Sample:
		x.usageLocked(c.Segment).Samples += int64(c.Len)
		x.mu.series.add(c)
	}
}

func (x *Index) usageLocked(segment uint64) *Usage {
	u := x.mu.usage[segment]
	if u == nil {
		u = &Usage{}
		x.mu.usage[segment] = u
	}
	return u
}

// Usage returns how much of a segment matters.
func (x *Index) Usage(segment uint64) Usage {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if u := x.mu.usage[segment]; u != nil {
		return *u
	}
	return Usage{}
}

// Move takes in keys that a compaction has copied: an entry of the same key and
// seq is re-pointed to its new place. One that has changed in the meantime stays
// as it is, the copy is dead already.
func (x *Index) Move(changes []Change) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.current = nil
	for i := range changes {
		c := &changes[i]
		if c.Op == Delete {
			x.usageLocked(c.Segment).Tombstones += int64(c.Len)
			continue
		}
		e, had := x.mu.keys.Get(Entry{Key: c.Name})
		if !had || e.Seq != c.Seq {
			continue
		}
		x.usageLocked(e.Segment).leave(&e)
		e.Pos = c.Pos
		x.usageLocked(e.Segment).enter(&e)
		x.mu.keys.ReplaceOrInsert(e)
	}
}

// Drop removes the entries of a key and seq that a compaction has left behind,
// because they had expired.
func (x *Index) Drop(changes []Change) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.current = nil
	for i := range changes {
		c := &changes[i]
		if e, had := x.mu.keys.Get(Entry{Key: c.Name}); had && e.Seq == c.Seq {
			x.mu.keys.Delete(e)
			x.usageLocked(e.Segment).leave(&e)
		}
	}
}

// Snapshot returns the present state, which later changes do not touch. It needs
// no closing; the positions in it hold as long as its user keeps their segments.
func (x *Index) Snapshot() *Snapshot {
	x.mu.RLock()
	s := x.mu.current
	x.mu.RUnlock()
	if s != nil {
		return s
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.current == nil {
		x.mu.current = &Snapshot{x: x, keys: x.mu.keys.Clone(), log: x.mu.log, last: x.mu.last, series: x.mu.series.sums.Clone()}
	}
	return x.mu.current
}
