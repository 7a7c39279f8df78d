package index

import (
	"maps"
	"slices"
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
