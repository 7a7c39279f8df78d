package wal

import (
	"context"
	"io"
	"time"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// plan is where the next buffered line will lie.
type plan struct {
	seg     *Segment
	off     int64
	records uint64
}

// bufferLocked assembles a commit's lines in the buffer and makes it visible.
// While the buffer can't be written for want of room no commit is taken, so that
// the buffer stays small and every writer hears of it.
func (l *Log) bufferLocked(c *Commit, epoch uint64) (owner bool) {
	for {
		if err := l.refusedLocked(c, epoch); err != nil {
			c.settle(err)
			return false
		}
		if l.mu.stuck != nil {
			if err := l.retryLocked(); err != nil {
				c.settle(err)
				return false
			}
			continue
		}
		if l.mu.buffered == 0 || l.mu.buffered+c.bytes <= maxBuffer {
			break
		}
		l.room.Wait()
	}
	l.numberLocked(c)
	b := l.batchLocked(c)
	before := len(b.lines)
	b.add(c, l.durable.Load())
	l.mu.plan.off = b.start + int64(len(b.lines))
	l.mu.plan.records += uint64(len(c.Records))
	l.mu.buffered += int64(len(b.lines) - before)
	l.mu.one[0] = c
	l.opts.Host.Visible(l.mu.one[:])
	l.mu.one[0] = nil
	l.commits.Add(1)
	l.records.Add(uint64(len(c.Records)))
	c.settle(nil)
	l.armLocked(l.opts.Sync)
	return l.ownLocked()
}

// retryLocked tries once more to write a buffer that found no room, or waits for
// whoever is at it.
func (l *Log) retryLocked() error {
	if l.ownLocked() {
		l.mu.Unlock()
		if l.step() {
			go l.Run()
		}
		l.mu.Lock()
		return l.mu.stuck
	}
	for l.mu.stuck != nil && l.mu.owned && !l.mu.closed {
		l.room.Wait()
	}
	return l.mu.stuck
}

// batchLocked returns the batch that takes the commit: the last one, or a new
// one if the owner has that, if it is long enough, if the segment is full or if
// a mark is due.
func (l *Log) batchLocked(c *Commit) *batch {
	p := &l.mu.plan
	if p.seg == nil || p.records > 0 && p.off+c.bytes > l.opts.SegmentSize {
		l.planLocked(c.first())
	}
	mark := l.markDueLocked(c.expiring)
	if n := len(l.mu.buffer); n > 0 && mark == 0 {
		if b := l.mu.buffer[n-1]; !b.taken && b.seg == p.seg && len(b.lines) < maxBatch/8 {
			return b
		}
	}
	b := &batch{seg: p.seg, start: p.off}
	if n := len(l.mu.spares); n > 0 {
		b.lines = l.mu.spares[n-1][:0]
		l.mu.spares = l.mu.spares[:n-1]
	} else if c.bytes > padUnit/16 && c.bytes <= maxBatch/8 {
		b.lines = make([]byte, 0, maxBatch/8+c.bytes+2*padUnit) // all that may come, instead of growing
	}
	if mark != 0 {
		b.addMark(l.durable.Load(), mark)
	}
	l.mu.buffer = append(l.mu.buffer, b)
	return b
}

// planLocked has the next lines lie in a new segment, which is made when the first
// of them is written.
func (l *Log) planLocked(first uint64) {
	seg := &Segment{Number: l.opts.Host.NewSegment(), First: first, log: l}
	h := segment.Header{Store: l.opts.Store, Segment: seg.Number, First: first}
	l.mu.plan = plan{seg: seg, off: int64(len(h.AppendLine(nil)))}
	l.opts.Host.Opened(seg)
}

// flush syncs, if it is time, and writes one batch of the buffer.
func (l *Log) flush() bool {
	l.mu.Lock()
	due := l.mu.syncDue && l.mu.failure == nil
	l.mu.syncDue = false
	l.mu.Unlock()
	if due && l.sync() == nil {
		l.syncedLazily()
	}
	l.mu.Lock()
	early := len(l.mu.buffer) == 1 && l.mu.buffered < fullBuffer && !l.mu.closed && !l.mu.buffer[0].sync
	l.mu.Unlock()
	if early {
		l.linger()
	}
	l.mu.Lock()
	if early && l.mu.closed && len(l.mu.cuts) == 0 {
		// Close writes the rest itself, and so is told if that fails.
		defer l.mu.Unlock()
		l.mu.owned = false
		l.room.Broadcast()
		return false
	}
	more := len(l.mu.buffer) > 0 && l.mu.failure == nil
	l.mu.Unlock()
	if more {
		_ = l.flushOne() // a failure is kept in stuck
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.releaseLocked()
}

// linger waits until some time has passed since the last write. Where writers come one
// after the other each write would carry a few lines: nine of ten processor cycles of
// the owner's would go into system calls and into waiting for the writers' lock, and
// the writers would wait for it too. The first write after a pause is not held up.
func (l *Log) linger() {
	if wait := writeGap - time.Since(l.lastFlush); wait > 0 {
		time.Sleep(wait)
	}
}

// syncSoonLocked has all that is buffered synced: as soon as the last batch of it
// is written, however much follows.
func (l *Log) syncSoonLocked() {
	if n := len(l.mu.buffer); n > 0 {
		l.mu.buffer[n-1].sync = true
		return
	}
	l.mu.syncDue = true
}

// flushOne writes the first batch of the buffer. If that fails the lines stay,
// visible, to be written before anything else.
func (l *Log) flushOne() error {
	l.mu.Lock()
	b := l.mu.buffer[0]
	b.taken = true
	l.mu.Unlock()
	err := l.place(b)
	l.lastFlush = time.Now()

	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.stuck = err
	if err != nil {
		l.armLocked(max(l.opts.Sync, 100*time.Millisecond))
		l.signalLocked()
		return err
	}
	if b.records > 0 {
		l.wroteLocked()
	}
	l.mu.buffer = l.mu.buffer[1:]
	l.mu.buffered -= int64(len(b.lines))
	l.mu.syncDue = l.mu.syncDue || b.sync
	if b.records > 0 && cap(b.lines) <= maxBatch/4 && len(l.mu.spares) < maxSpares {
		l.mu.spares = append(l.mu.spares, b.lines)
	}
	l.room.Broadcast()
	return nil
}

// place writes a batch where it was planned to lie.
func (l *Log) place(b *batch) error {
	if b.seg != l.tail.seg {
		if err := l.rotate(b.seg); err != nil {
			return err
		}
	}
	if err := l.write(b); err != nil {
		return err
	}
	l.hasten()
	if l.opts.Sync < 0 {
		l.opts.Host.Published(l.tail.last)
	}
	return nil
}

// hasten has the disk begin with what was written since it was last asked to, if
// that is much: a later sync, or the end of the segment, then finds most of it done. What
// is behind the last multiple of 64 KiB is left for the next time: the next batch is
// written there, and the kernel passes over memory that is on its way to the disk already,
// in pieces of any size.
// An error ends all writing, as that of the sync would.
func (l *Log) hasten() {
	t := &l.tail
	end := t.end &^ (padUnit - 1)
	if end-t.hastened < hastenBytes {
		return
	}
	if f, ok := t.seg.file.(replace.Hastener); ok {
		if err := f.StartWriteback(t.hastened, end-t.hastened); err != nil {
			_ = l.fail(err, true) // the batch is written: whoever syncs it will be told
		}
	}
	t.hastened = end
}

// syncedLazily tells that all that is written is durable.
func (l *Log) syncedLazily() {
	if !l.lazy() || l.durable.Load() >= l.tail.last {
		return
	}
	l.durable.Store(l.tail.last)
	l.opts.Host.Published(l.tail.last)
	l.told.Store(l.tail.last)
	l.mu.Lock()
	l.signalLocked()
	l.mu.Unlock()
}

// readBuffered reads lines of s, some of which may not be in the file yet.
func (l *Log) readBuffered(s *Segment, p []byte, off int64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	if filed := s.written.Load(); off < filed {
		var err error
		if n, err = s.file.ReadAt(p[:min(int64(len(p)), filed-off)], off); err != nil {
			return n, err
		}
	}
	for _, b := range l.mu.buffer {
		skip := off + int64(n) - b.start
		if b.seg == s && skip >= 0 && skip < int64(len(b.lines)) {
			n += copy(p[n:], b.lines[skip:])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Sync makes all records that were submitted before the call durable and returns
// the number of the last.
func (l *Log) Sync(ctx context.Context) (seq uint64, err error) {
	l.mu.Lock()
	target := l.mu.next - 1
	if latest := l.shareLocked(); !l.lazy() && latest != nil {
		l.resumeLocked()
		l.mu.Unlock()
		if _, err := latest.Wait(ctx); err != nil {
			return 0, err
		}
		return l.Durable(), nil
	}
	defer l.mu.Unlock()
	for l.settled() < target {
		if l.mu.failure != nil {
			return 0, &FailedError{Unknown: true, Err: l.mu.failure}
		}
		if err := l.urgeLocked(); err != nil {
			return 0, err
		}
		if l.mu.progress == nil {
			l.mu.progress = make(chan struct{})
		}
		progress := l.mu.progress
		if l.settled() >= target {
			break
		}
		l.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
			err = ctx.Err()
		}
		l.mu.Lock()
		if err != nil {
			return 0, err
		}
	}
	return l.durable.Load(), nil
}

// settled is the number up to which every record is durable, and others know it: what
// a compaction drops because of a record that it has waited for, readers in other
// processes must not miss before they may see that record.
func (l *Log) settled() uint64 {
	if l.lazy() {
		return l.told.Load()
	}
	return l.durable.Load()
}

// urgeLocked has the buffer written and synced now.
func (l *Log) urgeLocked() error {
	if l.mu.stuck != nil {
		if err := l.retryLocked(); err != nil {
			return err
		}
	}
	l.syncSoonLocked()
	if l.ownLocked() {
		go l.Run()
	}
	return nil
}

// signalLocked wakes those who wait in Sync.
func (l *Log) signalLocked() {
	if l.mu.progress != nil {
		close(l.mu.progress)
		l.mu.progress = nil
	}
	l.room.Broadcast()
}
