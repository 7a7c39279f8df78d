package index

import (
	"iter"
	"math"
	"slices"
	"sort"
)

const (
	// blockBytes is how much of the log one block covers: little enough that reading
	// it for one sample takes well under a millisecond, enough that the index of a
	// long log stays small.
	blockBytes = 64 << 10
	// partBlocks is how many blocks share one record of where series occur.
	partBlocks = 256
)

// Block is a stretch of a segment's lines, from offset Start to End, with whole
// commits only if the reader knows so otherwise. Numbers may leave a gap before the
// end of it.
type Block struct {
	Segment    uint64
	Start, End int64
	FirstSeq   uint64 // of its first line
	LastSeq    uint64 // no line of it is above
	MinAt      int64  // of its samples, in microseconds
	MaxAt      int64
	Samples    int
	Damaged    bool // a line in it is bad or missing: it may have held any sample
}

// block is what is kept of a Block. It ends where the next one begins.
type block struct {
	first        uint64 // seq
	minAt, maxAt int64
	start        uint32
	samples      uint32 // how many, and isDamagedBlock
}

const isDamagedBlock = 1 << 31

func (b *block) count() int { return int(b.samples &^ isDamagedBlock) }

func (b *block) damaged() bool { return b.samples&isDamagedBlock != 0 }

// part is a run of at most partBlocks blocks of a segment. While it grows it knows
// the series of each of them; once it is whole it is packed, and never changes.
type part struct {
	blocks       []block
	end          int64  // the offset behind the last line
	last         uint64 // seq
	minAt, maxAt int64  // of its samples, if it has any
	samples      int
	damaged      bool // a block of it is
	packed       bool
	where        where // once it is packed

	lists [][]uint32 // until then: of each block but the last, the series in it, sorted
	open  []uint32   // of the last one, as they came
}

// stretch holds the blocks of one segment whose lines lie in the order of their
// sequence numbers. Guarded by Index.mu, but for parts that are packed.
type stretch struct {
	segment uint64
	first   uint64 // seq
	parts   []*part
}

func newStretch(segment, first uint64) *stretch { return &stretch{segment: segment, first: first} }

func (t *stretch) last() uint64 { return t.parts[len(t.parts)-1].last }

func (t *stretch) samples() (n int) {
	for _, p := range t.parts {
		n += p.samples
	}
	return n
}

// noSeries is the number of what is no sample, anySeries stands for all series.
const (
	noSeries  = math.MaxUint32
	anySeries = math.MaxUint32 - 1
)

// add takes in the next line, of a series by its number.
func (t *stretch) add(c *Change, series uint32) {
	n := len(t.parts)
	if n == 0 || t.parts[n-1].packed || t.parts[n-1].full(c.Offset) {
		t.pack()
		t.parts = append(t.parts, &part{})
		n = len(t.parts)
	}
	t.parts[n-1].add(c, series)
}

// pack ends the part that grows.
func (t *stretch) pack() {
	if n := len(t.parts); n > 0 {
		t.parts[n-1].pack()
	}
}

// full tells whether a line at this offset would need one block too many.
func (p *part) full(offset uint32) bool { return len(p.blocks) == partBlocks && p.past(offset) }

// past tells whether a line at this offset belongs to the next block.
func (p *part) past(offset uint32) bool {
	n := len(p.blocks)
	return n == 0 || int64(offset)-int64(p.blocks[n-1].start) >= blockBytes
}

func (p *part) add(c *Change, series uint32) {
	if p.past(c.Offset) {
		if len(p.blocks) > 0 {
			p.lists = append(p.lists, p.present())
			p.open = p.open[:0]
		}
		p.blocks = append(p.blocks, block{start: c.Offset, first: c.Seq})
	}
	b := &p.blocks[len(p.blocks)-1]
	p.end, p.last = int64(c.Offset)+int64(c.Len), c.Seq
	if series == noSeries {
		return
	}
	if b.samples == 0 {
		b.minAt, b.maxAt = c.At, c.At
	}
	if p.samples == 0 {
		p.minAt, p.maxAt = c.At, c.At
	}
	b.minAt, b.maxAt = min(b.minAt, c.At), max(b.maxAt, c.At)
	p.minAt, p.maxAt = min(p.minAt, c.At), max(p.maxAt, c.At)
	b.samples++
	p.samples++
	if n := len(p.open); n == 0 || p.open[n-1] != series {
		p.open = append(p.open, series)
	}
}

// present returns the series of the last block, sorted.
func (p *part) present() []uint32 {
	slices.Sort(p.open)
	p.open = slices.Compact(p.open)
	return slices.Clone(p.open)
}

// pack makes the part take as little memory as it may.
func (p *part) pack() {
	if p.packed {
		return
	}
	p.where = packWhere(append(p.lists, p.present()))
	p.blocks = append(make([]block, 0, len(p.blocks)), p.blocks...)
	p.lists, p.open, p.packed = nil, nil, true
}

// frozen returns the part as it is now, for somebody who reads it without a lock.
func (p *part) frozen() *part {
	if p.packed {
		return p
	}
	now := *p
	now.blocks, now.lists, now.open = slices.Clone(p.blocks), slices.Clone(p.lists), slices.Clone(p.open)
	return &now
}

