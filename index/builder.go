package index

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// Builder makes an index from the records of a log, or from a table and the
// records that it does not know. Segments come in any order; of two records of a
// key the one with the greater sequence number is the newer.
type Builder struct {
	x    *Index
	base uint64 // the table stands for all records up to this one
	err  error  // damage in the table

	retiring bool
}

// NewBuilder returns an empty builder.
func NewBuilder() *Builder { return &Builder{x: New()} }

// Add takes in records of a segment whose lines lie in the order of their sequence
// numbers (inOrder) or by key. Records of one segment come one behind the other.
//
// A record that the table stands for can only have moved: if it is the newest of
// its key it is re-pointed, otherwise it is dead.
func (b *Builder) Add(changes []Change, inOrder bool) {
	for list := range slices.Chunk(changes, owedKeys) {
		b.fetch(list)
		for i := range list {
			b.add(&list[i], inOrder)
		}
	}
}

// fetch has the processor load what adding some records will touch.
func (b *Builder) fetch(list []Change) {
	l := b.x.levels.Load()
	var keys [owedKeys]string
	moved := keys[:0]
	sum := uint64(0)
	for i := range list {
		if c := &list[i]; c.Op != Sample {
			sum += l.top.fetch(c.Name)
			if c.Seq <= b.base {
				moved = append(moved, c.Name)
			}
		}
	}
	fetched.Store(sum)
	l.fetch(moved)
}

func (b *Builder) add(c *Change, inOrder bool) {
	x := b.x
	x.mu.last = max(x.mu.last, c.Seq)
	series := uint32(noSeries)
	switch c.Op {
	case Sample:
		x.usageLocked(c.Segment).Samples += int64(c.Len)
		series = x.mu.series.add(c, c.Seq > b.base)
		x.mu.samples++
	case Delete:
		x.usageLocked(c.Segment).Tombstones += int64(c.Len)
		fallthrough
	default:
		b.key(c)
	}
	if inOrder {
		x.blockLocked(c, series)
	}
}

func (b *Builder) key(c *Change) {
	x := b.x
	e := Entry{Key: c.Name, Seq: c.Seq, Expires: c.Expires, Pos: c.Pos}
	top := x.levels.Load().top
	top.reserve(1)
	at, h, r := top.slot(c.Name)
	switch {
	case r != 0:
		old, deleted := entryOf(top.at(r))
		if old.Seq >= c.Seq {
			return
		}
		if !deleted {
			x.countOutLocked(&old)
		}
	case c.Seq > b.base: // all that lies below is older
		b.err = cmp.Or(b.err, x.oweLocked(c.Name))
	case !b.moved(c):
		return
	}
	if c.Op == Put {
		x.enterLocked(&e)
	}
	top.putAt(at, h, r, &e, c.Op == Delete)
}

// moved tells whether a record that the table stands for is the newest of its key: then
// the entry in its old place is counted out.
func (b *Builder) moved(c *Change) bool {
	l := b.x.levels.Load()
	old, known, alive, err := l.latest(c.Name)
	b.err = cmp.Or(b.err, err)
	if err != nil || c.Op != Put || !known || old.Seq != c.Seq {
		return false
	}
	if alive {
		b.x.countOutLocked(&old)
	}
	return true
}

// latest returns the newest that is known of a key below the top overlay: the entry,
// which may lie in a segment that is gone, or the change that has deleted it.
func (l *levels) latest(key string) (e Entry, known, alive bool, err error) {
	for _, o := range l.frozen {
		if r := o.find(key); r != 0 {
			e, deleted := entryOf(o.at(r))
			return e, true, !deleted, nil
		}
	}
	if l.table == nil {
		return Entry{}, false, false, nil
	}
	e, known, err = l.table.Get(key)
	return e, known, known && !l.table.isGone(e.Segment), err
}

// InOrder tells whether the lines of a segment are known to lie in the order of
// their sequence numbers, so that samples are looked for in it.
func (b *Builder) InOrder(segment uint64) bool {
	return slices.ContainsFunc(b.x.mu.log, func(t *stretch) bool { return t.segment == segment })
}

// Damage tells that a line at offset, in a segment whose lines lie in the order of
// their sequence numbers first to last and end at offset end, can't be read: it may
// have held any sample. At offset 0 it is the whole file that is not as it should
// be, and the line may be missing anywhere. It comes after all good records of the
// segment.
func (b *Builder) Damage(segment uint64, offset, end int64, first, last uint64) {
	x := b.x
	i := slices.IndexFunc(x.mu.log, func(t *stretch) bool { return t.segment == segment })
	if i < 0 {
		t := newStretch(segment, first)
		start := uint32(min(offset, math.MaxUint32))
		t.parts = []*part{{end: end, last: last, damaged: true, blocks: []block{{start: start, first: first, samples: isDamagedBlock}}}}
		x.mu.log = append(x.mu.log, t)
		return
	}
	x.mu.log[i].damage(offset, end, first, last)
}

// damage is Builder.Damage for a segment of which there are blocks.
func (t *stretch) damage(offset, end int64, first, last uint64) {
	if offset == 0 {
		for _, p := range t.parts {
			p.damaged = true
			for i := range p.blocks {
				p.blocks[i].samples |= isDamagedBlock
			}
		}
	}
	// The last block that begins before the line, or the first one.
	j := max(sort.Search(len(t.parts), func(j int) bool { return int64(t.parts[j].blocks[0].start) > offset })-1, 0)
	p := t.parts[j]
	i := max(sort.Search(len(p.blocks), func(i int) bool { return int64(p.blocks[i].start) > offset })-1, 0)
	p.damaged = true
	d := &p.blocks[i]
	d.samples |= isDamagedBlock
	// The block reaches to its neighbours now, in offsets and in numbers.
	if offset < int64(d.start) {
		d.start, d.first = uint32(offset), first
		t.first = first
	}
	if i == len(p.blocks)-1 && offset >= p.end {
		p.end, p.last = end, last
		if j+1 < len(t.parts) {
			next := &t.parts[j+1].blocks[0]
			p.end, p.last = int64(next.start), next.first-1
		}
	}
}

// Retiring tells that the table has a Retirement that is open still.
func (b *Builder) Retiring() bool { return b.retiring }

// Reached tells that numbers up to seq were given, even if no record with the last
// of them is left.
func (b *Builder) Reached(seq uint64) { b.x.mu.last = max(b.x.mu.last, seq) }

// Err returns the damage in the table that was met: then the index must be built
// without it.
func (b *Builder) Err() error {
	b.err = cmp.Or(b.err, b.x.payLocked())
	return b.err
}

// Index returns the index. Its error is that of Err.
func (b *Builder) Index() (*Index, error) {
	x := b.x
	for _, t := range x.mu.log {
		t.pack()
	}
	slices.SortFunc(x.mu.log, func(a, b *stretch) int { return int(int64(a.first) - int64(b.first)) })
	return x, b.Err()
}
