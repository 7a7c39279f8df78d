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

// How many rows of a scan are taken from the index at a time: few at first, for a loop
// that is left early, then more. Of them some at a time are read: their lines must find
// room in the nearest cache of a processor, and long lines make it fewer.
const (
	firstChunk = 16
	moreChunk  = 128
	fullChunk  = 512
	keysChunk  = 256
	readRows   = 128
	chunkBytes = 256 << 10
	aheadBytes = 1 << 20 // of lines, or more by the last part, are made ahead in a chunk
	aheadRows  = 256     // so many rows must be left for another goroutine to be worth it
)

// maxBlock is how much memory the values of neighbouring rows may share: allocating
// each for itself would take a fifth of the time of a scan. A value that is kept keeps
// its block, so blocks are short.
const maxBlock = 1 << 10

// Scan yields the keys of a range with their values. A value that can't be read
// is yielded as an error with the entry's Key, and the loop may go on behind it.
// Values are the caller's; short ones of neighbouring rows may share 1 KiB of memory,
// which stays as long as one of them does, and keys 4 KiB.
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
	for left, size := r.limits(moreChunk); left > 0; size = keysChunk {
		n, more := 0, false
		if quick, err := w.NextKeys(&c.keys, min(size, left)); quick {
			c.lost, c.last = err, len(c.keys.List) == 0
			n, more = c.yieldKeys(s, yield)
		} else {
			c.take(s, w, min(size, left))
			n, more = len(c.entries), c.yieldEntries(s, yield)
		}
		if more && c.lost != nil {
			yield(Entry{}, s.core.indexError(c.lost))
			return
		}
		if left -= n; !more || c.last {
			return
		}
	}
}

// yieldEntries yields the entries without their values, and returns false if the loop
// has ended.
func (c *chunk) yieldEntries(s *Snapshot, yield func(Entry, error) bool) bool {
	shut, closed := s.core.ended, &s.closed
	for i := range c.entries {
		if shut.Load() || closed.Load() {
			yield(Entry{}, ErrClosed)
			return false
		}
		e := &c.entries[i]
		if !yield(Entry{Key: e.Key, Seq: e.Seq, Expires: timeOf(e.Expires)}, nil) {
			return false
		}
	}
	return true
}

// yieldKeys is yieldEntries for what NextKeys gave, of which some may be hidden. It
// returns how many are not.
func (c *chunk) yieldKeys(s *Snapshot, yield func(Entry, error) bool) (n int, more bool) {
	shut, closed := s.core.ended, &s.closed
	text, begin := c.keys.Text, 0
	var entry Entry // one for all: most of it stays zero
	for i := range c.keys.List {
		k := &c.keys.List[i]
		entry.Key, entry.Seq, begin = text[begin:k.End], k.Seq, k.End
		if s.hidden(k.Expires) {
			continue
		}
		entry.Expires = timeOf(k.Expires)
		if shut.Load() || closed.Load() {
			yield(Entry{}, ErrClosed)
			return n, false
		}
		n++
		if !yield(entry, nil) {
			return n, false
		}
	}
	return n, true
}

// limits returns how many rows a scan may yield, and of how many its first chunk is,
// at most most.
func (r Range) limits(most int) (left, first int) {
	if r.Limit > 0 {
		return r.Limit, min(r.Limit, most)
	}
	return math.MaxInt, firstChunk
}

// scanValues makes the first chunks itself.
func (s *Snapshot) scanValues(from, to string, r Range, yield func(Entry, error) bool) {
	w := s.index.Walk(from, to, r.Reverse)
	defer w.Close()
	c := chunks.Get().(*chunk)
	defer c.free()
	for left, size := r.limits(moreChunk); left > 0; size = moreChunk {
		c.fill(s, w, min(size, left))
		if !c.yield(s, yield) || c.last {
			return
		}
		if left -= len(c.entries); size == moreChunk && left > aheadRows {
			s.scanAhead(w, left, yield)
			return
		}
	}
}

// scanAhead goes on with a goroutine that makes the next chunk while the rows of one
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
		if !c.yield(s, yield) || c.last {
			return
		}
		a.read <- c
	}
	yield(Entry{}, ErrClosed)
}

// ahead is a goroutine that reads ahead. Three chunks go round: one in its hands,
// one that is ready, one of which the rows are yielded. It makes rows as long as the
// loop is busy with others, unless they are long; as soon as the loop waits for rows it
// gets the chunk as it is, and makes the rest itself. So neither waits for the other for
// long, whatever the loop does with a row.
type ahead struct {
	s       *Snapshot
	ready   chan *chunk   // to be yielded
	read    chan *chunk   // that were yielded
	stop    chan struct{} // closed when the loop is left
	stopped atomic.Bool
	hungry  atomic.Bool // the loop waits for rows
}

// next returns the next chunk, nil if the store was closed.
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
		c.fill(a.s, w, min(fullChunk, left))
		left -= len(c.entries)
		c.last = c.last || left == 0
		for !a.hungry.Load() && c.made < aheadBytes && c.next(a.s) {
		}
		select {
		case a.ready <- c:
		case <-a.stop:
			return
		case <-a.s.core.closed:
			return
		}
		if c.last {
			return
		}
	}
}

