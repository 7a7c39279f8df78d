package annals

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
)

// core is what reading needs, whoever reads: an index, the segments that it
// points into, and the time.
type core struct {
	dir   string
	index *index.Index
	files *files
	clock *clock

	closed chan struct{} // closed by Close
	ended  *atomic.Bool  // before that, for who asks often

	lost []*CorruptError // damage that was there at Open and may have cost samples

	damage struct {
		sync.Mutex
		found []*CorruptError
	}
}

// maxDamage bounds the list of damage that Stats shows.
const maxDamage = 1000

// noteDamage keeps what a read has found for Stats.
func (c *core) noteDamage(e *CorruptError) {
	c.damage.Lock()
	defer c.damage.Unlock()
	for _, known := range c.damage.found {
		if *known == *e {
			return
		}
	}
	if len(c.damage.found) < maxDamage {
		c.damage.found = append(c.damage.found, e)
	}
}

func (c *core) isClosed() bool { return c.ended.Load() }

// Get returns the value of a key, or ErrNotFound. The slice is the caller's.
func (c *core) Get(key string) ([]byte, error) {
	e, err := c.Lookup(key)
	return e.Value, err
}

// Lookup returns the value of a key with its sequence number and expiry, or
// ErrNotFound.
func (c *core) Lookup(key string) (Entry, error) {
	d := desks.Get().(*desk)
	defer desks.Put(d)
	for {
		v := c.files.enter(d.lane)
		if v == nil {
			return Entry{}, ErrClosed
		}
		e, ok, err := c.index.Get(key)
		if err != nil {
			v.leave(d.lane)
			return Entry{}, c.indexError(err)
		}
		if !ok || c.clock.expired(e.Expires) {
			v.leave(d.lane)
			return Entry{}, fmt.Errorf("%w: key %q", ErrNotFound, key)
		}
		if f := v.byID[e.Segment]; f != nil {
			entry, err := c.read(f, e, d)
			v.leave(d.lane)
			return entry, err
		}
		v.leave(d.lane) // compaction has moved it; see files
	}
}

// indexError says where INDEX is damaged. The log has all that is in it.
func (c *core) indexError(err error) error {
	var damage *index.TableError
	if !errors.As(err, &damage) {
		return err
	}
	return c.noted(&CorruptError{
		Path: filepath.Join(c.dir, indexName), Offset: damage.Offset,
		Reason: damage.Reason + "; close the store, remove this file and open it again: it is made anew from the log",
	})
}

// desk is what a reader needs for a moment: a lane to hold a version in, and room
// for a line. Each processor has its own, or nearly so, by the ways of sync.Pool.
type desk struct {
	lane int
	line []byte
}

var desks = sync.Pool{New: func() any {
	return &desk{lane: int(madeDesks.Add(1) % lanes), line: make([]byte, 1<<10)}
}}

var madeDesks atomic.Uint32

// maxDesk is the longest line that is read to a desk. A longer one is read to a place
// of its own, in which the value stays.
const maxDesk = 32 << 10

// read reads the record that an index entry points to, and makes sure that it is
// that record. The line is copied before it is checked: a mapped file that somebody
// changes nevertheless can't change what was found right.
func (c *core) read(f *segmentFile, e index.Entry, d *desk) (Entry, error) {
	n := int(e.Len)
	if len(d.line) < n && n <= maxDesk {
		d.line = make([]byte, max(n, 2*len(d.line)))
	}
	line := d.line
	if n > len(line) {
		line = make([]byte, n)
	}
	line = line[:n]
	if _, err := f.ReadAt(line, int64(e.Offset)); err != nil {
		return Entry{}, c.readError(f, e, err)
	}
	var v segment.View
	if err := decodeAs(&v, line, &e); err != nil {
		return Entry{}, c.damaged(f, e, err)
	}
	entry := Entry{Key: e.Key, Seq: e.Seq, Expires: timeOf(e.Expires)}
	if value, plain := v.Plain(); plain && n > maxDesk && len(value) > n/2 {
		entry.Value = value
	} else {
		entry.Value = v.AppendValue(nil)
	}
	return entry, nil
}

// decodeAs decodes the line of the put that e means.
func decodeAs(v *segment.View, line []byte, e *index.Entry) error {
	err := v.Decode(line)
	if err == nil && (v.Kind != segment.Put || v.Seq != e.Seq || !v.NameIs(e.Key)) {
		err = segment.ErrOther
	}
	return err
}

// readError tells a file that is too short, which is damage, from one that can't
// be read.
func (c *core) readError(f *segmentFile, e index.Entry, err error) error {
	if errors.Is(err, io.EOF) {
		return c.damaged(f, e, errors.New("the file ends here"))
	}
	return fmt.Errorf("annals: reading %q at offset %d: %w", f.path, e.Offset, err)
}

func (c *core) damaged(f *segmentFile, e index.Entry, reason error) error {
	damage := &CorruptError{Path: f.path, Offset: int64(e.Offset), FirstSeq: e.Seq, LastSeq: e.Seq, Reason: reason.Error()}
	c.noteDamage(damage)
	return damage
}

// Scan yields the keys of a range with their values, as of the moment when the
// loop begins. A value that can't be read is yielded as an error with the
// entry's Key, and the loop may go on behind it. Of values and memory see
// Snapshot.Scan.
func (c *core) Scan(r Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		s := c.Snapshot()
		defer s.Close()
		s.Scan(r)(yield)
	}
}

// Samples yields the samples of a series in a window, as of the moment when the
// loop begins. Damage is yielded as an error, and the loop may go on behind it.
// A series that does not exist has no samples.
func (c *core) Samples(series string, w Window) iter.Seq2[Sample, error] {
	return func(yield func(Sample, error) bool) {
		s := c.Snapshot()
		defer s.Close()
		s.Samples(series, w)(yield)
	}
}

// Series yields all series by name. If damage may have cost samples, so that what
// it says of a series may not be all, it yields that as an error at the end.
func (c *core) Series() iter.Seq2[SeriesInfo, error] {
	return func(yield func(SeriesInfo, error) bool) {
		s := c.Snapshot()
		defer s.Close()
		s.Series()(yield)
	}
}

// Snapshot returns the present state, which later writes do not change. It costs
// nothing to take, and keeps the segments that it needs until it is closed.
func (c *core) Snapshot() *Snapshot {
	d := desks.Get().(*desk)
	defer desks.Put(d)
	for {
		v := c.files.enter(d.lane)
		if v == nil {
			return &Snapshot{core: c}
		}
		s := &Snapshot{core: c, version: v, lane: d.lane, index: c.index.Snapshot(), now: c.clock.now()}
		// If the version is still the current one, all of the index lies in it.
		if c.files.current.Load() == v {
			return s
		}
		v.leave(d.lane)
	}
}

// View calls fn with a snapshot and closes it. It returns fn's error.
func (c *core) View(fn func(*Snapshot) error) error {
	s := c.Snapshot()
	defer s.Close()
	return fn(s)
}
