package annals

import (
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// How many rows of a scan are read at a time: few at first, for a loop that is left
// early, then more; from the third chunk on another goroutine reads ahead. Long
// values make a chunk end sooner.
const (
	firstChunk = 16
	moreChunk  = 128
	fullChunk  = 512
	aheadRows  = 256 // so many rows must be left for another goroutine to be worth it
	chunkBytes = 256 << 10
)

// maxBlock is how much memory the values of neighbouring rows may share: allocating
// each for itself would take a fifth of the time of a scan. A value that is kept keeps
// its block, so blocks are short.
const maxBlock = 1 << 10

// Scan yields the keys of a range with their values. A value that can't be read
// is yielded as an error with the entry's Key, and the loop may go on behind it.
// Values are the caller's; short ones of neighbouring rows may share 1 KiB of memory,
// which stays as long as one of them does.
func (s *Snapshot) Scan(r Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		from, to, empty := r.bounds()
		switch {
		case s.ended():
			yield(Entry{}, ErrClosed)
		case empty:
		case r.KeysOnly:
			s.scanKeys(from, to, r, yield)
		default:
			s.scanValues(from, to, r, yield)
		}
	}
}

func (s *Snapshot) scanKeys(from, to string, r Range, yield func(Entry, error) bool) {
	w := s.index.Walk(from, to, r.Reverse)
	defer w.Close()
	c := chunks.Get().(*chunk)
	defer c.free()
	left, size := r.limits(fullChunk)
	for {
		err := c.fill(s, w, min(size, left), math.MaxInt)
		for i := range c.entries {
			if s.ended() {
				yield(Entry{}, ErrClosed)
				return
			}
			e := &c.entries[i]
			if !yield(Entry{Key: e.Key, Seq: e.Seq, Expires: timeOf(e.Expires)}, nil) {
				return
			}
		}
		if err != nil {
			yield(Entry{}, s.core.indexError(err))
			return
		}
		if left -= len(c.entries); left == 0 || len(c.entries) == 0 {
			return
		}
		size = fullChunk
	}
}

// limits returns how many rows a scan may yield, and of how many its first chunk is,
// at most most.
func (r Range) limits(most int) (left, first int) {
	if r.Limit > 0 {
		return r.Limit, min(r.Limit, most)
	}
	return math.MaxInt, firstChunk
}

// scanValues reads the first chunks itself.
func (s *Snapshot) scanValues(from, to string, r Range, yield func(Entry, error) bool) {
	w := s.index.Walk(from, to, r.Reverse)
	defer w.Close()
	c := chunks.Get().(*chunk)
	defer c.free()
	left, size := r.limits(moreChunk)
	for {
		lost := c.fill(s, w, min(size, left), chunkBytes)
		c.read(s)
		if !c.yield(s, yield) {
			return
		}
		if lost != nil {
			yield(Entry{}, s.core.indexError(lost))
			return
		}
		if left -= len(c.entries); left == 0 || len(c.entries) == 0 {
			return
		}
		if size == moreChunk && left > aheadRows {
			s.scanAhead(w, left, yield)
			return
		}
		size = moreChunk
	}
}

// scanAhead goes on with a goroutine that reads the next chunk while the rows of one
// are yielded. It ends before scanAhead returns, however the loop is left, and when
// the snapshot or the store is closed.
func (s *Snapshot) scanAhead(w *index.Walk, left int, yield func(Entry, error) bool) {
	a := ahead{s: s, ready: make(chan *chunk, 1), read: make(chan *chunk, 3), stop: make(chan struct{})}
	go a.run(w, left)
	defer func() {
		a.stopped.Store(true)
		close(a.stop)
		for range a.ready { // until it is closed: then nobody is at work
		}
	}()
	for c := a.next(); c != nil; c = a.next() {
		if !c.yield(s, yield) {
			return
		}
		a.read <- c
	}
	if a.err != nil {
		yield(Entry{}, a.err)
	}
}

// ahead is a goroutine that reads ahead. Three chunks go round: one in its hands,
// one that is ready, one of which the rows are yielded. It takes lines apart as long
// as the loop is busy with others; as soon as the loop waits for rows it gets them as
// they are, and takes the rest apart itself. So neither waits for the other for long,
// whatever the loop does with a row.
type ahead struct {
	s       *Snapshot
	ready   chan *chunk   // to be yielded
	read    chan *chunk   // that were yielded
	stop    chan struct{} // closed when the loop is left
	stopped atomic.Bool
	hungry  atomic.Bool // the loop waits for rows
	err     error       // why there is no more; set before ready is closed
}

// next returns the next chunk, nil at the end.
func (a *ahead) next() *chunk {
	select {
	case c := <-a.ready:
		return c
	default:
	}
	a.hungry.Store(true)
	c := <-a.ready
	a.hungry.Store(false)
	return c
}

