package annals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
)

// signal tells waiting watchers that there is something new.
type signal struct {
	published atomic.Uint64 // the greatest number that watchers may be shown

	mu sync.Mutex
	ch chan struct{} // closed at the next news; nil if nobody waits
}

// publish shows all records up to seq.
func (s *signal) publish(seq uint64) {
	s.published.Store(seq)
	s.broadcast()
}

func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// next returns a channel that is closed at the next news. Look at published after
// the call, not before.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// Watch yields every record from number from on, once, in order, as it becomes
// durable, for ever: until the loop is left, ctx ends (its error is yielded once)
// or the store is closed (ErrClosed). from 0 means all that are left. A watcher
// never holds up a writer and never misses a record: it reads the log at its own
// pace. To resume, watch from the number behind the last one seen.
//
// If compaction has taken records from there on, the error is a *CompactedError
// that says where to go on; for the state itself take a Snapshot and watch from
// its Seq()+1. Beyond the next number the error is ErrAhead. Damage is yielded as a
// *CorruptError that says which records it has cost, and the loop may go on behind it;
// after every other error it ends.
func (s *Store) Watch(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		w := watcher{core: s.core, news: &s.news, history: s.history, durable: s.Durable, ctx: ctx, next: from}
		if err := w.start(); err != nil {
			yield(Record{}, err)
			return
		}
		w.run(yield, func() *core { return nil })
	}
}

// run yields records until the loop ends. again returns what to go on with when the
// segments were closed, if there is something.
func (w *watcher) run(yield func(Record, error) bool, again func() *core) {
	for {
		records, err := w.more()
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
		if err == ErrClosed {
			if c := again(); c != nil {
				w.core, w.segment = c, 0
				continue
			}
		}
		if err != nil && (!yield(Record{}, err) || !errors.Is(err, ErrCorrupt) || !w.passed) {
			return
		}
		w.passed = false
	}
}

// watcher is a cursor over the log.
type watcher struct {
	core    *core
	news    *signal
	history func() uint64
	durable func() uint64
	ctx     context.Context
	next    uint64 // the number that comes next

	segment uint64 // where the last line was ...
	offset  int64  // ... and the offset behind it

	idle   func() error // called before waiting, if not nil; its error ends the watching
	passed bool         // the error was damage, and next lies behind it
}

func (w *watcher) start() error {
	history := w.history()
	if w.next == 0 {
		w.next = history
	}
	switch published := max(w.news.published.Load(), w.durable()); {
	case w.next < history:
		return &CompactedError{First: history}
	case w.next > published+1:
		return fmt.Errorf("%w: watch from %d, the last record that can be shown is %d", ErrAhead, w.next, published)
	}
	return nil
}

// history is the number from which on every record is left, in order.
func (s *Store) history() uint64 {
	s.manifest.mu.Lock()
	defer s.manifest.mu.Unlock()
	return s.manifest.History
}

// more waits for records and reads the next few of them.
func (w *watcher) more() ([]Record, error) {
	published, err := w.wait()
	if err != nil {
		return nil, err
	}
	for {
		v := w.core.files.acquire()
		if v == nil {
			return nil, ErrClosed
		}
		b, found := w.core.index.Find(w.next)
		// After the search: compaction raises history before it takes blocks away. A
		// segment that we hold and that history covers has all its records.
		if history := w.history(); w.next < history {
			v.release()
			return nil, &CompactedError{First: history}
		}
		if !found || b.FirstSeq > published {
			// A recovery has left a gap in the numbers that ends at published.
			v.release()
			w.next = published + 1
			return nil, nil
		}
		f := v.byID[b.Segment]
		if f == nil { // a compaction came in between
			v.release()
			continue
		}
		records, err := w.read(f, b, published)
		v.release()
		return records, err
	}
}

// wait waits until there is a record to show.
func (w *watcher) wait() (published uint64, err error) {
	for {
		news := w.news.next()
		if err := w.ctx.Err(); err != nil {
			return 0, err
		}
		if w.core.isClosed() {
			return 0, ErrClosed
		}
		if published := w.news.published.Load(); published >= w.next {
			return published, nil
		}
		if w.idle != nil {
			if err := w.idle(); err != nil {
				return 0, err
			}
		}
		select {
		case <-news:
		case <-w.ctx.Done():
		}
	}
}

// read returns the records of a block from next to published. Where it continues
// the block that it read last, it begins behind the last line. Damage comes alone, once
// the records before it were returned; next is then behind what it has cost.
func (w *watcher) read(f *segmentFile, b index.Block, published uint64) (records []Record, err error) {
	from := b.Start
	if w.segment == b.Segment && w.offset > b.Start {
		from = min(w.offset, b.End)
	}
	end := from
	var damage *CorruptError
	scan := segment.NewScanner(f, from, b.End)
	for scan.Scan() && (damage == nil || len(records) == 0) {
		l := scan.Line()
		end = l.End()
		v := &l.View
		switch {
		case l.Kind == segment.BadLine:
			damage = cmp.Or(damage, w.core.badLine(f, l))
		case l.Kind != segment.RecordLine || v.Seq < w.next:
		case v.Seq > published && v.Seq <= b.LastSeq && len(records) > 0:
			return records, nil
		case damage != nil && v.Seq <= min(published, b.LastSeq):
			return nil, w.pass(damage, b.Segment, v.Seq, l.Offset)
		case v.Seq > published || v.Seq != w.next && v.Seq != b.FirstSeq: // numbers leave gaps between segments only
			damage = cmp.Or(damage, w.core.noted(&CorruptError{Path: f.path, Offset: l.Offset, Reason: "a record is missing before this line"}))
			if v.Seq <= min(published, b.LastSeq) && len(records) == 0 {
				return nil, w.pass(damage, b.Segment, v.Seq, l.Offset)
			}
		default:
			records = append(records, recordOf(v))
			w.next, w.segment, w.offset = v.Seq+1, b.Segment, l.End()
		}
	}
	if len(records) > 0 {
		return records, nil // what is wrong behind them comes next time
	}
	if err := scan.Err(); err != nil && damage == nil {
		if err = w.core.scanError(f, end, err); !errors.As(err, &damage) {
			return nil, err
		}
	}
	if damage == nil {
		damage = w.core.noted(&CorruptError{Path: f.path, Offset: b.Start, Reason: "records are missing here"})
	}
	return nil, w.pass(damage, b.Segment, max(min(published, b.LastSeq), w.next)+1, b.End)
}

// pass goes on at number next, which lies at an offset, and says what the damage before
// it has cost.
func (w *watcher) pass(damage *CorruptError, segment, next uint64, offset int64) error {
	lost := *damage
	lost.FirstSeq, lost.LastSeq = w.next, next-1
	w.next, w.segment, w.offset, w.passed = next, segment, offset, true
	return &lost
}

// recordOf is a line as Watch gives it.
func recordOf(v *segment.View) Record {
	r := Record{Seq: v.Seq, Kind: v.Kind, More: v.More}
	if v.Kind == segment.Sample {
		r.Series, r.At = v.Name(), timeOfSample(v.At)
	} else {
		r.Key, r.Expires = v.Name(), timeOf(v.Expires)
	}
	if v.Kind != segment.Delete {
		r.Value = v.AppendValue(nil)
	}
	return r
}
