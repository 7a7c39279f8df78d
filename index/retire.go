package index

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
)

// Gone is how many samples of a series a compaction leaves behind, and the bytes of
// their lines.
type Gone struct{ Samples, Bytes uint64 }

// Retirement is what a compaction leaves behind for good: samples of its inputs, by
// series.
type Retirement struct {
	Inputs []uint64
	Gone   map[string]Gone
}

// Retiring says that a compaction will leave samples behind, nil that none will. A
// checkpoint that is taken in between has it, and who restores that finds out whether
// the inputs are still there: the sums of series are right either way.
func (x *Index) Retiring(r *Retirement) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.retiring = r
}

// retireSlice is how many series are changed while others wait.
const retireSlice = 64

// Retired counts out what is gone, behind Replace, and ends Retiring. A series without
// samples is gone. Of the others the first number and the least time become those of the
// first block that may hold one.
func (x *Index) Retired(r *Retirement) {
	names := slices.Sorted(maps.Keys(r.Gone))
	starts := x.starts(names)
	for slice := range slices.Chunk(names, retireSlice) {
		x.lock()
		for _, name := range slice {
			x.mu.series.retire(name, r.Gone[name], starts[name])
		}
		x.mu.Unlock()
	}
	x.Retiring(nil)
}

// start is where a series may begin.
type start struct {
	seq uint64
	at  int64
}

// starts returns where series may begin at the earliest. It looks without the lock, so
// what comes meanwhile is not in it: that is behind all else.
func (x *Index) starts(names []string) map[string]start {
	x.mu.RLock()
	log := x.logLocked()
	ids := make([]uint32, len(names))
	for i, name := range names {
		ids[i] = noSeries
		if id, known := x.mu.series.ids[name]; known {
			ids[i] = id
		}
	}
	x.mu.RUnlock()
	least := leastOf(log)
	found := make(map[string]start, len(names))
	for i, name := range names {
		if ids[i] != noSeries {
			found[name] = startOf(log, least, ids[i])
		}
	}
	return found
}

// leastOf returns for each stretch the least time of it and all behind it.
func leastOf(log []stretch) []int64 {
	least := make([]int64, len(log)+1)
	least[len(log)] = math.MaxInt64
	for i := len(log) - 1; i >= 0; i-- {
		least[i] = least[i+1]
		for _, p := range log[i].parts {
			if p.samples > 0 {
				least[i] = min(least[i], p.minAt)
			}
		}
	}
	return least
}

func startOf(log []stretch, least []int64, id uint32) start {
	for i := range log {
		for _, p := range log[i].parts {
			has := p.holds(id)
			for j := range p.blocks {
				if p.blocks[j].count() > 0 && has(j) {
					return start{p.blocks[j].first, least[i]}
				}
			}
		}
	}
	return start{} // nothing that is known
}

// retire counts samples out. It gives the number of a series that has none left to the
// next new one: no block that is alive has it.
func (t *seriesTable) retire(name string, gone Gone, from start) {
	id, known := t.ids[name]
	if !known {
		return
	}
	s := t.change(id)
	s.Samples -= min(s.Samples, gone.Samples)
	s.Bytes -= min(s.Bytes, gone.Bytes)
	if s.Samples == 0 {
		t.leave(id)
		return
	}
	s.FirstSeq = min(max(s.FirstSeq, from.seq), s.LastSeq)
	if from.seq > 0 {
		s.MinAt = min(max(s.MinAt, from.at), s.MaxAt)
	}
}

func (r *Retirement) append(b []byte) []byte {
	if r == nil {
		return binary.AppendUvarint(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Inputs)))
	for _, n := range r.Inputs {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Gone)))
	for _, name := range slices.Sorted(maps.Keys(r.Gone)) {
		b = appendBytes(b, name)
		b = binary.AppendUvarint(b, r.Gone[name].Samples)
		b = binary.AppendUvarint(b, r.Gone[name].Bytes)
	}
	return b
}

func readRetirement(d *decoder) *Retirement {
	r := &Retirement{Gone: map[string]Gone{}}
	for range d.count() {
		r.Inputs = append(r.Inputs, d.uint())
	}
	if len(r.Inputs) == 0 {
		return nil
	}
	for range d.count() {
		name := string(d.bytes())
		r.Gone[name] = Gone{Samples: d.uint(), Bytes: d.uint()}
	}
	return r
}

// settle counts out what a checkpoint says will be gone if it is: all inputs of a
// compaction go at once. It returns whether it is open still.
func (x *Index) settle(listed func(segment uint64) bool) (open bool) {
	r := x.mu.retiring
	x.mu.retiring = nil
	if r == nil {
		return false
	}
	if slices.ContainsFunc(r.Inputs, listed) {
		return true
	}
	for name, gone := range r.Gone {
		x.mu.series.retire(name, gone, start{})
	}
	return false
}

// Holding is what a segment has of samples.
type Holding struct {
	Segment      uint64
	MinAt, MaxAt int64
	Samples      int
	Damaged      bool // it may have held others
}

// Holdings returns all segments with samples, or damage, in the order of their numbers.
func (x *Index) Holdings() (list []Holding) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, t := range x.mu.log {
		h := Holding{Segment: t.segment, MinAt: math.MaxInt64, MaxAt: math.MinInt64}
		for _, p := range t.parts {
			h.Damaged = h.Damaged || p.damaged
			if h.Samples += p.samples; p.samples > 0 {
				h.MinAt, h.MaxAt = min(h.MinAt, p.minAt), max(h.MaxAt, p.maxAt)
			}
		}
		if h.Samples > 0 || h.Damaged {
			list = append(list, h)
		}
	}
	return list
}