func (a *ahead) run(w *index.Walk, left int) {
	defer close(a.ready)
	for {
		var c *chunk
		select {
		case c = <-a.read:
		default:
			c = &chunk{stopped: &a.stopped}
		}
		lost := c.fill(a.s, w, min(fullChunk, left), chunkBytes)
		if len(c.entries) > 0 && !a.hand(c) {
			return
		}
		if lost != nil {
			a.err = a.s.core.indexError(lost)
			return
		}
		if left -= len(c.entries); left == 0 || len(c.entries) == 0 {
			return
		}
	}
}

// hand reads a chunk and hands it over. It returns false if nobody wants it.
func (a *ahead) hand(c *chunk) bool {
	c.read(a.s)
	for c.decoded < len(c.rows) && !a.hungry.Load() && !a.stopped.Load() {
		c.decode(a.s)
	}
	select {
	case a.ready <- c:
		return true
	case <-a.stop:
	case <-a.s.core.closed:
	}
	a.err = ErrClosed
	return false
}

// chunk is some rows of a scan.
type chunk struct {
	entries []index.Entry
	most    int          // entries there have been since it was taken
	rows    []row        // of the entries
	decoded int          // how many rows are taken apart
	lines   []byte       // room for lines
	mapped  []stretch    // of entries in segments that are mapped
	parts   [][]byte     // of the mappings, one for each of these stretches
	others  []stretch    // of the other entries
	block   []byte       // room for values, the caller's once they are in it
	stopped *atomic.Bool // nobody wants the rows any more; may be nil
}

// row is what was read for an entry: its line, which is not yet checked, then the
// value, or why it can't be had.
type row struct {
	line  []byte
	value []byte
	owned bool // by the caller; else it lies in the line
	err   error
}

// stretch is the entries from number first on whose lines lie behind each other in a
// file, forwards or backwards, as compaction leaves them.
type stretch struct {
	f        *segmentFile
	first, n int
	start    int64
	size     int
	at       int // where in the chunk's lines they belong
}

// chunks are the first ones of scans that have ended: a short scan would take much of
// its time to make room for its rows.
var chunks = sync.Pool{New: func() any { return new(chunk) }}

// free gives a chunk back without what belongs to the caller or the index.
func (c *chunk) free() {
	clear(c.entries[:c.most])
	clear(c.rows[:min(c.most, cap(c.rows))])
	clear(c.parts[:cap(c.parts)])
	clear(c.mapped[:cap(c.mapped)])
	clear(c.others[:cap(c.others)])
	c.entries, c.rows, c.block, c.most = c.entries[:0], c.rows[:0], nil, 0
	if len(c.lines) <= chunkBytes {
		chunks.Put(c)
	}
}

// fill takes the next entries of a walk that are not hidden: at most n, at least one
// unless there is none, and not more than have so many bytes of lines.
func (c *chunk) fill(s *Snapshot, w *index.Walk, n, bytes int) (err error) {
	for {
		c.entries, err = w.Next(c.entries[:0], n, bytes)
		all := len(c.entries)
		c.most = max(c.most, all)
		for i := range c.entries {
			if c.entries[i].Expires != 0 { // few stores have such
				c.entries = slices.DeleteFunc(c.entries, s.hidden)
				break
			}
		}
		if err != nil || all == 0 || len(c.entries) > 0 {
			return err
		}
	}
}

// yield yields the rows, and false if the loop has ended.
func (c *chunk) yield(s *Snapshot, yield func(Entry, error) bool) bool {
	for i := range c.entries {
		if s.ended() {
			yield(Entry{}, ErrClosed)
			return false
		}
		if i == c.decoded {
			c.decode(s)
		}
		e, r := &c.entries[i], &c.rows[i]
		entry := Entry{Key: e.Key, Value: r.value, Seq: e.Seq}
		if r.err == nil {
			entry.Expires = timeOf(e.Expires)
		}
		if !r.owned {
			entry.Value = c.keep(r.value, len(c.entries)-i)
		}
		if !yield(entry, r.err) {
			return false
		}
	}
	return true
}

// read gets the lines of all entries, unless the snapshot has ended or the loop was
// left: first it finds out where they lie, then it copies them. So many of them are on
// their way from memory at the same time.
func (c *chunk) read(s *Snapshot) {
	c.decoded = 0
	c.rows = slices.Grow(c.rows[:0], len(c.entries))[:len(c.entries)]
	clear(c.rows)
	if !s.enter() {
		return
	}
	defer s.leave()
	c.plan(s)
	c.copyMapped()
	for i := range c.mapped {
		c.place(&c.mapped[i])
	}
	for i := range c.others {
		if c.stopped != nil && c.stopped.Load() {
			return
		}
		c.readOther(s, &c.others[i])
	}
}

