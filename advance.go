package annals

import (
	"cmp"
	"errors"
	"slices"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
)

// advance is the way of a reader's state from one MANIFEST to the next: segments were
// sealed, and compaction has made new ones of old ones. What the state has read need
// not be read again:
//
//  1. new segments are opened, all of them, so that none can go meanwhile
//  2. what was written since is read in order, from the rest of what was the open
//     segment to what the present one shows
//  3. entries are moved to the outputs of compaction, small slices at a time, while
//     inputs and outputs are open; those that it left behind go
//  4. MANIFEST, and with it the start of history, is shown; then the inputs go
//
// At every moment the state is that of the store after some commit. Where that can't
// be had so, because compaction has overtaken the reader, taken samples away, or a
// crash was recovered from, it is errAnew.
type advance struct {
	*readerState
	manifest *segment.Manifest
	op       opening

	originals []segment.Footer // segments as first written that are new to us, in order
	outputs   []segment.Footer // of compaction
	removed   []uint64
	opened    map[uint64]*segmentFile
}

func (st *readerState) advance(r *Reader, m *segment.Manifest, s glimpse) error {
	a := advance{readerState: st, manifest: m, op: opening{opts: r.opts, dir: r.dir, manifest: *m}, opened: map[uint64]*segmentFile{}}
	defer func() {
		for _, f := range a.opened {
			f.Close()
		}
	}()
	if err := a.find(); err != nil {
		return err
	}
	if err := a.inOrder(); err != nil {
		return err
	}
	if err := a.follow(); err != nil { // 2
		return err
	}
	st.judged = false
	var err error
	if s.writer == writerServes {
		_, err = st.extend(m, s.visible)
	} else {
		_, err = st.judge(r, m)
	}
	if err != nil {
		return err
	}
	st.clock.raise(m.Clock)
	return a.replace()
}

// find opens the segments that are new: step 1.
func (a *advance) find() error {
	listed := map[uint64]bool{a.manifest.Open: true}
	for i := range a.manifest.Sealed {
		f := &a.manifest.Sealed[i]
		listed[f.Segment] = true
		if a.sealed[f.Segment] || a.open != nil && a.open.number == f.Segment {
			continue
		}
		file, size, err := a.op.open(f.Segment)
		if err != nil {
			return errAnew
		}
		opened := &segmentFile{number: f.Segment, path: a.op.path(f.Segment), ReaderAt: file, Closer: file}
		a.opened[f.Segment] = opened
		h, line, err := segment.ReadHeader(file, size, opened.path)
		if err != nil || h.Store != a.manifest.Store || h.Segment != f.Segment || size != f.Size() {
			return errAnew // to be told what it is
		}
		opened.header, opened.compacted = line.Size, h.Compacted()
		switch {
		case h.Compacted():
			opened.mapFile(file, size)
			a.outputs = append(a.outputs, *f)
		case h.From != nil:
			return errAnew // made by a recovery
		default:
			a.originals = append(a.originals, *f)
		}
	}
	slices.SortFunc(a.originals, func(x, y segment.Footer) int { return cmp.Compare(x.First, y.First) })
	for n := range a.sealed {
		if !listed[n] {
			a.removed = append(a.removed, n)
		}
	}
	if a.open != nil && !listed[a.open.number] {
		a.removed = append(a.removed, a.open.number)
	}
	return nil
}

// inOrder makes sure that all that came since can be read in order, and that nothing
// of it is in an output already.
func (a *advance) inOrder() error {
	last, m := a.last, a.manifest
	if f := a.footerOfOpen(); f != nil {
		last = f.Last
	}
	for i := range a.originals {
		if a.originals[i].First != last+1 {
			return errAnew
		}
		last = a.originals[i].Last
	}
	if (a.open == nil || a.open.number != m.Open) && m.Seq != last+1 {
		return errAnew
	}
	for i := range a.outputs {
		if a.outputs[i].Last > last {
			return errAnew
		}
	}
	return nil
}

// footerOfOpen returns the footer of the segment that was open, if it is sealed now.
func (a *advance) footerOfOpen() *segment.Footer {
	if a.open == nil {
		return nil
	}
	i, sealed := slices.BinarySearchFunc(a.manifest.Sealed, a.open.number, bySegment)
	if !sealed {
		return nil
	}
	return &a.manifest.Sealed[i]
}