// chunk is some entries of a scan, and their rows up to one of them.
type chunk struct {
	entries []index.Entry
	most    int        // entries there have been since it was taken
	last    bool       // nothing comes behind it
	lost    error      // why that is so, if there should be more
	keys    index.Keys // instead of entries, where nobody wants values

	rows    []row            // of the entries
	at, end int              // of the entries whose rows are made at the moment
	made    int              // bytes of the lines up to there
	held    [readRows][]byte // their lines, which are not yet checked
	lines   []byte           // room for them
	mapped  []stretch        // of entries in segments that are mapped
	parts   [][]byte         // of the mappings, one for each of these stretches
	others  []stretch        // of the other entries
	block   []byte           // room for values, the caller's once they are in it
	stopped *atomic.Bool     // nobody wants the rows any more; may be nil
}

// row is the value of an entry, or why it can't be had.
type row struct {
	value []byte
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
	c.keys.Text = ""
	c.entries, c.rows, c.block, c.most, c.lost = c.entries[:0], c.rows[:0], nil, 0, nil
	if len(c.lines) <= chunkBytes {
		chunks.Put(c)
	}
}

// fill is take for entries with rows, none of which is made yet.
func (c *chunk) fill(s *Snapshot, w *index.Walk, n int) {
	c.take(s, w, n)
	c.at, c.end, c.made = 0, 0, 0
	c.rows = slices.Grow(c.rows[:0], len(c.entries))[:len(c.entries)]
	clear(c.rows)
}

// take takes the next n entries of a walk that are not hidden: at least one unless
// there is none.
func (c *chunk) take(s *Snapshot, w *index.Walk, n int) {
	all := 0
	for {
		c.entries, c.lost = w.Next(c.entries[:0], n)
		all = len(c.entries)
		c.most = max(c.most, all)
		for i := range c.entries {
			if c.entries[i].Expires != 0 { // few stores have such
				c.entries = slices.DeleteFunc(c.entries, func(e index.Entry) bool { return s.hidden(e.Expires) })
				break
			}
		}
		if c.lost != nil || all == 0 || len(c.entries) > 0 {
			break
		}
	}
	c.last = c.lost != nil || all == 0
}

// yield yields the rows, and false if the loop has ended.
func (c *chunk) yield(s *Snapshot, yield func(Entry, error) bool) bool {
	shut, closed := s.core.ended, &s.closed
	for i := range c.entries {
		if i == c.end {
			clear(c.rows[:i]) // long values are not held until the chunk ends
			c.next(s)
		}
		if shut.Load() || closed.Load() {
			yield(Entry{}, ErrClosed)
			return false
		}
		e, r := &c.entries[i], &c.rows[i]
		entry := Entry{Key: e.Key, Value: r.value, Seq: e.Seq}
		if e.Expires != 0 && r.err == nil {
			entry.Expires = timeOf(e.Expires)
		}
		if !yield(entry, r.err) {
			return false
		}
	}
	if c.lost != nil {
		yield(Entry{}, s.core.indexError(c.lost))
		return false
	}
	return true
}

// next makes the next rows, and returns false if there are none left or nobody wants
// them. Of a snapshot that has ended they are nothing.
func (c *chunk) next(s *Snapshot) bool {
	c.at = c.end
	for most := c.made + chunkBytes; c.end < len(c.entries) && c.end-c.at < readRows && c.made < most; c.end++ {
		c.made += int(c.entries[c.end].Len)
	}
	if c.at == c.end || c.stopped != nil && c.stopped.Load() {
		return false
	}
	c.read(s)
	c.decode(s)
	return true
}

// read gets the lines of the rows, unless the snapshot has ended: first it finds out
// where they lie, then it copies them. So many of them are on their way from memory at
// the same time.
func (c *chunk) read(s *Snapshot) {
	clear(c.held[:c.end-c.at])
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
		c.readOther(s, &c.others[i])
	}
}

// plan divides the entries into stretches and gives each its place. Those with a long
// line are read alone, to a place of their own.
func (c *chunk) plan(s *Snapshot) {
	c.mapped, c.parts, c.others = c.mapped[:0], c.parts[:0], c.others[:0]
	var f *segmentFile
	need := 0
	for first := c.at; first < c.end; {
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
	for ; first+n < c.end && end-start < chunkBytes; n++ {
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
			c.held[i-c.at] = c.lines[t.at+at : t.at+end]
		case at <= n: // this is the line that can't be read
			c.rows[i].err = s.core.readError(t.f, *e, err)
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
		c.held[i-c.at] = c.lines[at : at+int(e.Len)]
	}
}

// decode checks the rows' lines, where they have one, and takes the values out.
func (c *chunk) decode(s *Snapshot) {
	for i, line := range c.held[:c.end-c.at] {
		if line == nil {
			continue
		}
		e, r := &c.entries[c.at+i], &c.rows[c.at+i]
		value, own, err := segment.PutValue(line, e.Seq, e.Key)
		switch {
		case err != nil:
			r.err = s.core.damaged(s.version.byID[e.Segment], *e, err)
		case own:
			r.value = value
		default:
			r.value = c.keep(value, c.end-c.at-i)
		}
	}
}

// readAlone reads n rows from number i on one by one.
func (c *chunk) readAlone(s *Snapshot, f *segmentFile, i, n int) {
	d := desks.Get().(*desk)
	defer desks.Put(d)
	for last := i + n; i < last; i++ {
		entry, err := s.core.read(f, c.entries[i], d)
		c.rows[i].value, c.rows[i].err = entry.Value, err
	}
}

// keep copies a value to where it is the caller's; left is how many rows may share
// the memory.
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