// plan divides the entries into stretches and gives each its place. Those with a long
// line are read alone, to a place of their own.
func (c *chunk) plan(s *Snapshot) {
	c.mapped, c.parts, c.others = c.mapped[:0], c.parts[:0], c.others[:0]
	var f *segmentFile
	need := 0
	for first := 0; first < len(c.entries); {
		t := c.stretch(first)
		first += t.n
		if n := c.entries[t.first].Segment; f == nil || f.number != n {
			f = s.version.byID[n]
		}
		t.f = f
		if part := f.part(t.start, t.size); part != nil && t.size <= chunkBytes+maxDesk {
			t.at = need
			need += t.size
			c.mapped, c.parts = append(c.mapped, t), append(c.parts, part)
		} else {
			c.others = append(c.others, t)
		}
	}
	for i := range c.others {
		t := &c.others[i]
		t.at = need
		if t.size <= chunkBytes+maxDesk {
			need += t.size
		}
	}
	if len(c.lines) < need {
		c.lines = make([]byte, max(need, 2*len(c.lines)))
	}
}

// stretch returns the longest one that begins with an entry.
func (c *chunk) stretch(first int) stretch {
	e := &c.entries[first]
	start, end := int64(e.Offset), int64(e.Offset)+int64(e.Len)
	n := 1
	for ; first+n < len(c.entries) && end-start < chunkBytes; n++ {
		next := &c.entries[first+n]
		from, to := int64(next.Offset), int64(next.Offset)+int64(next.Len)
		if next.Segment == e.Segment && from == end && next.Len <= maxDesk {
			end = to
		} else if next.Segment == e.Segment && to == start && next.Len <= maxDesk {
			start = from
		} else {
			break
		}
	}
	return stretch{first: first, n: n, start: start, size: int(end - start)}
}

// copyMapped copies the mapped stretches. Those that can't be had so are read from
// their files, which know why.
func (c *chunk) copyMapped() {
	for done := 0; done < len(c.parts); {
		done += replace.CopyMapped(c.lines[c.mapped[done].at:], c.parts[done:])
		if done < len(c.parts) {
			c.others = append(c.others, c.mapped[done])
			c.mapped[done].n = 0
			done++
		}
	}
}

// readOther reads a stretch from its file.
func (c *chunk) readOther(s *Snapshot, t *stretch) {
	if t.size > chunkBytes+maxDesk {
		c.readAlone(s, t.f, t.first, t.n)
		return
	}
	n, err := t.f.ReadAt(c.lines[t.at:t.at+t.size], t.start)
	if err == nil {
		c.place(t)
		return
	}
	for i := t.first; i < t.first+t.n; i++ {
		e := &c.entries[i]
		at := int(int64(e.Offset) - t.start)
		switch end := at + int(e.Len); {
		case end <= n:
			c.rows[i].line = c.lines[t.at+at : t.at+end]
		case at <= n: // this is the line that can't be read
			c.rows[i] = row{err: s.core.readError(t.f, *e, err), owned: true}
		default:
			c.readAlone(s, t.f, i, 1)
		}
	}
}

// place tells the rows of a stretch where their lines are.
func (c *chunk) place(t *stretch) {
	for i := t.first; i < t.first+t.n; i++ {
		e := &c.entries[i]
		at := t.at + int(int64(e.Offset)-t.start)
		c.rows[i].line = c.lines[at : at+int(e.Len)]
	}
}

// decode checks the next row's line, if it has one, and takes the value out of it.
func (c *chunk) decode(s *Snapshot) {
	e, r := &c.entries[c.decoded], &c.rows[c.decoded]
	c.decoded++
	if r.line == nil {
		return
	}
	var v segment.View
	if err := decodeAs(&v, r.line, e); err != nil {
		*r = row{err: s.core.damaged(s.version.byID[e.Segment], *e, err), owned: true}
		return
	}
	var plain bool
	if r.value, plain = v.Plain(); !plain {
		r.value, r.owned = v.AppendValue(nil), true
	}
}

// readAlone reads n rows from number i on one by one.
func (c *chunk) readAlone(s *Snapshot, f *segmentFile, i, n int) {
	d := desks.Get().(*desk)
	defer desks.Put(d)
	for last := i + n; i < last; i++ {
		entry, err := s.core.read(f, c.entries[i], d)
		c.rows[i] = row{value: entry.Value, owned: true, err: err}
	}
}

// keep copies a value to where it is the caller's; left is how many rows there are
// yet in the chunk.
func (c *chunk) keep(value []byte, left int) []byte {
	if len(value) > maxBlock/4 {
		return slices.Clone(value)
	}
	n := len(c.block)
	if cap(c.block)-n < len(value) {
		c.block, n = make([]byte, 0, min(maxBlock, len(value)*left)), 0
	}
	c.block = append(c.block, value...)
	return c.block[n:len(c.block):len(c.block)]
}
