package annals

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/annalsdb/annals/segment"
	"github.com/annalsdb/annals/wal"
)

// Update runs fn alone: no other write is queued meanwhile, fn sees everything
// queued before, and what it writes is made whole or not at all. fn runs once.
// Many Updates share a sync, since the next fn runs while the last one's writes
// are on their way. Update returns nil, or fn's error and then nothing was
// written, only once everything that fn saw is durable (under SyncEvery and
// SyncNever: buffered).
//
// Inside fn use the Tx only: a write to the store itself would wait for fn to
// end, for ever. The Tx is not to be used after fn returns.
func (s *Store) Update(fn func(*Tx) error) error {
	c, owner, err := s.runTx(fn)
	if err != nil {
		return err
	}
	defer s.compaction.wrote(c.bytes)
	if owner {
		s.log.Lead()
	}
	_, err = c.Wait(context.Background())
	return err
}

// runTx runs fn and queues what it wrote. The lock goes even if fn panics.
func (s *Store) runTx(fn func(*Tx) error) (_ *Commit, owner bool, err error) {
	s.submit.Lock()
	defer s.submit.Unlock()
	if s.shut {
		return nil, false, ErrClosed
	}
	next, latest, epoch := s.log.Next()
	tx := &Tx{s: s, next: next, now: s.clock.now(), wall: s.opts.Now().UnixMicro(), own: map[string]*Entry{}}
	defer func() { tx.over = true }()
	if err := fn(tx); err != nil {
		return &Commit{c: latest, err: err}, false, nil
	}
	if err := tx.batch.ready(s.opts.MaxValue, tx.clock); err != nil {
		return nil, false, err
	}
	if tx.batch.Len() == 0 {
		return &Commit{c: latest}, false, nil
	}
	c := wal.NewCommit(tx.batch.records)
	return &Commit{c: c, bytes: bytesOf(tx.batch.records)}, s.log.Submit(c, epoch), nil
}

// Tx is a transaction: the store as it will be when the transaction is made,
// its own writes included. It is for the goroutine that Update called.
type Tx struct {
	s       *Store
	next    uint64 // the number of its first write
	now     int64
	wall    int64
	batch   Batch
	own     map[string]*Entry // its writes; nil for a delete
	samples []Sample
	over    bool
}

// errTxOver is what a transaction answers after its function has returned.
var errTxOver = fmt.Errorf("%w: the transaction is over", ErrClosed)

// Put gives key a value. The error is that of a bad argument, or ErrConflict of
// IfSeq or IfAbsent; the transaction may go on after it.
func (tx *Tx) Put(key string, value []byte, opts ...PutOption) error {
	return tx.write(opts, key, func(b *Batch) { b.Put(key, value, opts...) })
}

// Delete takes key away; that it is absent is no error.
func (tx *Tx) Delete(key string, opts ...PutOption) error {
	return tx.write(opts, key, func(b *Batch) { b.Delete(key, opts...) })
}

// write adds one write to the transaction, after its conditions.
func (tx *Tx) write(opts []PutOption, key string, add func(*Batch)) error {
	if tx.over {
		return errTxOver
	}
	for _, opt := range opts {
		if opt.kind != optIfSeq {
			continue
		}
		if have, err := tx.present(key); err != nil {
			return err
		} else if have != uint64(opt.n) {
			return conflict(key, uint64(opt.n), have)
		}
	}
	var one Batch
	add(&one)
	if err := one.ready(tx.s.opts.MaxValue, tx.clock); err != nil {
		return err
	}
	tx.take(&one.records[0])
	tx.batch.records = append(tx.batch.records, one.records[0])
	tx.batch.bytes += one.bytes
	return nil
}

// clock gives all writes of the transaction one time.
func (tx *Tx) clock() (now, wall int64) { return tx.now, tx.wall }

