package index

import (
	"slices"
	"strings"
)

// Series sums up the samples of one series. Times are in microseconds.
type Series struct {
	Name     string
	Samples  uint64
	FirstSeq uint64
	LastSeq  uint64
	MinAt    int64
	MaxAt    int64
}

// seriesTable gives each series a small number and keeps its sums.
type seriesTable struct {
	ids    map[string]uint32
	all    []Series
	shared bool // a snapshot has all: copy it before a change
}

func newSeriesTable() *seriesTable { return &seriesTable{ids: map[string]uint32{}} }

// add counts one more sample, whose seq may be below earlier ones while an index
// is built.
func (t *seriesTable) add(c *Change) {
	if t.shared {
		t.all, t.shared = slices.Clone(t.all), false
	}
	id, ok := t.ids[c.Name]
	if !ok {
		id = uint32(len(t.all))
		name := strings.Clone(c.Name)
		t.ids[name] = id
		t.all = append(t.all, Series{Name: name, FirstSeq: c.Seq, LastSeq: c.Seq, MinAt: c.At, MaxAt: c.At})
	}
	s := &t.all[id]
	s.Samples++
	s.FirstSeq, s.LastSeq = min(s.FirstSeq, c.Seq), max(s.LastSeq, c.Seq)
	s.MinAt, s.MaxAt = min(s.MinAt, c.At), max(s.MaxAt, c.At)
}

// id is the number of a sample's series, which add has seen; -1 for a change that
// is no sample.
func (t *seriesTable) id(c *Change) int64 {
	if c.Op != Sample {
		return -1
	}
	return int64(t.ids[c.Name])
}

// Series returns the sums of all series, by name.
func (s *Snapshot) Series() []Series {
	all := slices.Clone(s.series)
	slices.SortFunc(all, func(a, b Series) int { return strings.Compare(a.Name, b.Name) })
	return all
}
