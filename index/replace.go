package index

import "slices"

// Stretch is what an index has to know of a segment of samples that compaction has
// written. It is made sample by sample and counts for nothing until Replace. It is for one goroutine.
type Stretch struct {
	x   *Index
	t   *stretch
	ids map[string]uint32 // of the series met so far

	bytes int64
}

// NewStretch begins a Stretch of a segment.
func (x *Index) NewStretch(segment uint64) *Stretch {
	return &Stretch{x: x, t: &stretch{segment: segment}, ids: map[string]uint32{}}
}

// Add takes in the next sample of the segment, of which only the place is new. series
// may share memory that changes later.
func (s *Stretch) Add(series []byte, seq uint64, at int64, offset, size uint32) {
	if len(s.t.parts) == 0 {
		s.t.first = seq
	}
	id, known := s.ids[string(series)]
	c := Change{Op: Sample, Seq: seq, At: at, Pos: Pos{Segment: s.t.segment, Offset: offset, Len: size}}
	if !known {
		c.Name = string(series)
		id = s.x.numberFor(&c)
		s.ids[c.Name] = id
	}
	s.t.add(&c, id)
	s.bytes += int64(size)
}

// numberFor returns the number of a sample's series. One that is not known, which can't
// be unless INDEX was wrong, becomes known.
func (x *Index) numberFor(c *Change) uint32 {
	if id := x.numberOf(c.Name); id != noSeries {
		return id
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.series.add(c, false)
}

// Done ends it: it takes little memory from now on.
func (s *Stretch) Done() {
	s.t.pack()
	s.ids = nil
}

// Replace ends a compaction: it forgets the inputs, which no entry points to any
// more, and takes in the outputs that hold samples, which are Done.
func (x *Index) Replace(inputs []uint64, outputs []*Stretch) {
	x.lock()
	defer x.mu.Unlock()
	log := make([]*stretch, 0, len(x.mu.log)+len(outputs))
	for _, t := range x.mu.log {
		if !slices.Contains(inputs, t.segment) {
			log = append(log, t)
		}
	}
	for _, s := range outputs {
		x.usageLocked(s.t.segment).Samples += s.bytes
		x.mu.samples += s.t.samples()
		log = append(log, s.t)
	}
	slices.SortFunc(log, func(a, b *stretch) int { return int(int64(a.first) - int64(b.first)) })
	x.mu.log = log
	for _, n := range inputs {
		delete(x.mu.usage, n)
	}
	x.mu.recent = nil
}
