package annals

import (
	"iter"
	"math"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
)

// How many rows of a scan are read at a time: few at first, for a loop that is left
// early, then more; from the third chunk on another goroutine reads ahead. Long
// values make a chunk end sooner.
const (
	firstChunk = 16
	moreChunk  = 64
	fullChunk  = 512
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
	count := 0
	for e, err := range s.index.Range(from, to, r.Reverse) {
		if err != nil {
			yield(Entry{}, s.core.indexError(err))
			return
		}
		if s.hidden(e) {
			continue
		}
		if s.ended() {
			yield(Entry{}, ErrClosed)
			return
		}
		count++
		if !yield(Entry{Key: e.Key, Seq: e.Seq, Expires: timeOf(e.Expires)}, nil) || count == r.Limit {
			return
		}
	}
}

// scanValues reads the first chunks itself.
func (s *Snapshot) scanValues(from, to string, r Range, yield func(Entry, error) bool) {
	left, size := math.MaxInt, firstChunk
	if r.Limit > 0 {
		left, size = r.Limit, min(r.Limit, moreChunk)
	}
	c := chunks.Get().(*chunk)
	defer c.free()
	var lost error
	for e, err := range s.index.Range(from, to, r.Reverse) {
		if err != nil {
			lost = s.core.indexError(err)
			break
		}
		if s.hidden(e) {
			continue
		}
		c.add(e)
		if len(c.entries) < min(size, left) && c.bytes < chunkBytes {
			continue
		}
		c.read(s)
		left -= len(c.entries)
		if !c.yield(s, yield) || left == 0 {
			return
		}
		if size == moreChunk {
			switch {
			case !r.Reverse:
				from = e.Key + "\x00"
			case e.Key == "":
				return // nothing lies before it, and "" would be no bound
			default:
				to = e.Key
			}
			s.scanAhead(from, to, r.Reverse, left, yield)
			return
		}
		size = moreChunk
		c.clear()
	}
	c.read(s)
	if c.yield(s, yield) && lost != nil {
		yield(Entry{}, lost)
	}
}

