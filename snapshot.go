package annals

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"sync/atomic"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
)

// Snapshot is the state of a store at one moment: what has expired, too, is
// decided by that moment. It is safe for concurrent use and must be closed. Its
// methods return ErrClosed after that, and after the store was closed.
type Snapshot struct {
	core    *core
	version *version // nil if the store was closed already
	lane    int      // in which version is held
	index   *index.Snapshot
	now     int64
	closed  atomic.Bool
}

// Seq is the number of the newest record in the snapshot. Watch from Seq()+1
// gives what came after it.
func (s *Snapshot) Seq() uint64 {
	if s.version == nil {
		return 0
	}
	return s.index.Last()
}

// Close lets go of the segments that only this snapshot needs. Closing twice
// does nothing.
func (s *Snapshot) Close() error {
	if !s.closed.Swap(true) && s.version != nil {
		s.version.leave(s.lane)
	}
	return nil
}

// ended tells whether the snapshot can't be read any more.
func (s *Snapshot) ended() bool {
	return s.closed.Load() || s.version == nil || s.core.isClosed()
}

// enter makes sure that the segments stay until leave, or returns false if the
// snapshot has ended. It counts first and then looks: if Close has not been there,
// the snapshot's own hold was in the lane still when this one came to it.
func (s *Snapshot) enter() bool {
	if s.version == nil {
		return false
	}
	s.version.lanes[s.lane].holders.Add(1)
	if s.ended() {
		s.leave()
		return false
	}
	return true
}

func (s *Snapshot) leave() { s.version.leave(s.lane) }

func (s *Snapshot) hidden(expires int64) bool { return expires != 0 && s.now >= expires }

// Get returns the value of a key, or ErrNotFound. The slice is the caller's.
func (s *Snapshot) Get(key string) ([]byte, error) {
	e, err := s.Lookup(key)
	return e.Value, err
}

// Lookup returns the value of a key with its sequence number and expiry, or
// ErrNotFound.
func (s *Snapshot) Lookup(key string) (Entry, error) {
	if !s.enter() {
		return Entry{}, ErrClosed
	}
	defer s.leave()
	e, ok, err := s.index.Get(key)
	if err != nil {
		return Entry{}, s.core.indexError(err)
	}
	if !ok || s.hidden(e.Expires) {
		return Entry{}, fmt.Errorf("%w: key %q", ErrNotFound, key)
	}
	d := desks.Get().(*desk)
	defer desks.Put(d)
	return s.core.read(s.version.byID[e.Segment], e, d)
}

// bounds gives the range as two keys, the second not included and "" for none;
// empty is true if no key can be in it.
func (r Range) bounds() (from, to string, empty bool) {
	from, to = r.From, r.To
	if r.Prefix != "" {
		from = max(from, r.Prefix)
		if end := index.PrefixEnd(r.Prefix); end != "" && (to == "" || end < to) {
			to = end
		}
	}
	return from, to, to != "" && from >= to
}

// span is a Window with every bound filled in; times in microseconds. Samples are
// kept to the microsecond, rounded down, so one is not before a bound iff its time
// is not before the bound rounded up.
type span struct {
	first, last  uint64 // both included
	since, until int64  // until not included
}

func (w Window) span(newest uint64) span {
	p := span{first: w.FromSeq, last: newest, since: math.MinInt64, until: math.MaxInt64}
	if w.ToSeq != 0 {
		p.last = min(p.last, w.ToSeq)
	}
	if !w.Since.IsZero() {
		p.since = ceilMicros(w.Since)
	}
	if !w.Until.IsZero() {
		p.until = ceilMicros(w.Until)
	}
	return p
}

func (p span) holds(v *segment.View) bool {
	return v.Seq >= p.first && v.Seq <= p.last && v.At >= p.since && v.At < p.until
}

// Samples yields the samples of a series in a window. Damage is yielded as an
// error, and the loop may go on behind it.
func (s *Snapshot) Samples(series string, w Window) iter.Seq2[Sample, error] {
	if series == "" { // it names none: to the index it means all
		return func(func(Sample, error) bool) {}
	}
	return s.samples(series, w)
}

