package index

import (
	"maps"
	"slices"
	"sort"
)

// Builder makes an index from all records of a log. Segments come in any order;
// of two records of a key the one with the greater sequence number is the newer.
type Builder struct {
	x      *Index
	newest map[string]newest
}

// newest is the newest record of a key so far, which may be a delete.
type newest struct {
	Entry
	deleted bool
}

// NewBuilder returns an empty builder.
func NewBuilder() *Builder {
	return &Builder{x: New(), newest: map[string]newest{}}
}

// Add takes in a record of a segment whose lines lie in the order of their
// sequence numbers (inOrder) or by key. Records of one segment come one behind
// the other.
func (b *Builder) Add(c *Change, inOrder bool) {
	x := b.x
	x.mu.last = max(x.mu.last, c.Seq)
	switch c.Op {
	case Sample:
		x.usageLocked(c.Segment).Samples += int64(c.Len)
		x.mu.series.add(c)
	case Delete:
		x.usageLocked(c.Segment).Tombstones += int64(c.Len)
		fallthrough
	default:
		if old, ok := b.newest[c.Name]; !ok || old.Seq < c.Seq {
			b.newest[c.Name] = newest{Entry{Key: c.Name, Seq: c.Seq, Expires: c.Expires, Pos: c.Pos}, c.Op == Delete}
		}
	}
	if inOrder {
		x.blockLocked(c)
	}
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
		x.mu.log = append(x.mu.log, &stretch{segment: segment, first: first, blocks: []block{{
			Block: Block{Segment: segment, Start: offset, End: end, FirstSeq: first, LastSeq: last, Damaged: true},
		}}})
		return
	}
	t := x.mu.log[i]
	for j := range t.blocks {
		t.blocks[j].Damaged = t.blocks[j].Damaged || offset == 0
	}
	// The last block that begins before the line, or the first one.
	j := max(sort.Search(len(t.blocks), func(j int) bool { return t.blocks[j].Start > offset })-1, 0)
	d := &t.blocks[j]
	d.Damaged = true
	// The block reaches to its neighbours now, in offsets and in numbers.
	if offset < d.Start {
		d.Start, d.FirstSeq = offset, first
		t.first = first
	}
	if offset >= d.End {
		d.End, d.LastSeq = end, last
		if j+1 < len(t.blocks) {
			next := &t.blocks[j+1]
			d.End, d.LastSeq = next.Start, next.FirstSeq-1
		}
	}
}

// Reached tells that numbers up to seq were given, even if no record with the last
// of them is left.
func (b *Builder) Reached(seq uint64) { b.x.mu.last = max(b.x.mu.last, seq) }

// Index returns the index. Inserting in order takes the tree half the time of
// inserting as records came.
func (b *Builder) Index() *Index {
	x := b.x
	for _, key := range slices.Sorted(maps.Keys(b.newest)) {
		e := b.newest[key]
		if !e.deleted {
			x.usageLocked(e.Segment).enter(&e.Entry)
			x.mu.keys.ReplaceOrInsert(e.Entry)
		}
	}
	for _, t := range x.mu.log {
		t.closeBlock()
	}
	slices.SortFunc(x.mu.log, func(a, b *stretch) int { return int(int64(a.first) - int64(b.first)) })
	b.newest = nil
	return x
}