// take makes a write visible to the transaction itself, with the number that it
// will have: nothing else can get a number in between.
func (tx *Tx) take(r *wal.Record) {
	r.Seq = tx.next + uint64(tx.batch.Len())
	switch r.Kind {
	case segment.Delete:
		tx.own[r.Name] = nil
	case segment.Put:
		e := entryOf(r)
		tx.own[r.Name] = &e
	case segment.Sample:
		tx.samples = append(tx.samples, sampleOf(r))
	}
}

// entryOf and sampleOf read a record that is not in a segment yet.
func entryOf(r *wal.Record) Entry {
	return Entry{Key: r.Name, Value: valueOf(r), Seq: r.Seq, Expires: timeOf(r.Expires)}
}

func sampleOf(r *wal.Record) Sample {
	return Sample{Series: r.Name, Seq: r.Seq, At: timeOfSample(r.At), Value: valueOf(r)}
}

func valueOf(r *wal.Record) []byte {
	v, err := segment.DecodeBody(r.Body)
	if err != nil {
		panic("annals: a record that was just encoded can't be decoded")
	}
	return v.AppendValue(nil)
}

// Append adds a sample to a series and returns the sequence number that it will
// have.
func (tx *Tx) Append(series string, value []byte, opts ...AppendOption) (seq uint64, err error) {
	if err := tx.write(nil, "", func(b *Batch) { b.Append(series, value, opts...) }); err != nil {
		return 0, err
	}
	return tx.next + uint64(tx.batch.Len()) - 1, nil
}

// present is the sequence number of a key for IfSeq.
func (tx *Tx) present(key string) (uint64, error) {
	if e, ok := tx.own[key]; ok {
		if e == nil || tx.hidden(e) {
			return 0, nil
		}
		return e.Seq, nil
	}
	return tx.s.present(key)
}

func (tx *Tx) hidden(e *Entry) bool { return !e.Expires.IsZero() && tx.now >= e.Expires.UnixMicro() }

// Get returns the value of a key, or ErrNotFound.
func (tx *Tx) Get(key string) ([]byte, error) {
	e, err := tx.Lookup(key)
	return e.Value, err
}

// Lookup returns the value of a key with its sequence number and expiry, or
// ErrNotFound.
func (tx *Tx) Lookup(key string) (Entry, error) {
	if tx.over {
		return Entry{}, errTxOver
	}
	e, ok := tx.own[key]
	if !ok {
		queued := tx.s.pending.latest(key, func(r *wal.Record) {
			if isPut(r) {
				entry := entryOf(r)
				e = &entry
			}
		})
		if !queued {
			return tx.s.Lookup(key)
		}
	}
	if e == nil || tx.hidden(e) {
		return Entry{}, fmt.Errorf("%w: key %q", ErrNotFound, key)
	}
	entry := *e
	entry.Value = slices.Clone(e.Value)
	return entry, nil
}

// overlay returns what is queued or written by the transaction itself, keys (nil
// for a delete) and samples in order. What becomes visible in the meantime is in
// both, and the same.
func (tx *Tx) overlay() (keys map[string]*Entry, samples []Sample) {
	keys = map[string]*Entry{}
	tx.s.pending.all(func(r *wal.Record) {
		switch r.Kind {
		case segment.Put:
			e := entryOf(r)
			keys[r.Name] = &e
		case segment.Delete:
			keys[r.Name] = nil
		case segment.Sample:
			samples = append(samples, sampleOf(r))
		}
	})
	maps.Copy(keys, tx.own)
	return keys, append(samples, tx.samples...)
}

// Scan yields the keys of a range with their values, the transaction's own writes
// up to the beginning of the loop included.
func (tx *Tx) Scan(r Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if tx.over {
			yield(Entry{}, errTxOver)
			return
		}
		keys, _ := tx.overlay()
		over := tx.inRange(keys, r)
		snapshot := tx.s.Snapshot() // after the overlay: nothing can fall between them
		defer snapshot.Close()
		count := 0
		emit := func(e Entry, err error) bool {
			count++
			return yield(e, err) && count != r.Limit
		}
		all := r
		all.Limit = 0
		for e, err := range snapshot.Scan(all) {
			for len(over) > 0 && beforeOrSame(over[0], e.Key, r.Reverse) {
				if e := keys[over[0]]; e != nil && !emit(cloneEntry(e, r.KeysOnly), nil) {
					return
				}
				over = over[1:]
			}
			if _, hidden := keys[e.Key]; !hidden && !emit(e, err) {
				return
			}
		}
		for _, key := range over {
			if e := keys[key]; e != nil && !emit(cloneEntry(e, r.KeysOnly), nil) {
				return
			}
		}
	}
}