// AllSamples yields the samples of all series in a window, in the order of their
// numbers: the log is read once, where Samples of one series after the other would
// read it for each. Damage is yielded as an error, and the loop may go on behind it.
func (s *Snapshot) AllSamples(w Window) iter.Seq2[Sample, error] { return s.samples("", w) }

func (s *Snapshot) samples(series string, w Window) iter.Seq2[Sample, error] {
	return func(yield func(Sample, error) bool) {
		if s.ended() {
			yield(Sample{}, ErrClosed)
			return
		}
		count := 0
		p := w.span(s.index.Last())
		for b := range s.index.Blocks(series, p.first, p.last, p.since, p.until, w.Reverse) {
			found := s.block(b, series, p)
			if w.Reverse {
				slices.Reverse(found)
			}
			for _, f := range found {
				if f.err == nil {
					count++
				}
				if !yield(f.Sample, f.err) || f.err == ErrClosed || count > 0 && count == w.Limit {
					return
				}
			}
		}
	}
}

// found is a sample of a block, or damage in its place.
type found struct {
	Sample
	err error
}

// block reads a block and returns the samples of the series in it, "" for all, and the
// damage between them. Of a damaged block, and of one with another number of samples than
// the index has counted, something is said even if all its lines are whole: then one
// is missing, or lies where it does not belong.
func (s *Snapshot) block(b index.Block, series string, p span) (list []found) {
	if !s.enter() {
		return []found{{err: ErrClosed}}
	}
	defer s.leave()
	f := s.version.byID[b.Segment]
	said := false
	fail := func(err error) {
		list, said = append(list, found{Sample{Series: series}, err}), true
	}
	last, end, count := uint64(0), b.Start, 0
	scan := segment.NewScanner(f, b.Start, b.End)
	for scan.Scan() {
		l := scan.Line()
		v := &l.View
		end = l.End()
		switch {
		case l.Kind == segment.BadLine:
			fail(s.core.badLine(f, l))
		case l.Kind != segment.RecordLine:
		case v.Seq <= last || v.Seq < b.FirstSeq || v.Seq > b.LastSeq:
			fail(s.core.noted(&CorruptError{Path: f.path, Offset: l.Offset, Reason: "a record that does not belong here"}))
		default:
			last = v.Seq
			if v.Kind == segment.Sample {
				count++
			}
			if v.Kind == segment.Sample && p.holds(v) && (series == "" || v.NameIs(series)) {
				name := series
				if name == "" {
					name = v.Name()
				}
				list = append(list, found{Sample: Sample{Series: name, Seq: v.Seq, At: timeOfSample(v.At), Value: v.AppendValue(nil)}})
			}
		}
	}
	if err := scan.Err(); err != nil {
		fail(s.core.scanError(f, end, err))
	}
	if !said && (b.Damaged || count != b.Samples) {
		fail(&CorruptError{Path: f.path, Offset: b.Start, FirstSeq: b.FirstSeq, LastSeq: b.LastSeq, Reason: "lines are missing here, see Stats or Verify"})
	}
	return list
}

// noted notes damage and returns it.
func (c *core) noted(e *CorruptError) *CorruptError {
	c.noteDamage(e)
	return e
}

// scanError is what ended a scan behind offset end: that the file is shorter than
// it must be is damage.
func (c *core) scanError(f *segmentFile, end int64, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return c.noted(&CorruptError{Path: f.path, Offset: end, Reason: "the file ends before it should"})
	}
	return fmt.Errorf("annals: reading %q: %w", f.path, err)
}

// badLine is the error for a line that is not valid.
func (c *core) badLine(f *segmentFile, l *segment.Line) *CorruptError {
	return c.noted(&CorruptError{Path: f.path, Offset: l.Offset, Reason: l.Reason.Error()})
}

// Series yields all series by name. If damage may have cost samples, so that what
// it says of a series may not be all, it yields that as an error at the end.
func (s *Snapshot) Series() iter.Seq2[SeriesInfo, error] {
	return func(yield func(SeriesInfo, error) bool) {
		if s.ended() {
			yield(SeriesInfo{}, ErrClosed)
			return
		}
		for _, info := range s.index.Series() {
			if !yield(seriesInfo(info), nil) {
				return
			}
		}
		for _, e := range s.core.lost {
			if !yield(SeriesInfo{}, e) {
				return
			}
		}
	}
}
