package annals

import (
	"context"
	"fmt"
	"slices"

	"github.com/annalsdb/annals/segment"
	"github.com/annalsdb/annals/wal"
)

// Put gives key a value. When it returns nil under the default policy, the value
// is durable. Options: TTL, ExpiresAt, IfSeq, IfAbsent.
func (s *Store) Put(key string, value []byte, opts ...PutOption) error {
	b := s.batch()
	b.Put(key, value, opts...)
	_, err := s.applyOnce(b)
	return err
}

// Delete takes key away; that it is absent is no error. Options: IfSeq.
func (s *Store) Delete(key string, opts ...PutOption) error {
	b := s.batch()
	b.Delete(key, opts...)
	_, err := s.applyOnce(b)
	return err
}

// Append adds a sample to a series and returns its sequence number. Options: At.
func (s *Store) Append(series string, value []byte, opts ...AppendOption) (seq uint64, err error) {
	b := s.batch()
	if len(opts) == 0 {
		b.Append(series, value, At(s.opts.Now()))
	} else {
		b.Append(series, value, opts...)
	}
	return s.applyOnce(b)
}

// batch returns an empty batch, one of an earlier call if there is one. Where commits are
// visible before they are durable, its lines are made before the call ends.
func (s *Store) batch() *Batch {
	b, ok := s.batches.Get().(*Batch)
	if !ok {
		b = &Batch{}
	}
	b.borrows = s.opts.Sync != SyncAlways
	return b
}

// applyOnce applies a batch from s.batch and keeps its memory for the next call.
func (s *Store) applyOnce(b *Batch) (seq uint64, err error) {
	seq, err = s.Apply(b)
	clear(b.records)
	clear(b.special)
	b.Reset()
	s.batches.Put(b)
	return seq, err
}

// Apply makes all writes of a batch or none, and returns the sequence number of
// the last. An empty batch changes nothing and returns 0.
func (s *Store) Apply(b *Batch) (seq uint64, err error) {
	c, owner := s.queue(b, false)
	if owner {
		s.log.Lead()
	}
	return c.Wait(context.Background())
}

// Submit queues a batch and returns without waiting for it, unless more than 64
// MiB are queued or compaction has fallen far behind. Batches are made in the order
// of the calls. The batch may be used again at once.
func (s *Store) Submit(b *Batch) *Commit {
	c, owner := s.queue(b, true)
	if owner {
		go s.log.Run()
	}
	return &c
}

// Commit is a batch on its way. It is safe for concurrent use.
type Commit struct {
	c   *wal.Commit // to wait for; nil if there is nothing
	err error       // the outcome after that, decided already

	bytes int64 // of a transaction, in the log
}

// Wait waits until the batch is made, and returns the sequence number of its last
// write, or why it failed. The end of ctx ends the waiting, not the commit.
func (c *Commit) Wait(ctx context.Context) (seq uint64, err error) {
	if c.c != nil {
		if seq, err = c.c.Wait(ctx); err != nil {
			return 0, err
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	return seq, nil
}

// queue decides a batch and hands it to the log. owner is true if the caller must
// see to the log's work. Unless async, the caller waits for the outcome before the
// batch is used again, so that the commit may have the batch's own memory.
func (s *Store) queue(b *Batch, async bool) (_ Commit, owner bool) {
	if err := b.ready(s.opts.MaxValue, s.now); err != nil {
		return Commit{err: err}, false
	}
	s.compaction.wrote(bytesOf(b.records))
	s.submit.Lock()
	defer s.submit.Unlock()
	if s.shut {
		return Commit{err: ErrClosed}, false
	}
	if len(b.records) == 0 {
		return Commit{}, false
	}
	epoch := wal.AnyEpoch
	if b.conditional() {
		var latest *wal.Commit
		_, latest, epoch = s.log.Next()
		if err := s.check(b); err != nil {
			return Commit{c: latest, err: err}, false // once all that decided it is durable
		}
	}
	var c *wal.Commit
	if async {
		c = wal.NewCommit(slices.Clone(b.records))
		b.lent = true
	} else {
		c = wal.Renew(b.commit, b.records)
		b.commit = c
	}
	if after := b.after; after != nil {
		if after.err != nil {
			return Commit{err: after.err}, false
		}
		c.After = after.c
	}
	return Commit{c: c}, s.log.Submit(c, epoch)
}

// now returns the store's time and that of the wall clock, in microseconds.
func (s *Store) now() (store, wall int64) { return s.clock.now(), s.opts.Now().UnixMicro() }

// bytesOf is about what records will take in the log.
func bytesOf(records []wal.Record) (n int64) {
	for i := range records {
		n += records[i].LineBound()
	}
	return n
}

func (b *Batch) conditional() bool {
	for i := range b.special {
		if b.special[i].conditional {
			return true
		}
	}
	return false
}

// check holds the conditions of a batch against everything queued before it and,
// within the batch, the writes before.
func (s *Store) check(b *Batch) error {
	inBatch := map[string]bool{}
	conditions := b.special
	for i := range b.records {
		r := &b.records[i]
		if r.Kind == segment.Sample {
			continue
		}
		for len(conditions) > 0 && conditions[0].record < i {
			conditions = conditions[1:]
		}
		if len(conditions) > 0 && conditions[0].record == i && conditions[0].conditional {
			if inBatch[r.Name] {
				return fmt.Errorf("%w: key %q is written twice in the batch, and the second write has a condition", ErrConflict, r.Name)
			}
			have, err := s.present(r.Name)
			if err != nil {
				return err
			}
			if want := conditions[0].ifSeq; have != want {
				return conflict(r.Name, want, have)
			}
		}
		inBatch[r.Name] = true
	}
	return nil
}

func conflict(key string, want, have uint64) error {
	switch {
	case want == 0:
		return fmt.Errorf("%w: key %q exists, with sequence number %d", ErrConflict, key, have)
	case have == 0:
		return fmt.Errorf("%w: key %q is absent, sequence number %d was expected", ErrConflict, key, want)
	}
	return fmt.Errorf("%w: key %q has sequence number %d, not %d", ErrConflict, key, have, want)
}

// present is the sequence number of a key as the next write will find it, 0 if
// the key is absent.
func (s *Store) present(key string) (uint64, error) {
	seq := uint64(0)
	queued := s.pending.latest(key, func(r *wal.Record) {
		if isPut(r) && !s.clock.expired(r.Expires) {
			seq = r.Seq
		}
	})
	if queued {
		return seq, nil
	}
	// What was queued may have become visible just now, so the index comes second.
	e, ok, err := s.index.Get(key)
	if err != nil || !ok || s.clock.expired(e.Expires) {
		return 0, s.indexError(err)
	}
	return e.Seq, nil
}

// Sync makes everything that was written before the call durable and returns the
// number of the last record. Under SyncAlways it waits for what is queued.
func (s *Store) Sync(ctx context.Context) (seq uint64, err error) {
	if s.isClosed() {
		return 0, ErrClosed
	}
	return s.log.Sync(ctx)
}
