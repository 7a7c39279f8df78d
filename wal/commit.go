package wal

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/annalsdb/annals/segment"
)

// Record is one record of a commit. The submitter fills in the first part, the
// log the second.
type Record struct {
	Kind    segment.Kind
	Name    string
	Expires int64
	At      int64
	Body    []byte // from segment.AppendBody; the log keeps it until the commit is done
	Value   []byte // of a Body from segment.AppendHead; else nil

	Seq     uint64
	Segment uint64 // where its line lies, once the commit is visible
	Offset  int64
	Len     int
}

// LineBound bounds the length of the record's line.
func (r *Record) LineBound() int64 {
	return int64(segment.MaxLineSize(len(r.Body) + len(r.Value) + 1))
}

// Commit is a group of records that become true together.
type Commit struct {
	Records []Record

	// After, if not nil, is a commit without which this one must not be made. It
	// was submitted before.
	After *Commit

	bytes    int64 // bound of its lines' length
	expiring bool
	err      error
	seq      uint64 // the number of its last record
	epoch    uint64 // of the log, when it was numbered
	shared   bool   // others than its maker may wait for it; guarded by the log's lock

	done  atomic.Bool   // the outcome is known
	token chan struct{} // gets one then; whoever has waited for it puts it back
}

// NewCommit makes a commit of at least one record.
func NewCommit(records []Record) *Commit { return Renew(nil, records) }

// Renew makes a commit of at least one record. It uses c again, if it can: one that
// the caller has made, that nobody else was given, and that is done, or nil. Most
// commits are of one record, so what they cost besides counts.
func Renew(c *Commit, records []Record) *Commit {
	if c == nil || c.shared || !c.done.Load() {
		c = &Commit{token: make(chan struct{}, 1)}
	}
	select {
	case <-c.token:
	default:
	}
	c.Records, c.After, c.err, c.epoch = records, nil, nil, 0
	c.bytes, c.expiring = 0, false
	c.done.Store(false)
	for i := range records {
		c.bytes += records[i].LineBound()
		c.expiring = c.expiring || records[i].Expires != 0
	}
	return c
}

