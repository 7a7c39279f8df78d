package index

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
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
	Keys       int64 // how many entries
	Entries    int64
	Samples    int64
	Tombstones int64

	Expiring     int64 // of Entries, those that expire some time
	LatestExpiry int64 // no entry of the segment expires later
}

// enter and leave count an entry in and out.
func (u *Usage) enter(e *Entry) {
	u.Keys++
	u.Entries += int64(e.Len)
	if e.Expires != 0 {
		u.Expiring += int64(e.Len)
		u.LatestExpiry = max(u.LatestExpiry, e.Expires)
	}
}

func (u *Usage) leave(e *Entry) {
	u.Keys--
	u.Entries -= int64(e.Len)
	if e.Expires != 0 {
		u.Expiring -= int64(e.Len)
	}
}

// Index is safe for concurrent use. Get takes no lock.
type Index struct {
	levels  atomic.Pointer[levels]
	limit   ref                      // of an overlay
	saving  atomic.Bool              // a Checkpoint is being written
	writing atomic.Uint64            // odd while several changes become visible at once
	current atomic.Pointer[Snapshot] // of this very state; nil if none was taken

	mu struct {
		sync.RWMutex
		usage         map[uint64]*Usage
		recent        *Usage // of recentSegment: most changes are in one
		recentSegment uint64
		log           []*stretch // of each segment with blocks, in the order of their first seq; copied when changed
		series        *seriesTable
		last          uint64   // the greatest seq applied
		len           int      // keys
		owed          []string // see oweLocked
		taken         []string // of those, what payAhead looks for; nil once it need not
		owedSpare     []string // memory for the next ones
		paying        bool     // payAhead is at work
		olds          []Entry  // memory of payLocked
		samples       int      // how many came since the table was made, for Changes
		changes       uint64   // how often something has changed
		retiring      *Retirement
		moves         *Moves // of the compaction that runs
	}
}

// New returns an empty index.
func New() *Index { return newIndex(nil) }

func newIndex(t *Table) *Index {
	x := &Index{limit: maxOverlay}
	x.levels.Store(&levels{top: newOverlay(), table: t})
	x.mu.usage = map[uint64]*Usage{}
	x.mu.series = newSeriesTable()
	return x
}

// Get returns the entry of a key. An error is damage in the table.
//
// Changes that become visible together do so for every Get: one that has met the
// middle of them looks again, behind them.
func (x *Index) Get(key string) (Entry, bool, error) {
	if before := x.writing.Load(); before%2 == 0 {
		e, ok, err := x.levels.Load().get(key)
		if x.writing.Load() == before {
			return e, ok, err
		}
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.levels.Load().get(key)
}

// Len is the number of keys.
func (x *Index) Len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.payLocked()
	return x.mu.len
}

// Last is the greatest sequence number applied.
func (x *Index) Last() uint64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.mu.last
}

// lock is what every change begins with, but for Apply.
func (x *Index) lock() {
	x.lockToApply()
	x.payLocked()
}

// lockToApply is lock for who makes use neither of usage nor of len.
func (x *Index) lockToApply() {
	x.mu.Lock()
	if x.levels.Load().top.end > x.limit {
		x.freezeLocked()
	}
	x.mu.changes++
	x.current.Store(nil)
}

// Apply makes changes visible, all at once. Their sequence numbers rise and are
// above all earlier ones.
func (x *Index) Apply(changes []Change) {
	x.lockToApply()
	defer x.mu.Unlock()
	if len(changes) > 1 {
		x.writing.Add(1)
		defer x.writing.Add(1)
	}
	top := x.levels.Load().top
	var hashes [owedKeys]uint32
	for some := range slices.Chunk(changes, len(hashes)) {
		top.reserve(len(some))
		top.hashAll(some, &hashes)
		for i := range some {
			c := &some[i]
			x.blockLocked(c, x.applyLocked(top, c, hashes[i]))
		}
		x.mu.last = some[len(some)-1].Seq
	}
	if top.order.late(top) {
		go x.sortAhead()
	}
}

