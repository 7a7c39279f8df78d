package index

import (
	"sync"
	"sync/atomic"
)

// Moves are the keys that a compaction copies, with their new places, made beside the
// index while the outputs are read again. They count for nothing until Adopt, which
// makes a level of them: so no key is looked up for its move, and no reader waits for
// one.
//
// Why that is right. A copied record was its key's newest at some moment since Moves
// began. Whatever has changed since then lies in overlays that Moves knows: the rest of
// the top one, and those begun later, whether or not a checkpoint has taken them in. So
// Adopt goes over these changes, and gives each of their keys, if it is a copied one,
// its latest change in the new level too. Then that level has the truth of all its
// keys, and can lie above all others.
type Moves struct {
	x     *Index
	began ref        // changes of later[0] from here on came later
	later []*overlay // the top one when it began, and those after it; guarded by Index.mu

	mu    sync.Mutex
	o     *overlay
	usage map[uint64]*Usage // of the outputs
	runs  map[uint64]run    // of each output, in key order
}

const (
	maxMoves  = 4 << 20 // keys: they are in memory before Adopt already
	maxFrozen = 4       // levels: each costs every Get a look, until the next checkpoint
)

// NewMoves begins the moves of a compaction that will copy so many keys, before it looks
// what is alive. There may be one at a time. It returns nil if these should rather go by
// Move.
func (x *Index) NewMoves(keys int) *Moves {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.levels.Load()
	if keys > maxMoves || len(l.frozen) >= maxFrozen {
		return nil
	}
	m := &Moves{x: x, began: l.top.end, later: []*overlay{l.top}, o: newOverlay(), usage: map[uint64]*Usage{}, runs: map[uint64]run{}}
	n := firstSlots
	for keys >= n/4*3 {
		n *= 2
	}
	m.o.slots.Store(newSlots(n))
	x.mu.moves = m
	return m
}

// newSlots makes so many slots. Each page of memory is written to once: one that is read
// before is mapped twice, and all cores are stopped for the second.
func newSlots(n int) *slots {
	const page = 4096 / 8
	s := &slots{list: make([]atomic.Uint64, n)}
	for i := 0; i < n; i += page {
		s.list[i].Store(0)
	}
	return s
}

// End ends it. Without Adopt all is as it was.
func (m *Moves) End() {
	m.x.mu.Lock()
	defer m.x.mu.Unlock()
	m.x.mu.moves = nil
}

// Output begins the keys of one output, which come in their order.
func (m *Moves) Output(segment uint64) *MovesTo { return &MovesTo{m: m, segment: segment} }

// MovesTo are the Moves to one output. It is for one goroutine; those to another may be
// made meanwhile.
type MovesTo struct {
	m       *Moves
	segment uint64
	usage   Usage
	run     run
	list    []Entry // not yet in the overlay
	names   []byte
	ends    []int
	hashes  []uint32
}

// movesSlice is how many keys are put into the overlay at a time.
const movesSlice = 256

// Add takes in the next line of the output, that of a put or of a tombstone. name may
// share memory that changes later.
func (t *MovesTo) Add(name []byte, tombstone bool, e Entry) {
	if tombstone {
		t.usage.Tombstones += int64(e.Len)
		return
	}
	e.Segment = t.segment
	t.usage.enter(&e)
	t.names = append(t.names, name...)
	t.ends = append(t.ends, len(t.names))
	if t.list = append(t.list, e); len(t.list) == movesSlice {
		t.flush()
	}
}

func (t *MovesTo) flush() {
	names, begin := string(t.names), 0
	for i, end := range t.ends {
		t.list[i].Key, begin = names[begin:end], end
	}
	o := t.m.o
	t.hashes = o.fetchAll(t.list, t.hashes[:0]) // not while the other output waits
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	for i := range t.list {
		o.reserve(1)
		at, r := slotOf(o, t.list[i].Key, t.hashes[i])
		o.putAt(at, t.hashes[i], r, &t.list[i], false)
		t.run = append(t.run, ref(at.Load()))
	}
	t.list, t.names, t.ends = t.list[:0], t.names[:0], t.ends[:0]
}

// Done ends the output.
func (t *MovesTo) Done() {
	t.flush()
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	t.m.usage[t.segment], t.m.runs[t.segment] = &t.usage, t.run
}

// fetchAll appends the hashes of some keys, and fetches their slots.
func (o *overlay) fetchAll(list []Entry, hashes []uint32) []uint32 {
	for i := range list {
		hashes = append(hashes, o.hash(list[i].Key))
	}
	s := o.slots.Load()
	mask := uint32(len(s.list) - 1)
	sum := uint64(0)
	for _, h := range hashes {
		sum += s.list[h&mask].Load()
	}
	fetched.Store(sum)
	return hashes
}

// fewLater is how much Adopt takes in while others wait: about a hundred changes.
const fewLater = 800

// Adopt points the index to the outputs, given in the order of their keys. Its user
// keeps it apart from Freeze.
func (m *Moves) Adopt(outputs []uint64) {
	x, o := m.x, m.o
	var all run
	for _, n := range outputs {
		all = append(all, m.runs[n]...)
	}
	o.order.runs, o.order.upTo = []run{all}, o.end
	o.order.count.Store(int64(len(all)))
	at, from := 0, m.began // of the next change to take in: in later[at]
	catchUp := func(later []*overlay, limit ref) {
		for ; at < len(later); at++ {
			to := limit
			if at < len(later)-1 {
				to = later[at].end // it takes no more
			}
			later[at].walk(from, to, func(r ref) { m.supersede(later[at], r) })
			if from = to; at == len(later)-1 {
				return
			}
			from = 1
		}
	}
	for more := true; more; {
		x.mu.Lock()
		later, limit := m.later, x.levels.Load().top.end
		x.mu.Unlock()
		catchUp(later, limit)
		x.mu.Lock()
		if more = len(m.later) > len(later) || m.later[len(later)-1].end > limit+fewLater; more {
			x.mu.Unlock()
		}
	}
	defer x.mu.Unlock()
	x.payLocked() // before these keys' own changes lie below
	now := x.levels.Load()
	catchUp(m.later, now.top.end)
	x.levels.Store(&levels{top: newOverlay(), frozen: append([]*overlay{o, now.top}, now.frozen...), table: now.table})
	x.mu.moves = nil
	x.mu.changes++
	x.current.Store(nil)
	for n, u := range m.usage {
		*x.usageLocked(n) = *u
	}
}

// supersede gives the key of a later change that change, if it is a copied one.
func (m *Moves) supersede(later *overlay, r ref) {
	b := later.at(r)
	key := string(keyOf(b))
	at, h, copied := m.o.slot(key)
	if copied == 0 {
		return
	}
	old, deleted := entryOf(m.o.at(copied))
	if u := m.usage[old.Segment]; u != nil && !deleted {
		u.leave(&old)
	}
	e, deleted := entryOf(b)
	e.Key = key
	m.o.putAt(at, h, copied, &e, deleted)
}