// scanAhead goes on with a goroutine that reads the next chunk while the rows of one
// are yielded. It ends before scanAhead returns, however the loop is left, and when
// the snapshot or the store is closed.
func (s *Snapshot) scanAhead(from, to string, reverse bool, left int, yield func(Entry, error) bool) {
	a := ahead{s: s, ready: make(chan *chunk, 1), read: make(chan *chunk, 3), stop: make(chan struct{})}
	go a.run(from, to, reverse, left)
	defer func() {
		a.stopped.Store(true)
		close(a.stop)
		for range a.ready { // until it is closed: then nobody is at work
		}
	}()
	for c := range a.ready {
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
// one that is ready, one of which the rows are yielded.
type ahead struct {
	s       *Snapshot
	ready   chan *chunk   // to be yielded
	read    chan *chunk   // that were yielded
	stop    chan struct{} // closed when the loop is left
	stopped atomic.Bool
	err     error // why there is no more; set before ready is closed
}

func (a *ahead) run(from, to string, reverse bool, left int) {
	defer close(a.ready)
	c := &chunk{stopped: &a.stopped}
	for e, err := range a.s.index.Range(from, to, reverse) {
		if err != nil {
			a.err = a.s.core.indexError(err)
			break
		}
		if a.s.hidden(e) {
			continue
		}
		c.add(e)
		if len(c.entries) < min(fullChunk, left) && c.bytes < chunkBytes {
			continue
		}
		if left -= len(c.entries); !a.hand(c) || left == 0 {
			return
		}
		select {
		case c = <-a.read:
			c.clear()
		default:
			c = &chunk{stopped: &a.stopped}
		}
	}
	a.hand(c)
}

// hand reads a chunk and hands it over. It returns false if nobody wants it.
func (a *ahead) hand(c *chunk) bool {
	c.read(a.s)
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
	rows    []row        // of the first entries: all, unless there was no reading on
	bytes   int          // of the lines of entries that are not yet decoded
	lines   []byte       // room for lines
	used    int          // of it
	block   []byte       // room for values, the caller's once they are in it
	stopped *atomic.Bool // nobody wants the rows any more; may be nil
}

// row is what was read for an entry: the line, which is not yet checked, or the value
// of a long one, or why it can't be had.
type row struct {
	line  []byte
	value []byte
	err   error
}

// chunks are the first ones of scans that have ended: a short scan would take much of
// its time to make room for its rows.
var chunks = sync.Pool{New: func() any { return new(chunk) }}

// free gives a chunk back without what belongs to the caller or the index.
func (c *chunk) free() {
	clear(c.entries[:cap(c.entries)])
	clear(c.rows[:cap(c.rows)])
	c.clear()
	c.block = nil
	if len(c.lines) <= chunkBytes {
		chunks.Put(c)
	}
}

func (c *chunk) add(e index.Entry) {
	c.entries = append(c.entries, e)
	c.bytes += int(e.Len)
}

func (c *chunk) clear() {
	c.entries, c.rows, c.bytes, c.used = c.entries[:0], c.rows[:0], 0, 0
}

// yield checks and yields the rows, and false if the loop has ended. Of a long scan
// it is the loop's goroutine that checks, while the other one fetches the next lines:
// they have about as much to do.
func (c *chunk) yield(s *Snapshot, yield func(Entry, error) bool) bool {
	for i := range c.entries {
		if s.ended() {
			yield(Entry{}, ErrClosed)
			return false
		}
		e, r := &c.entries[i], &c.rows[i]
		if r.line != nil {
			c.decode(s, e, r)
		}
		entry := Entry{Key: e.Key, Value: r.value, Seq: e.Seq}
		if r.err == nil {
			entry.Expires = timeOf(e.Expires)
		}
		if !yield(entry, r.err) {
			return false
		}
	}
	return true
}

// read reads the rows of all entries, unless the snapshot has ended or the loop was
// left. Lines that lie behind each other in a file, as compaction leaves them, are
// copied at once.
func (c *chunk) read(s *Snapshot) {
	if !s.enter() {
		return
	}
	defer s.leave()
	c.makeRoom()
	for first := 0; first < len(c.entries) && !(c.stopped != nil && c.stopped.Load()); {
		start, size, n := c.run(first)
		c.readRun(s, c.entries[first:first+n], start, size)
		first += n
	}
}

// run returns how many of the entries from first on lie behind each other, forwards or
// backwards, and where.
func (c *chunk) run(first int) (start int64, size, n int) {
	e := &c.entries[first]
	start, end := int64(e.Offset), int64(e.Offset)+int64(e.Len)
	for n = 1; first+n < len(c.entries) && end-start < chunkBytes; n++ {
		next := &c.entries[first+n]
		from, to := int64(next.Offset), int64(next.Offset)+int64(next.Len)
		switch {
		case next.Segment != e.Segment:
			return start, int(end - start), n
		case from == end:
			end = to
		case to == start:
			start = from
		default:
			return start, int(end - start), n
		}
	}
	return start, int(end - start), n
}

// makeRoom makes room for all lines but those that are read alone.
func (c *chunk) makeRoom() {
	need := 0
	for i := range c.entries {
		if n := int(c.entries[i].Len); n <= maxDesk {
			need += n
		}
	}
	if len(c.lines) < need {
		c.lines = make([]byte, max(need, 2*len(c.lines)))
	}
}

// readRun reads the lines of entries that lie behind each other.
func (c *chunk) readRun(s *Snapshot, entries []index.Entry, start int64, size int) {
	f := s.version.byID[entries[0].Segment]
	if size > len(c.lines)-c.used { // there is a long one among them
		c.readAlone(s, f, entries)
		return
	}
	lines := c.lines[c.used : c.used+size : c.used+size]
	c.used += size
	n, err := f.ReadAt(lines, start)
	for i := range entries {
		e := &entries[i]
		at := int(int64(e.Offset) - start)
		switch end := at + int(e.Len); {
		case err == nil || end <= n:
			c.rows = append(c.rows, row{line: lines[at:end]})
		case at <= n: // this is the line that can't be read
			c.rows = append(c.rows, row{err: s.core.readError(f, *e, err)})
		default:
			c.readAlone(s, f, entries[i:i+1])
		}
	}
}

// decode checks a line and takes the value out of it.
func (c *chunk) decode(s *Snapshot, e *index.Entry, r *row) {
	v, err := decodeAs(r.line, e)
	if err != nil {
		r.err = s.core.damaged(s.version.byID[e.Segment], *e, err)
	} else {
		r.value = c.keep(&v)
	}
	r.line = nil
	c.bytes -= int(e.Len)
}

// readAlone reads rows one by one.
func (c *chunk) readAlone(s *Snapshot, f *segmentFile, entries []index.Entry) {
	d := desks.Get().(*desk)
	defer desks.Put(d)
	for _, e := range entries {
		entry, err := s.core.read(f, e, d)
		c.rows = append(c.rows, row{value: entry.Value, err: err})
		c.bytes -= int(e.Len)
	}
}

// keep copies a value to where it is the caller's.
func (c *chunk) keep(v *segment.View) []byte {
	value, plain := v.Plain()
	if !plain || len(value) > maxBlock/4 {
		return v.AppendValue(nil)
	}
	n := len(c.block)
	if cap(c.block)-n < len(value) {
		c.block, n = make([]byte, 0, min(maxBlock, c.bytes)), 0
	}
	c.block = append(c.block, value...)
	return c.block[n:len(c.block):len(c.block)]
}
