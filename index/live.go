package index

import (
	"encoding/binary"
	"hash/maphash"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// Live tells which lines of some segments are entries, by their places: a bit for each
// liveUnit bytes of a segment. It never changes, so it is safe for concurrent use.
//
// It answers for many lines what Get answers for one: to walk over all entries takes a
// fraction of what it takes to look up the key of each line, which waits for memory two
// or three times.
type Live struct{ bits map[uint64][]uint64 }

// liveUnit is less than the length of any put's line, so that no two share a bit.
const liveUnit = 32

// LiveBytes is how much memory a Live of segments of so many bytes takes.
func LiveBytes(bytes int64) int64 { return bytes / liveUnit / 8 }

// Live returns what is alive in some segments, given with how long they are. It takes
// no lock, and says nothing of what changes meanwhile: an entry that is replaced may be
// in it or not, one that stays as it is, in a segment that takes no more records, is. An
// error is damage in the table.
//
// Entries are taken level by level, in no order, unless a level above has a change of
// their key. parallel has two goroutines do it.
func (x *Index) Live(sizes map[uint64]int64, parallel bool) (*Live, error) {
	w := &liveWalk{levels: x.levels.Load()}
	w.above = append([]*overlay{w.levels.top}, w.levels.frozen...)
	l, other := newLive(sizes), (*Live)(nil)
	var wg sync.WaitGroup
	if parallel {
		other = newLive(sizes)
		wg.Go(func() { w.table(other) })
	}
	for i, o := range w.above {
		l.overlay(o, w.above[:i])
	}
	w.table(l)
	wg.Wait()
	if parallel {
		for n, b := range other.bits {
			for i, word := range b {
				l.bits[n][i] |= word
			}
		}
	}
	if err := w.failed.Load(); err != nil {
		return nil, *err
	}
	return l, nil
}

func newLive(sizes map[uint64]int64) *Live {
	l := &Live{bits: make(map[uint64][]uint64, len(sizes))}
	for n, size := range sizes {
		l.bits[n] = make([]uint64, size/liveUnit/64+1)
	}
	return l
}

// Has tells whether the line of a put, at an offset of a segment, is an entry.
func (l *Live) Has(segment uint64, offset int64) bool {
	unit, bits := offset/liveUnit, l.bits[segment]
	return int(unit/64) < len(bits) && bits[unit/64]&(1<<(unit%64)) != 0
}

func mark(bits []uint64, offset uint64) {
	if unit := offset / liveUnit; unit/64 < uint64(len(bits)) {
		bits[unit/64] |= 1 << (unit % 64)
	}
}

// overlay marks the entries of an overlay of whose keys those above know nothing.
func (l *Live) overlay(o *overlay, above []*overlay) {
	number, bits := uint64(0), []uint64(nil)
	for slots := range slices.Chunk(o.slots.Load().list, 64) {
		sum := byte(0)
		for i := range slots {
			sum += o.at(ref(slots[i].Load()))[0] // of a free slot: that of ref 0, which is no change
		}
		fetched.Store(uint64(sum))
		for i := range slots {
			v := slots[i].Load()
			if v == 0 {
				continue
			}
			b := o.at(ref(v))
			if s := binary.LittleEndian.Uint64(b[8:]); s != number { // neighbours are often in the same one
				number, bits = s, l.bits[s]
			}
			if bits == nil {
				continue
			}
			if e, deleted := entryOf(b); !deleted && !known(above, keyOf(b)) {
				mark(bits, uint64(e.Offset))
			}
		}
	}
}

// known tells whether one of some overlays has a change of a key.
func known(overlays []*overlay, key []byte) bool {
	for _, o := range overlays {
		if o.knows(key, o.hashOf(key)) {
			return true
		}
	}
	return false
}

// hashOf is hash for a key that is no string.
func (o *overlay) hashOf(key []byte) uint32 { return uint32(maphash.Bytes(o.seed, key) >> 32) }

func (o *overlay) knows(key []byte, h uint32) bool {
	_, r := slotOf(o, key, h)
	return r != 0
}

// liveWalk is what those share who walk over a table.
type liveWalk struct {
	levels *levels
	above  []*overlay    // the levels but for the table
	next   atomic.Uint32 // the first data page that nobody has taken
	failed atomic.Pointer[error]
}

// livePages is how many pages are taken at a time, and read with one guard against faults.
const livePages = 64

// table marks the entries of the data pages that nobody else takes.
func (w *liveWalk) table(l *Live) {
	t := w.levels.table
	if t == nil {
		return
	}
	p := &livePart{t: t, bits: make([][]uint64, len(t.segments)), above: w.above}
	for i, n := range t.segments {
		p.bits[i] = l.bits[n]
	}
	for w.failed.Load() == nil {
		to := w.next.Add(livePages)
		if to-livePages >= t.t.dataPages {
			return
		}
		if err := p.pages(to-livePages, min(to, t.t.dataPages)); err != nil {
			w.failed.Store(&err)
		}
	}
}

// livePart goes through data pages.
type livePart struct {
	t      *Table
	bits   [][]uint64 // by ordinal
	above  []*overlay
	list   []liveEntry // of the page at hand
	hashes []uint32    // of their keys, in one overlay
}

// liveEntry is an entry that a page has.
type liveEntry struct {
	key    []byte
	bits   []uint64 // of its segment
	offset uint32
}

func (w *livePart) pages(from, to uint32) (err error) {
	defer catch(w.t, &err, debug.SetPanicOnFault(true))
	for n := from; n < to; n++ {
		p, err := w.t.page(n, dataPage)
		if err != nil {
			return err
		}
		w.list = w.list[:0]
		var e Entry
		for rest, left := p[pageHead:pageBytes], pageCount(p); left > 0; left-- {
			key, ordinal, next, whole := parseEntry(rest, &e)
			if !whole {
				return damaged(n, errEntry.Error())
			}
			if ordinal >= uint64(len(w.bits)) {
				return damaged(n, errOrdinal.Error())
			}
			if bits := w.bits[ordinal]; bits != nil {
				w.list = append(w.list, liveEntry{key, bits, e.Offset})
			}
			rest = next
		}
		for _, o := range w.above {
			w.without(o)
		}
		for i := range w.list {
			mark(w.list[i].bits, uint64(w.list[i].offset))
		}
	}
	return nil
}

// without takes out the entries of whose keys an overlay has changes.
func (w *livePart) without(o *overlay) {
	s := o.slots.Load()
	mask := uint32(len(s.list) - 1)
	w.hashes = w.hashes[:0]
	sum := byte(0)
	for i := range w.list {
		w.hashes = append(w.hashes, o.hashOf(w.list[i].key))
	}
	for _, h := range w.hashes {
		r := ref(0) // no change
		if v := s.list[h&mask].Load(); uint32(v>>32) == h {
			r = ref(v)
		}
		sum += o.at(r)[0]
	}
	fetched.Store(uint64(sum))
	kept := w.list[:0]
	for i := range w.list {
		if !o.knows(w.list[i].key, w.hashes[i]) {
			kept = append(kept, w.list[i])
		}
	}
	w.list = kept
}
