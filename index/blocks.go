package index

import (
	"iter"
	"maps"
	"slices"
	"sort"
)

// blockBytes is how much of the log one block covers: little enough that reading
// it for one sample takes well under a millisecond, enough that the index of a
// long log stays small.
const blockBytes = 64 << 10

// Block is a stretch of a segment's lines, from offset Start to End, with whole
// commits only if the reader knows so otherwise.
type Block struct {
	Segment    uint64
	Start, End int64
	FirstSeq   uint64 // of its first line
	LastSeq    uint64 // of its last line
	MinAt      int64  // of its samples, in microseconds
	MaxAt      int64
	Samples    int
	Damaged    bool // a line in it is bad or missing: it may have held any sample
}

// block is a Block with the series that occur in it.
type block struct {
	Block
	series []uint32 // sorted
}

// stretch holds the blocks of one segment whose lines lie in the order of their
// sequence numbers. Guarded by Index.mu.
type stretch struct {
	segment uint64
	first   uint64 // seq
	blocks  []block
	open    map[uint32]struct{} // the series of the last block while it grows
}

func (t *stretch) last() uint64 { return t.blocks[len(t.blocks)-1].LastSeq }

// add takes in the next line. series is -1 for one that is no sample.
func (t *stretch) add(c *Change, series int64) {
	n := len(t.blocks)
	if n == 0 || int64(c.Offset)-t.blocks[n-1].Start >= blockBytes {
		t.closeBlock()
		t.blocks = append(t.blocks, block{Block: Block{Segment: t.segment, Start: int64(c.Offset), FirstSeq: c.Seq}})
		n = len(t.blocks)
	}
	b := &t.blocks[n-1]
	b.End = int64(c.Offset) + int64(c.Len)
	b.LastSeq = c.Seq
	if series < 0 {
		return
	}
	if b.Samples == 0 {
		b.MinAt, b.MaxAt = c.At, c.At
	}
	b.MinAt, b.MaxAt = min(b.MinAt, c.At), max(b.MaxAt, c.At)
	b.Samples++
	if t.open == nil {
		t.open = map[uint32]struct{}{}
	}
	t.open[uint32(series)] = struct{}{}
}

// closeBlock turns the series of the last block into their small form. If the
// block grows nevertheless, those that come are added to them.
func (t *stretch) closeBlock() {
	if len(t.open) > 0 {
		b := &t.blocks[len(t.blocks)-1]
		for _, id := range b.series {
			t.open[id] = struct{}{}
		}
		b.series = slices.Sorted(maps.Keys(t.open))
		clear(t.open)
	}
}

// holds tells whether a sample of the series is in block i.
func (t *stretch) holds(i int, series uint32) bool {
	if i == len(t.blocks)-1 {
		if _, ok := t.open[series]; ok {
			return true
		}
	}
	_, ok := slices.BinarySearch(t.blocks[i].series, series)
	return ok
}

// blockLocked notes a change in the blocks of its segment. Lines of a segment
// come in the order of their sequence numbers, and so do segments.
func (x *Index) blockLocked(c *Change) {
	n := len(x.mu.log)
	if n == 0 || x.mu.log[n-1].segment != c.Segment {
		if n > 0 {
			x.mu.log[n-1].closeBlock()
		}
		x.mu.log = append(slices.Clip(x.mu.log), &stretch{segment: c.Segment, first: c.Seq})
		n++
	}
	x.mu.log[n-1].add(c, x.mu.series.id(c))
}

// Replace ends a compaction: it forgets the inputs, which no entry points to any
// more, and takes in the outputs that hold samples, each given by its lines in
// order.
func (x *Index) Replace(inputs []uint64, outputs [][]Change) {
	x.lock()
	defer x.mu.Unlock()
	log := slices.DeleteFunc(slices.Clone(x.mu.log), func(t *stretch) bool { return slices.Contains(inputs, t.segment) })
	for _, changes := range outputs {
		t := &stretch{segment: changes[0].Segment, first: changes[0].Seq}
		for i := range changes {
			t.add(&changes[i], x.mu.series.id(&changes[i]))
			x.usageLocked(t.segment).Samples += int64(changes[i].Len)
		}
		x.mu.samples += len(changes)
		t.closeBlock()
		log = append(log, t)
	}
	slices.SortFunc(log, func(a, b *stretch) int { return int(int64(a.first) - int64(b.first)) })
	x.mu.log = log
	for _, n := range inputs {
		delete(x.mu.usage, n)
	}
	x.mu.recent = nil
}

// Blocks yields the blocks that can hold samples of the series with a sequence
// number from first to last and a time from since up to until, in the order of
// sequence numbers or backwards.
func (s *Snapshot) Blocks(series string, first, last uint64, since, until int64, reverse bool) iter.Seq[Block] {
	return func(yield func(Block) bool) {
		for i := range s.log {
			if reverse {
				i = len(s.log) - 1 - i
			}
			for _, b := range s.x.match(s.log[i], series, first, last, since, until, reverse) {
				if !yield(b) {
					return
				}
			}
		}
	}
}

func (x *Index) match(t *stretch, series string, first, last uint64, since, until int64, reverse bool) (found []Block) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	id, known := x.mu.series.ids[series]
	if t.first > last || t.last() < first {
		return nil
	}
	for i := range t.blocks {
		b := &t.blocks[i]
		holds := known && b.Samples > 0 && b.MinAt < until && b.MaxAt >= since && t.holds(i, id)
		if (holds || b.Damaged) && b.FirstSeq <= last && b.LastSeq >= first {
			found = append(found, b.Block)
		}
	}
	if reverse {
		slices.Reverse(found)
	}
	return found
}

// Find returns the block that holds the line of sequence number seq or, if that
// is gone, the first above it; ok is false if there is none. Only segments whose
// lines lie in order are searched. It is for numbers that compaction has not reached:
// below them, segments may overlap.
func (x *Index) Find(seq uint64) (b Block, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	log := x.mu.log
	i := sort.Search(len(log), func(i int) bool { return log[i].last() >= seq })
	if i == len(log) {
		return Block{}, false
	}
	blocks := log[i].blocks
	j := sort.Search(len(blocks), func(j int) bool { return blocks[j].LastSeq >= seq })
	return blocks[j].Block, true
}
