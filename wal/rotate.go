package wal

import (
	"context"
	"errors"
	"fmt"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// rotate ends the present segment, if there is one, and goes on in next, in the
// order of the package comment's steps. Each step may be tried again after it
// failed, unless the log has failed with it.
func (l *Log) rotate(next *Segment) error {
	if err := l.seal(); err != nil {
		return err
	}
	if err := l.create(next); err != nil { // 3
		return err
	}
	if err := l.install(l.tail.footer, next, next.First); err != nil { // 4
		file := next.file
		next.written.Store(0)
		next.file = nil
		if l.Failure() != nil {
			file.Close() // MANIFEST may list it, so it stays
			return err
		}
		return l.discard(l.path(next.Number), file, err)
	}
	l.begin(next)
	return nil
}

// Fail ends all writing for good, because a sync that the store depends on has
// failed elsewhere.
func (l *Log) Fail(err error) { _ = l.fail(err, false) }

// seal ends the present segment: from here on it never changes.
func (l *Log) seal() error {
	t := &l.tail
	if t.seg == nil || t.footer != nil {
		return nil
	}
	if err := l.sync(); err != nil { // 1
		return err
	}
	l.syncedLazily()
	if err := t.intact(); err != nil {
		return l.fail(err, false)
	}
	f := &segment.Footer{Segment: t.seg.Number, First: t.seg.First, Last: t.last, Records: t.records, Bytes: t.end, CRC: t.crc}
	err := t.seg.file.Truncate(t.end) // 2
	if err != nil {
		return err
	}
	t.size = t.end
	line := f.AppendLine(nil)
	if _, err := t.seg.file.WriteAt(line, t.end); err != nil {
		if failed := l.cutBack(err); failed != nil {
			return failed
		}
		return fmt.Errorf("annals: sealing segment %d: %w", f.Segment, err)
	}
	t.size += int64(len(line))
	l.syncs.Add(1)
	if err := t.seg.file.Sync(); err != nil {
		return l.fail(err, false)
	}
	t.footer = f
	t.seg.written.Store(t.size)
	return nil
}

// install lists the segments in MANIFEST. If its sync failed it is not known
// which MANIFEST is on disk, and the log fails.
func (l *Log) install(sealed *segment.Footer, open *Segment, seq uint64) error {
	err := l.opts.Host.Install(sealed, open, seq)
	var unsynced *replace.SyncError
	if errors.As(err, &unsynced) {
		return l.fail(err, false)
	}
	return err
}

// Rotate seals the present segment, if there is a record in it, and goes on in a
// new one.
func (l *Log) Rotate(ctx context.Context) error {
	l.mu.Lock()
	switch {
	case l.mu.closed:
		l.mu.Unlock()
		return ErrClosed
	case l.mu.failure != nil:
		defer l.mu.Unlock()
		return &FailedError{Err: l.mu.failure}
	}
	done := make(chan error, 1)
	l.mu.cuts = append(l.mu.cuts, done)
	if l.ownLocked() {
		go l.Run()
	}
	l.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answerCuts rotates for those who wait in Rotate.
func (l *Log) answerCuts() {
	l.mu.Lock()
	cuts, failure := l.mu.cuts, l.mu.failure
	l.mu.cuts = nil
	l.mu.Unlock()
	if len(cuts) == 0 {
		return
	}
	var err error
	if failure != nil {
		err = &FailedError{Err: failure}
	} else {
		err = l.cut()
	}
	for _, done := range cuts {
		done <- err
	}
}

// cut goes on in a new segment, whose first record is the first that is not yet
// written. Buffered lines have their place already and are written first.
func (l *Log) cut() error {
	if l.lazy() {
		return l.cutBuffer()
	}
	if l.tail.seg == nil || l.tail.records == 0 {
		return nil
	}
	l.mu.Lock()
	first := l.mu.next
	if len(l.mu.queue) > 0 {
		first = l.mu.queue[0].first()
	}
	l.mu.Unlock()
	return l.advance(first)
}

// cutBuffer plans the new segment first, so that there is an end to what must be
// written before it. One that is planned may also be left from a failed cut.
func (l *Log) cutBuffer() error {
	l.mu.Lock()
	if l.mu.plan.records > 0 {
		l.planLocked(l.mu.next)
	}
	next := l.mu.plan.seg
	l.mu.Unlock()
	for l.tail.seg != next {
		l.mu.Lock()
		ready := len(l.mu.buffer) == 0 || l.mu.buffer[0].seg == next
		l.mu.Unlock()
		if ready {
			return l.rotate(next)
		}
		if err := l.flushOne(); err != nil {
			return err
		}
	}
	return nil
}

// Close takes no more commits, finishes those that it has, and seals the last
// segment, so that the next Open finds a cleanly closed store. An error says
// what is lost; after one the store is found as after a crash. A log is closed
// once; any further Close is ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.mu.closed = true
	l.resumeLocked()
	for l.mu.owned {
		l.room.Wait()
	}
	l.mu.owned = true // for ever
	l.stopTimersLocked()
	failure := l.mu.failure
	l.mu.Unlock()

	if failure != nil {
		return l.lost(&FailedError{Err: failure})
	}
	for len(l.mu.buffer) > 0 {
		if err := l.flushOne(); err != nil {
			return l.lost(err)
		}
	}
	return l.finish()
}

// finish leaves no open segment: the last one is sealed, or removed if nothing
// was ever written to it.
func (l *Log) finish() error {
	t := &l.tail
	switch {
	case t.seg == nil:
		return nil
	case t.records > 0 || t.footer != nil:
		if err := l.seal(); err != nil {
			return err
		}
		return l.install(t.footer, nil, t.last+1)
	}
	if err := l.install(nil, nil, t.seg.First); err != nil {
		return err
	}
	return l.opts.FS.Remove(l.path(t.seg.Number))
}

// lost says which records a Close that failed could not save. Only records that
// were never said to be durable can be among them.
func (l *Log) lost(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.mu.next - 1; l.lazy() && last > l.durable.Load() {
		return fmt.Errorf("annals: records %d to %d were not made durable and may be lost: %w", l.durable.Load()+1, last, err)
	}
	return err
}
