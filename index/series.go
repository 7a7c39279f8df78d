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
type seriesTable struct {
	ids   map[string]uint32
	names []string // by number, "" for one that is free
	free  []uint32
	sums  *btree.BTreeG[Series]
}

// degree of the tree of series.
const degree = 32

func newSeriesTable() *seriesTable {
	return &seriesTable{
		ids:  map[string]uint32{},
		sums: btree.NewG(degree, func(a, b Series) bool { return a.Name < b.Name }),
	}
}

// add counts one more sample, whose seq may be below earlier ones while an index
// is built; or, if it is counted already, only makes sure that its series is known.
func (t *seriesTable) add(c *Change, count bool) {
	if _, known := t.ids[c.Name]; known && !count {
		return
	}
	s, ok := t.sums.Get(Series{Name: c.Name})
	if !ok {
		s = Series{Name: strings.Clone(c.Name), FirstSeq: c.Seq, LastSeq: c.Seq, MinAt: c.At, MaxAt: c.At}
		t.number(s.Name)
		s.id = t.ids[s.Name]
	}
	s.Samples++
	s.Bytes += uint64(c.Len)
	s.FirstSeq, s.LastSeq = min(s.FirstSeq, c.Seq), max(s.LastSeq, c.Seq)
	s.MinAt, s.MaxAt = min(s.MinAt, c.At), max(s.MaxAt, c.At)
	t.sums.ReplaceOrInsert(s)
}

// number gives a number to a new series.
func (t *seriesTable) number(name string) {
	n := len(t.free)
	if n == 0 {
		t.ids[name] = uint32(len(t.names))
		t.names = append(t.names, name)
		return
	}
	id := t.free[n-1]
	t.free = t.free[:n-1]
	t.ids[name], t.names[id] = id, name
}

// id is the number of a sample's series, which add has seen; noSeries for a change
// that is no sample.
func (t *seriesTable) id(c *Change) uint32 {
	if c.Op != Sample {
		return noSeries
	}
	return t.ids[c.Name]
}

// frozen returns the table as it is now, for somebody who reads it without a lock.
func (t *seriesTable) frozen() *seriesTable {
	return &seriesTable{names: slices.Clone(t.names), sums: t.sums.Clone()}
}

// Series returns the sums of all series, by name.
func (s *Snapshot) Series() []Series {
	all := make([]Series, 0, s.series.Len())
	s.series.Ascend(func(sum Series) bool {
		sum.id = 0
		all = append(all, sum)
		return true
	})
	return all
}