// Wait waits, once Submit has returned, for the outcome: the number of the last record once the commit is
// visible, or why it failed. The end of ctx ends the waiting, not the commit.
func (c *Commit) Wait(ctx context.Context) (seq uint64, err error) {
	switch {
	case c.done.Load():
	case ctx.Done() == nil: // a plain receive is cheaper than a select
		<-c.token
		c.token <- struct{}{}
	default:
		select {
		case <-c.token:
			c.token <- struct{}{}
		case <-ctx.Done():
			if !c.known() {
				return 0, ctx.Err()
			}
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.seq, nil
}

// known tells whether there is an outcome: the token comes a moment before done is set,
// and others may have seen it.
func (c *Commit) known() bool {
	select {
	case <-c.token:
		c.token <- struct{}{}
		return true
	default:
		return c.done.Load()
	}
}

// failed returns why the commit failed, nil if it did not or is still on its way.
// That it was dropped before the log's present epoch may be known before it is done.
func (c *Commit) failed(epoch uint64, dropped error) error {
	if c.done.Load() {
		return c.err
	}
	if c.epoch != epoch {
		return dropped
	}
	return nil
}

func (c *Commit) first() uint64 { return c.Records[0].Seq }
func (c *Commit) last() uint64  { return c.seq }

// tell ends a commit for which somebody may wait. done comes last: once it is set
// the maker may use the commit again, with no token on its way.
func (c *Commit) tell(err error) {
	c.err = err
	c.token <- struct{}{}
	c.done.Store(true)
}

// settle ends a commit that Submit has not yet returned: nobody waits.
func (c *Commit) settle(err error) {
	c.err = err
	c.done.Store(true)
}

// AnyEpoch tells Submit that the commit does not depend on what is queued.
const AnyEpoch = ^uint64(0)

// Submit queues a commit, to be written in the order of the calls, and waits
// only while too much is queued. epoch is that of the Next by which the commit was
// decided: if queued commits have been dropped since, this one fails with them.
// If it returns true the log was idle, or the commit the last of those that were
// waited for, and the caller must see to the work, by
// Lead in its own time or by Run in a goroutine.
func (l *Log) Submit(c *Commit, epoch uint64) (owner bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lazy() {
		return l.bufferLocked(c, epoch)
	}
	for l.mu.queued > 0 && l.mu.queued+c.bytes > maxQueued && l.refusedLocked(c, epoch) == nil {
		l.room.Wait()
	}
	if err := l.refusedLocked(c, epoch); err != nil {
		c.settle(err)
		return false
	}
	l.numberLocked(c)
	l.mu.queue = append(l.mu.queue, c)
	l.waiting.Store(int64(len(l.mu.queue)))
	l.mu.queued += c.bytes
	l.mu.latest = c
	l.opts.Host.Queued(c)
	if l.mu.left && len(l.mu.queue) < l.expected && l.mu.queued < maxBatch {
		return false // the last of those who are expected will see to it
	}
	return l.ownLocked()
}

// Lead writes and syncs a batch that holds the caller's commit, without handing
// it to anybody, and leaves what came meanwhile to a goroutine. Where commits are
// visible before they are durable all of it is left to a goroutine.
func (l *Log) Lead() {
	if l.lazy() || l.step() {
		go l.Run()
	}
}

// refusedLocked says why a commit can't be taken.
func (l *Log) refusedLocked(c *Commit, epoch uint64) error {
	switch {
	case l.mu.closed:
		return ErrClosed
	case l.mu.failure != nil:
		return &FailedError{Err: l.mu.failure}
	case epoch != AnyEpoch && epoch != l.mu.epoch:
		return l.mu.dropped
	case c.After != nil && c.After.failed(l.mu.epoch, l.mu.dropped) != nil:
		return c.After.failed(l.mu.epoch, l.mu.dropped)
	case l.mu.next+uint64(len(c.Records)) > segment.MaxSeq:
		return fmt.Errorf("annals: no sequence numbers are left above %d", l.mu.next)
	}
	return nil
}

func (l *Log) numberLocked(c *Commit) {
	c.epoch, c.After = l.mu.epoch, nil
	for i := range c.Records {
		c.Records[i].Seq = l.mu.next
		l.mu.next++
	}
	c.seq = l.mu.next - 1
}

// ownLocked makes the caller the owner if there is none.
func (l *Log) ownLocked() bool {
	if l.mu.owned {
		return false
	}
	l.mu.owned, l.mu.left = true, false
	return true
}

// batch is what one write carries.
type batch struct {
	seg     *Segment
	start   int64 // offset
	lines   []byte
	first   uint64 // the number of its first record; 0 for a mark alone
	last    uint64
	records uint64
	commits []*Commit // under SyncAlways: who waits for it
	bytes   int64     // of the commits, as Submit counted them
	taken   bool      // the owner has it: no more lines
	sync    bool      // in the buffer: a sync is due behind it
}

// add appends the lines of a commit and notes where they lie. The first line of
// a batch says what is durable; a mark has said it already.
func (b *batch) add(c *Commit, durable uint64) {
	if b.records == 0 {
		b.first = c.first()
	}
	for i := range c.Records {
		r := &c.Records[i]
		dur := uint64(0)
		if len(b.lines) == 0 {
			dur = durable
		}
		at := len(b.lines)
		if more := i < len(c.Records)-1; r.Value == nil {
			b.lines = segment.AppendLine(b.lines, r.Seq, dur, more, r.Body)
		} else {
			b.lines = segment.AppendWhole(b.lines, r.Seq, dur, more, r.Body, r.Value)
		}
		r.Segment, r.Offset, r.Len = b.seg.Number, b.start+int64(at), len(b.lines)-at
	}
	b.last = c.last()
	b.records += uint64(len(c.Records))
}

// addMark begins a batch with a mark.
func (b *batch) addMark(durable uint64, now int64) {
	m := segment.Mark{Dur: durable, Now: now}
	b.lines = m.AppendLine(b.lines)
}
