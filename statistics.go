package annals

import (
	"maps"
	"slices"

	"github.com/annalsdb/annals/segment"
	"github.com/annalsdb/annals/wal"
)

// Stats describes the store at this moment.
func (s *Store) Stats() Stats {
	st := s.core.stats(s.manifest.copy())
	st.Durable = s.Durable()
	l := s.log.Stats()
	st.Commits, st.Records, st.Batches, st.Syncs = l.Commits, l.Records, l.Batches, l.Syncs
	if l.Syncs > 0 {
		st.RecordsPerSync = float64(l.Records) / float64(l.Syncs)
	}
	if err := s.log.Failure(); err != nil {
		st.Failed = err.Error()
	}
	st.Recovery = s.recovery
	s.compaction.mu.Lock()
	st.Compaction = s.compaction.stats
	s.compaction.mu.Unlock()
	for _, bytes := range s.compaction.retention.garbage() {
		st.Compaction.Retirable += bytes
	}
	return st
}

// stats describes what every reader knows.
func (c *core) stats(m segment.Manifest) Stats {
	st := Stats{
		Dir: c.dir, Store: m.Store, Generation: m.Generation, Keys: c.index.Len(),
		LastSeq: max(c.index.Last(), m.Seq-1), Durable: c.index.Last(), History: m.History,
		Clock: timeOfSample(c.clock.now()), LiveRatio: 1,
	}
	for _, info := range c.index.Snapshot().Series() {
		st.Series++
		st.Samples += info.Samples
	}
	sealed := map[uint64]bool{}
	for i := range m.Sealed {
		f := &m.Sealed[i]
		sealed[f.Segment] = true
		st.add(c, SegmentStats{Segment: f.Segment, First: f.First, Last: f.Last, Records: f.Records}, f.Size)
	}
	st.addOpen(c, sealed)
	c.damage.Lock()
	defer c.damage.Unlock()
	for _, e := range c.damage.found {
		st.Damage = append(st.Damage, e.Error())
	}
	return st
}

// add adds a segment. Its size is asked for last: what is alive in it can only be
// less by then.
func (st *Stats) add(c *core, seg SegmentStats, size func() int64) {
	u := c.index.Usage(seg.Segment)
	seg.LiveBytes = u.Entries + u.Samples
	seg.Bytes = size()
	st.Segments = append(st.Segments, seg)
	st.Bytes += seg.Bytes
	st.LiveBytes += seg.LiveBytes
	st.LiveRatio = float64(st.LiveBytes) / float64(max(st.Bytes, 1))
}

// addOpen adds the segment that is being written, and those that the log's buffer
// will be written to.
func (st *Stats) addOpen(c *core, sealed map[uint64]bool) {
	v := c.files.acquire()
	if v == nil {
		return
	}
	defer v.release()
	for _, n := range slices.Sorted(maps.Keys(v.byID)) {
		seg, writing := v.byID[n].ReaderAt.(*wal.Segment)
		if sealed[n] || !writing {
			continue
		}
		last := max(c.index.Last(), seg.First-1)
		if i := len(st.Segments) - 1; i >= 0 && st.Segments[i].Open {
			st.Segments[i].Last = seg.First - 1
			st.Segments[i].Records = seg.First - st.Segments[i].First
		}
		st.add(c, SegmentStats{Segment: n, First: seg.First, Last: last, Records: last - seg.First + 1, Open: true}, seg.End)
	}
}