// applyLocked returns the number of a sample's series, noSeries for a change that is no sample.
func (x *Index) applyLocked(top *overlay, c *Change, h uint32) (series uint32) {
	switch c.Op {
	case Put:
		e := Entry{Key: c.Name, Seq: c.Seq, Expires: c.Expires, Pos: c.Pos}
		x.replaceLocked(top, &e, h, false)
		x.enterLocked(&e)
	case Delete:
		x.usageLocked(c.Segment).Tombstones += int64(c.Len)
		x.replaceLocked(top, &Entry{Key: c.Name, Seq: c.Seq}, h, true)
	case Sample:
		x.usageLocked(c.Segment).Samples += int64(c.Len)
		x.mu.samples++
		return x.mu.series.add(c, true)
	}
	return noSeries
}

// enterLocked counts an entry in.
func (x *Index) enterLocked(e *Entry) {
	x.usageLocked(e.Segment).enter(e)
	x.mu.len++
}

// replaceLocked makes e the latest change of its key, and counts the entry out that
// the key had, sooner or later. A delete of a key that is nowhere leaves no trace.
// h is the key's hash in the top overlay, which has room for it.
func (x *Index) replaceLocked(top *overlay, e *Entry, h uint32, deleted bool) {
	at, r := slotOf(top, e.Key, h)
	switch {
	case r != 0:
		if old, had, _ := top.entry(r, ""); had {
			x.countOutLocked(&old)
		}
	case deleted:
		old, had, err := x.levels.Load().below(e.Key)
		if had {
			x.countOutLocked(&old)
		}
		if !had && err == nil {
			return
		}
	default:
		x.oweLaterLocked(e.Key)
	}
	top.putAt(at, h, r, e, deleted)
}

// countOutLocked is the opposite of enterLocked.
func (x *Index) countOutLocked(e *Entry) {
	x.usageLocked(e.Segment).leave(e)
	x.mu.len--
}

func (x *Index) usageLocked(segment uint64) *Usage {
	if x.mu.recent != nil && x.mu.recentSegment == segment {
		return x.mu.recent
	}
	u := x.mu.usage[segment]
	if u == nil {
		u = &Usage{}
		x.mu.usage[segment] = u
	}
	x.mu.recent, x.mu.recentSegment = u, segment
	return u
}

// Usage returns how much of a segment matters.
func (x *Index) Usage(segment uint64) Usage {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.payLocked()
	if u := x.mu.usage[segment]; u != nil {
		return *u
	}
	return Usage{}
}

// Move takes in keys that a compaction has copied: an entry of the same key and
// seq is re-pointed to its new place. One that has changed in the meantime stays
// as it is, the copy is dead already. An error is damage in the table: then the
// entries that could not be found still lead to their old places.
func (x *Index) Move(changes []Change) (err error) {
	x.lock()
	defer x.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		if c.Op == Delete {
			x.usageLocked(c.Segment).Tombstones += int64(c.Len)
			continue
		}
		l := x.levels.Load()
		e, had, lost := l.get(c.Name)
		err = cmp.Or(err, lost)
		if !had || e.Seq != c.Seq {
			continue
		}
		x.usageLocked(e.Segment).leave(&e)
		e.Pos = c.Pos
		x.usageLocked(e.Segment).enter(&e)
		l.top.put(&e, false)
	}
	return err
}

// Drop removes the entries of a key and seq that a compaction has left behind,
// because they had expired. Errors are as those of Move.
func (x *Index) Drop(changes []Change) (err error) {
	x.lock()
	defer x.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		l := x.levels.Load()
		e, had, lost := l.get(c.Name)
		err = cmp.Or(err, lost)
		if had && e.Seq == c.Seq {
			x.countOutLocked(&e)
			l.top.put(&Entry{Key: c.Name, Seq: c.Seq}, true)
		}
	}
	return err
}