// inRange returns the keys of the overlay that lie in a range, in its order;
// expired ones are marked deleted.
func (tx *Tx) inRange(keys map[string]*Entry, r Range) (in []string) {
	from, to, empty := r.bounds()
	for key, e := range keys {
		if e != nil && tx.hidden(e) {
			keys[key] = nil
		}
		if !empty && key >= from && (to == "" || key < to) {
			in = append(in, key)
		}
	}
	slices.Sort(in)
	if r.Reverse {
		slices.Reverse(in)
	}
	return in
}

func beforeOrSame(a, b string, reverse bool) bool {
	if reverse {
		return a >= b
	}
	return a <= b
}

func cloneEntry(e *Entry, keyOnly bool) Entry {
	c := *e
	c.Value = nil
	if !keyOnly {
		c.Value = append([]byte{}, e.Value...)
	}
	return c
}

// Samples yields the samples of a series in a window, the transaction's own
// included.
func (tx *Tx) Samples(series string, w Window) iter.Seq2[Sample, error] {
	return func(yield func(Sample, error) bool) {
		if tx.over {
			yield(Sample{}, errTxOver)
			return
		}
		_, samples := tx.overlay()
		snapshot := tx.s.Snapshot()
		defer snapshot.Close()
		p := w.span(segment.MaxSeq)
		over := slices.DeleteFunc(samples, func(s Sample) bool {
			v := segment.View{Seq: s.Seq, At: s.At.UnixMicro()}
			return s.Series != series || s.Seq <= snapshot.Seq() || !p.holds(&v)
		})
		count := 0
		emit := func(s Sample, err error) bool {
			count++
			return yield(s, err) && count != w.Limit
		}
		own := func() bool {
			if w.Reverse {
				slices.Reverse(over)
			}
			for _, s := range over {
				if !emit(s, nil) {
					return false
				}
			}
			return true
		}
		if w.Reverse && !own() {
			return
		}
		all := w
		all.Limit = 0
		for s, err := range snapshot.Samples(series, all) {
			if !emit(s, err) {
				return
			}
		}
		if !w.Reverse {
			own()
		}
	}
}

// Series yields all series by name, with what the transaction has appended.
func (tx *Tx) Series() iter.Seq2[SeriesInfo, error] {
	return func(yield func(SeriesInfo, error) bool) {
		if tx.over {
			yield(SeriesInfo{}, errTxOver)
			return
		}
		_, over := tx.overlay()
		sums := map[string]SeriesInfo{}
		last := uint64(0)
		err := tx.s.View(func(s *Snapshot) error {
			last = s.Seq()
			for info, err := range s.Series() {
				if err != nil {
					return err
				}
				sums[info.Name] = info
			}
			return nil
		})
		if err != nil {
			yield(SeriesInfo{}, err)
			return
		}
		for _, s := range over {
			if s.Seq > last {
				sums[s.Series] = sums[s.Series].with(s)
			}
		}
		for _, info := range slices.SortedFunc(maps.Values(sums), func(a, b SeriesInfo) int { return cmp.Compare(a.Name, b.Name) }) {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// with is the sums of a series with one more sample.
func (i SeriesInfo) with(s Sample) SeriesInfo {
	if i.Samples == 0 {
		i = SeriesInfo{Name: s.Series, FirstSeq: s.Seq, First: s.At, Last: s.At}
	}
	i.Samples++
	i.LastSeq = s.Seq
	if s.At.Before(i.First) {
		i.First = s.At
	}
	if s.At.After(i.Last) {
		i.Last = s.At
	}
	return i
}

func isPut(r *wal.Record) bool { return r.Kind == segment.Put }