// holds tells whether a sample of the series can be in each of the part's blocks:
// the answer is a function of the block.
func (p *part) holds(series uint32) func(i int) bool {
	if p.packed {
		blocks := p.where.find(series, len(p.blocks))
		return blocks.has
	}
	return func(i int) bool {
		if i == len(p.blocks)-1 {
			return slices.Contains(p.open, series)
		}
		_, found := slices.BinarySearch(p.lists[i], series)
		return found
	}
}

// block returns a block for others.
func (p *part) block(segment uint64, i int) Block {
	k := &p.blocks[i]
	b := Block{
		Segment: segment, Start: int64(k.start), End: p.end, FirstSeq: k.first, LastSeq: p.last,
		MinAt: k.minAt, MaxAt: k.maxAt, Samples: k.count(), Damaged: k.damaged(),
	}
	if i+1 < len(p.blocks) {
		b.End, b.LastSeq = int64(p.blocks[i+1].start), p.blocks[i+1].first-1
	}
	return b
}

// blockLocked notes a change, of a series by its number, in the blocks of its segment.
// Lines of a segment come in the order of their sequence numbers, and so do segments.
func (x *Index) blockLocked(c *Change, series uint32) {
	n := len(x.mu.log)
	if n == 0 || x.mu.log[n-1].segment != c.Segment {
		if n > 0 {
			x.mu.log[n-1].pack()
		}
		x.mu.log = append(slices.Clip(x.mu.log), newStretch(c.Segment, c.Seq))
		n++
	}
	x.mu.log[n-1].add(c, series)
}

// query is what somebody looks for in the blocks.
type query struct {
	series       uint32 // noSeries: one that is not known
	first, last  uint64
	since, until int64
}

// Blocks yields the blocks that can hold samples of the series, "" for any, with a
// sequence number from first to last and a time from since up to until, in the order
// of sequence numbers or backwards.
func (s *Snapshot) Blocks(series string, first, last uint64, since, until int64, reverse bool) iter.Seq[Block] {
	q := query{first: first, last: last, since: since, until: until}
	return func(yield func(Block) bool) {
		q.series = noSeries
		if sum, known := s.series.Get(&counted{Series: Series{Name: series}}); known {
			q.series = sum.id // since then another may have got it, or it another
		}
		if series == "" {
			q.series = anySeries
		}
		for i := range s.log {
			if reverse {
				i = len(s.log) - 1 - i
			}
			t := s.log[i]
			if t.first > last {
				continue
			}
			n := s.x.parts(t)
			for j := range n {
				if reverse {
					j = n - 1 - j
				}
				for _, b := range s.x.match(t, j, &q, reverse) {
					if !yield(b) {
						return
					}
				}
			}
		}
	}
}

// numberOf returns the number of a series, noSeries if there is none of that name.
func (x *Index) numberOf(series string) uint32 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if id, known := x.mu.series.ids[series]; known {
		return id
	}
	return noSeries
}

// parts returns how many parts a stretch has now. Those that come later have nothing
// that the asker's snapshot has.
func (x *Index) parts(t *stretch) int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(t.parts)
}

// match returns the blocks of a part that can hold what is looked for. A part that is
// packed is looked into without a lock.
func (x *Index) match(t *stretch, j int, q *query, reverse bool) (found []Block) {
	x.mu.RLock()
	p := t.parts[j]
	if !p.packed {
		defer x.mu.RUnlock()
	} else {
		x.mu.RUnlock()
	}
	if p.blocks[0].first > q.last || p.last < q.first {
		return nil
	}
	if !p.damaged && (q.series == noSeries || p.samples == 0 || p.minAt >= q.until || p.maxAt < q.since) {
		return nil
	}
	holds := func(int) bool { return false }
	switch q.series {
	case noSeries:
	case anySeries:
		holds = func(int) bool { return true }
	default:
		holds = p.holds(q.series)
	}
	for i := range p.blocks {
		b := &p.blocks[i]
		may := b.count() > 0 && b.minAt < q.until && b.maxAt >= q.since && holds(i)
		if !may && !b.damaged() {
			continue
		}
		if b := p.block(t.segment, i); b.FirstSeq <= q.last && b.LastSeq >= q.first {
			found = append(found, b)
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
// below them, segments may overlap, and numbers leave gaps, of which a block may be
// found that ends before the line.
func (x *Index) Find(seq uint64) (b Block, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	log := x.mu.log
	i := sort.Search(len(log), func(i int) bool { return log[i].last() >= seq })
	if i == len(log) {
		return Block{}, false
	}
	t := log[i]
	p := t.parts[sort.Search(len(t.parts), func(j int) bool { return t.parts[j].last >= seq })]
	// The last block that does not begin above it, or else the first.
	j := sort.Search(len(p.blocks), func(j int) bool { return p.blocks[j].first > seq })
	return p.block(t.segment, max(j-1, 0)), true
}

// Footprint is how many bytes of memory the blocks take.
func (x *Index) Footprint() (bytes int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, t := range x.mu.log {
		for _, p := range t.parts {
			bytes += partSize + cap(p.blocks)*blockSize + p.where.bytes() + 4*cap(p.open)
			for _, list := range p.lists {
				bytes += 24 + 4*cap(list)
			}
		}
	}
	return bytes
}

// What a part with its stretch, and a block, take in memory.
const (
	partSize  = 256
	blockSize = 32
)
