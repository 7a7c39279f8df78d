package annals

import "github.com/annalsdb/annals/segment"

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
	for i := range m.Sealed {
		f := &m.Sealed[i]
		st.add(SegmentStats{Segment: f.Segment, First: f.First, Last: f.Last, Records: f.Records, Bytes: f.Size()}, c)
	}
	if m.Open != 0 {
		st.addOpen(m, c)
	}
	if st.Bytes > 0 {
		st.LiveRatio = float64(st.LiveBytes) / float64(st.Bytes)
	}
	c.damage.Lock()
	defer c.damage.Unlock()
	for _, e := range c.damage.found {
		st.Damage = append(st.Damage, e.Error())
	}
	return st
}

func (st *Stats) add(seg SegmentStats, c *core) {
	u := c.index.Usage(seg.Segment)
	seg.LiveBytes = u.Entries + u.Samples
	st.Segments = append(st.Segments, seg)
	st.Bytes += seg.Bytes
	st.LiveBytes += seg.LiveBytes
}

// addOpen adds the open segment, if it is there yet.
func (st *Stats) addOpen(m segment.Manifest, c *core) {
	v := c.files.acquire()
	if v == nil {
		return
	}
	defer v.release()
	file := v.byID[m.Open]
	if file == nil {
		return
	}
	size, err := sizeOf(file)
	if err != nil {
		return
	}
	last := max(c.index.Last(), m.Seq-1)
	st.add(SegmentStats{Segment: m.Open, First: m.Seq, Last: last, Records: last - m.Seq + 1, Bytes: size, Open: true}, c)
}