// follow reads sealed segments to their ends, and opens the one that is open now.
func (a *advance) follow() error {
	if f := a.footerOfOpen(); f != nil {
		if err := a.finish(f); err != nil {
			return err
		}
	}
	for i := range a.originals {
		f := &a.originals[i]
		opened := a.opened[f.Segment]
		file, size, err := a.op.open(f.Segment)
		if err != nil || size != f.Size() {
			return errAnew
		}
		opened.Closer.Close()
		g := &growing{File: file, path: opened.path, number: f.Segment, first: f.First, next: f.First}
		g.end.Store(opened.header)
		g.size.Store(size)
		a.begin(g)
		if err := a.finish(f); err != nil {
			return err
		}
	}
	if a.open != nil && a.open.number != a.manifest.Open {
		a.open = nil
	}
	if a.manifest.Open == 0 || a.open != nil {
		return nil
	}
	g, err := a.op.openGrowing()
	if err != nil {
		return errAnew
	}
	a.begin(g)
	return nil
}

// begin goes on in a segment.
func (a *advance) begin(g *growing) {
	delete(a.opened, g.number)
	a.files.add(&segmentFile{number: g.number, path: g.path, header: g.end.Load(), ReaderAt: g, Closer: g})
	a.open = g
}

// finish reads a segment that is sealed to its end.
func (a *advance) finish(f *segment.Footer) error {
	if f.Last >= a.open.next {
		if err := a.take(f.Last); err != nil {
			return err
		}
	}
	a.files.sealed(f.Segment)
	a.sealed[f.Segment] = true
	a.open = nil
	return nil
}

// replace puts the outputs of compaction in the place of its inputs: steps 3 and 4.
func (a *advance) replace() error {
	var samples []*index.Stretch
	taken := int64(0)
	for _, n := range a.removed {
		taken += a.index.Usage(n).Samples
	}
	for i := range a.outputs {
		f := &a.outputs[i]
		opened := a.opened[f.Segment]
		stretch, bytes, err := a.samplesIn(opened, f.Bytes)
		if err != nil {
			return errAnew
		}
		taken -= bytes
		a.files.add(opened)
		delete(a.opened, f.Segment)
		a.sealed[f.Segment] = true
		if stretch != nil {
			samples = append(samples, stretch)
			continue // keys lie in outputs of their own
		}
		if err := a.moveKeys(opened, f.Bytes, func(int) {}); err != nil {
			return errAnew
		}
	}
	if taken != 0 {
		return errAnew // retention has taken samples: their sums must be made anew
	}
	if err := a.forget(); err != nil {
		return errAnew
	}
	a.show(a.manifest)
	a.index.Replace(a.removed, samples)
	a.files.retire(a.removed)
	for _, n := range a.removed {
		delete(a.sealed, n)
	}
	return nil
}

// samplesIn reads the samples of an output, and how many bytes they take; nil if it
// holds keys.
func (a *advance) samplesIn(f *segmentFile, end int64) (stretch *index.Stretch, bytes int64, err error) {
	scan := segment.NewScanner(f, f.header, end)
	var name []byte
	for scan.Scan() {
		l := scan.Line()
		if l.Kind != segment.RecordLine {
			return nil, 0, &CorruptError{Path: f.path, Offset: l.Offset, Reason: "the line is bad"}
		}
		if l.View.Kind != segment.Sample {
			return nil, 0, nil
		}
		if stretch == nil {
			stretch = a.index.NewStretch(f.number)
		}
		name = l.View.AppendName(name[:0])
		stretch.Add(name, l.View.Seq, l.View.At, uint32(l.Offset), uint32(l.Size))
		bytes += l.Size
	}
	if stretch != nil {
		stretch.Done()
	}
	return stretch, bytes, scan.Err()
}

// forget drops the entries that compaction has left behind: of keys that had expired.
func (a *advance) forget() error {
	left := int64(0)
	for _, n := range a.removed {
		left += a.index.Usage(n).Keys
	}
	if left == 0 {
		return nil
	}
	var dead []index.Change
	for e, err := range a.index.Snapshot().Range("", "", false) {
		if err != nil {
			return err
		}
		if slices.Contains(a.removed, e.Segment) {
			dead = append(dead, index.Change{Op: index.Put, Name: e.Key, Seq: e.Seq})
		}
	}
	var err error
	for slice := range slices.Chunk(dead, moveSlice) {
		err = errors.Join(err, a.index.Drop(slice))
	}
	return err
}
