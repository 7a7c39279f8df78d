package index

import (
	"slices"
	"strings"

	"github.com/google/btree"
)

// Series sums up the samples of one series. Times are in microseconds.
type Series struct {
	Name     string
	Samples  uint64
	Bytes    uint64 // of their lines
	FirstSeq uint64
	LastSeq  uint64
	MinAt    int64
	MaxAt    int64

	id uint32 // its number, in the blocks that were there when the sums were so
}

// seriesTable gives each series a small number and keeps its sums, in a tree as
// for keys, so that a snapshot of them costs nothing either.
//
// A sample is counted in the sums themselves, without a way through the tree, as long as no
// snapshot has them; one that does keeps them as they are, and the next sample copies those
// of its series.
type seriesTable struct {
	ids   map[string]uint32
	list  []*counted // by number, nil for one that is free
	free  []uint32
	sums  *btree.BTreeG[*counted] // the same, by name
	round uint64                  // how many snapshots were taken
}

// counted is the sums of a series. They don't change once a later round has begun.
type counted struct {
	Series
	round uint64
}

// degree of the tree of series.
const degree = 32

func newSeriesTable() *seriesTable {
	return &seriesTable{
		ids:  map[string]uint32{},
		sums: btree.NewG(degree, func(a, b *counted) bool { return a.Name < b.Name }),
	}
}

// add counts one more sample, whose seq may be below earlier ones while an index
// is built; or, if it is counted already, only makes sure that its series is known. It
// returns the number of the series.
func (t *seriesTable) add(c *Change, count bool) (id uint32) {
	id, known := t.ids[c.Name]
	switch {
	case !known:
		id = t.enter(&Series{Name: strings.Clone(c.Name), FirstSeq: c.Seq, LastSeq: c.Seq, MinAt: c.At, MaxAt: c.At})
	case !count:
		return id
	}
	s := t.change(id)
	s.Samples++
	s.Bytes += uint64(c.Len)
	s.FirstSeq, s.LastSeq = min(s.FirstSeq, c.Seq), max(s.LastSeq, c.Seq)
	s.MinAt, s.MaxAt = min(s.MinAt, c.At), max(s.MaxAt, c.At)
	return id
}

// enter gives a number to a new series.
func (t *seriesTable) enter(s *Series) (id uint32) {
	if n := len(t.free); n > 0 {
		id, t.free = t.free[n-1], t.free[:n-1]
	} else {
		id = uint32(len(t.list))
		t.list = append(t.list, nil)
	}
	s.id = id
	c := &counted{*s, t.round}
	t.ids[s.Name], t.list[id] = id, c
	t.sums.ReplaceOrInsert(c)
	return id
}

// change returns the sums of a series to be changed.
func (t *seriesTable) change(id uint32) *Series {
	c := t.list[id]
	if c.round != t.round {
		c = &counted{c.Series, t.round}
		t.list[id] = c
		t.sums.ReplaceOrInsert(c)
	}
	return &c.Series
}

// leave takes a series away. The next new one gets its number.
func (t *seriesTable) leave(id uint32) {
	c := t.list[id]
	t.sums.Delete(c)
	delete(t.ids, c.Name)
	t.list[id] = nil
	t.free = append(t.free, id)
}

// snapshot returns the sums as they are now.
func (t *seriesTable) snapshot() *btree.BTreeG[*counted] {
	t.round++
	return t.sums.Clone()
}

// frozen returns the table as it is now, for somebody who reads only its list, without a
// lock.
func (t *seriesTable) frozen() *seriesTable {
	t.round++
	return &seriesTable{list: slices.Clone(t.list)}
}

// Series returns the sums of all series, by name.
func (s *Snapshot) Series() []Series {
	all := make([]Series, 0, s.series.Len())
	s.series.Ascend(func(c *counted) bool {
		sum := c.Series
		sum.id = 0
		all = append(all, sum)
		return true
	})
	return all
}
