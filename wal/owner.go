package wal

import (
	"runtime"
	"slices"
	"time"
)

// Run does the owner's work until there is none.
func (l *Log) Run() {
	for {
		l.gather()
		if !l.step() {
			return
		}
	}
}

// step does one piece of the owner's work and reports whether to go on; if not,
// it has given up ownership.
func (l *Log) step() bool {
	l.answerCuts()
	if l.lazy() {
		return l.flush()
	}
	return l.commit()
}

// gather waits a moment for as many commits as there were last time. Writers
// that were just told of their commit tend to come back within microseconds;
// without the wait half of them miss the next batch. Measured: 64 writers go
// from 85,000 to 139,000 commits a second. It waits while they keep coming: on a
// busy machine all of them may take longer than a fixed time, and one that is not
// back when the others are has something else to do. Measured there: waiting 50
// microseconds for the next one, 71,000 to 97,000. A lone writer expects nobody. A
// crowd that has been punctual for a while is left alone, see leaveLocked.
func (l *Log) gather() {
	switch {
	case l.expected <= 1:
	case l.allCome():
		l.punctual++
	default:
		l.punctual = 0
	}
}

// allCome waits for the commits that are expected, and tells whether all have come. It
// yields instead of sleeping, since no timer is that fine; only so often, since in
// a test's bubble (testing/synctest) time does not pass meanwhile.
func (l *Log) allCome() bool {
	start := time.Now()
	latest, have := start, l.waiting.Load()
	for range gatherYields {
		if l.waiting.Load() >= int64(l.expected) {
			return true
		}
		runtime.Gosched()
		n, now := l.waiting.Load(), time.Now()
		switch {
		case n != have:
			latest, have = now, n
		case now.Sub(latest) >= gatherGap:
			return false
		}
		if now.Sub(start) >= gatherMax {
			return false
		}
	}
	return false
}

// punctualLocked tells whether many writers are expected that have all come back in time,
// batch after batch, and are not all back yet.
func (l *Log) punctualLocked() bool {
	return l.punctual >= punctualAfter && l.expected >= crowd && len(l.mu.queue) < l.expected && !l.mu.closed
}

// leaveLocked leaves the log without an owner until all who are expected are back: the
// last of them, who is running on a processor already, becomes the owner by its Submit.
// An owner that waits for them by yielding would keep one processor from taking over
// what is queued for another, since it is always ready to run there itself; on two
// processors the writers then share one. Measured: 64 writers 1.1 times as fast with
// three quarters of the processor time. Two writers are slower this way, since a
// processor falls asleep.
//
// Whoever is not coming back is noticed by a timer, late, which is no finer than a
// millisecond where all processors sleep. So it is only done where that is rare.
func (l *Log) leaveLocked() {
	l.mu.owned, l.mu.left, l.mu.leaves = false, true, true
	if !l.mu.watched {
		l.mu.watched = true
		l.mu.watch = again(l.mu.watch, gatherWatch, l.late)
	}
}

// late looks now and then, while the log is left to a crowd, whether somebody is
// missing, and goes on without.
func (l *Log) late() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.left && time.Since(l.mu.lastBatch) >= gatherMax {
		l.expected, l.punctual = 0, 0
		l.resumeLocked()
	}
	l.mu.watched = l.mu.leaves && !l.mu.closed
	l.mu.leaves = l.mu.left
	if l.mu.watched {
		l.mu.watch.Reset(gatherWatch)
	}
}

// resumeLocked ends the waiting for a crowd.
func (l *Log) resumeLocked() {
	if l.mu.left && l.ownLocked() {
		go l.Run()
	}
}

// commit writes and syncs one batch of queued commits.
func (l *Log) commit() bool {
	l.mu.Lock()
	if len(l.mu.queue) == 0 {
		l.expected = 0
		defer l.mu.Unlock()
		return l.releaseLocked()
	}
	next, failure := l.mu.queue[0], l.mu.failure
	l.mu.Unlock()

	if failure != nil {
		return l.drop(nil, &FailedError{Err: failure})
	}

	if l.tail.full(next.bytes, l.opts.SegmentSize) {
		if err := l.advance(next.first()); err != nil {
			return l.drop(nil, err)
		}
	}
	b := l.assemble()
	if err := l.write(b); err != nil {
		return l.drop(b, err)
	}
	if err := l.sync(); err != nil {
		return l.drop(b, err)
	}
	return l.acknowledge(b)
}

// advance goes on in a new segment. After a failure the same number is tried
// again, since nothing has listed it.
func (l *Log) advance(first uint64) error {
	if l.number == 0 {
		l.number = l.opts.Host.NewSegment()
	}
	s := &Segment{Number: l.number, First: first, log: l}
	if err := l.rotate(s); err != nil {
		return err
	}
	l.number = 0
	l.opts.Host.Opened(s)
	return nil
}

// assemble takes the queued commits that fit into the segment, at least one, and
// makes their lines.
func (l *Log) assemble() *batch {
	l.mu.Lock()
	room := min(l.opts.SegmentSize-l.tail.end, maxBatch)
	n, expiring := 0, false
	for n < len(l.mu.queue) && (n == 0 || l.mu.queue[n].bytes <= room) {
		room -= l.mu.queue[n].bytes
		expiring = expiring || l.mu.queue[n].expiring
		n++
	}
	b := &l.batch
	*b = batch{seg: l.tail.seg, start: l.tail.end, lines: l.lines[:0], commits: l.mu.queue[:n:n]}
	rest := l.mu.queue[n:]
	l.mu.queue = append(l.spare[:0], rest...)
	l.spare = nil
	l.waiting.Store(int64(len(rest)))
	mark := l.markDueLocked(expiring)
	l.mu.Unlock()

	if cap(b.lines) == 0 {
		b.lines = make([]byte, 0, 2*padUnit) // a small batch and its padding
	}
	if mark != 0 {
		b.addMark(l.durable.Load(), mark)
	}
	for _, c := range b.commits {
		b.add(c, l.durable.Load())
		b.bytes += c.bytes
	}
	if cap(b.lines) <= 2*maxBatch {
		l.lines = b.lines
	}
	return b
}

// markDueLocked returns the time to record, 0 if there is no need: a batch with
// an expiry records the store's time, so that a clock set back later does not
// bring the key back; once a second is often enough.
func (l *Log) markDueLocked(expiring bool) int64 {
	if !expiring {
		return 0
	}
	now := l.opts.Now()
	if now-l.mu.lastNow < int64(time.Second/time.Microsecond) {
		return 0
	}
	l.mu.lastNow = now
	return now
}

// acknowledge makes a durable batch visible and tells its writers, some at a time:
// those who know run on, on another core, while the next commits become visible.
func (l *Log) acknowledge(b *batch) bool {
	l.commits.Add(uint64(len(b.commits)))
	l.records.Add(b.records)
	l.durable.Store(b.last)
	likely := len(b.commits) + int(l.waiting.Load()) // before the first of them is back
	cs := b.commits
	for ; len(cs) > tellAtOnce; cs = cs[tellAtOnce:] {
		l.show(cs[:tellAtOnce])
		for _, c := range cs[:tellAtOnce] {
			c.tell(nil)
		}
	}
	var last [tellAtOnce]*Commit
	n := copy(last[:], cs)
	l.show(cs)

	l.mu.Lock()
	l.mu.queued -= b.bytes
	l.expected = likely
	if len(l.mu.queue) == 0 {
		l.mu.latest = nil // it was among the last ones
	}
	clear(b.commits)
	l.spare = b.commits[:0]
	l.wroteLocked()
	l.room.Broadcast()
	more := l.releaseLocked()
	l.mu.Unlock()
	for _, c := range last[:n] {
		c.tell(nil)
	}
	return more
}

// show makes durable commits visible.
func (l *Log) show(cs []*Commit) {
	l.opts.Host.Visible(cs)
	l.opts.Host.Published(cs[len(cs)-1].last())
}

// releaseLocked gives up ownership unless there is, or is likely to be, work. A
// log that has failed still answers those who wait.
func (l *Log) releaseLocked() (more bool) {
	switch {
	case len(l.mu.cuts) > 0:
		return true
	case l.mu.failure == nil && l.punctualLocked():
		l.leaveLocked()
		return false
	case len(l.mu.queue) > 0:
		return true
	}
	if l.mu.failure == nil && (l.expected > 1 || l.mu.stuck == nil && (len(l.mu.buffer) > 0 || l.mu.syncDue)) {
		return true
	}
	l.mu.owned = false
	l.room.Broadcast()
	return false
}

// drop ends a batch that did not come about, and with it all that is queued
// behind it, since any of that may have been decided by what it saw queued. If
// the log goes on, the numbers are given back.
func (l *Log) drop(b *batch, err error) bool {
	l.mu.Lock()
	dropped, written := l.mu.queue, 0
	if b != nil {
		written = len(b.commits)
		dropped = slices.Concat(b.commits, dropped)
	}
	l.mu.queue, l.mu.queued, l.mu.latest = nil, 0, nil
	l.waiting.Store(0)
	if l.mu.failure == nil && len(dropped) > 0 {
		l.mu.next = dropped[0].first()
	}
	l.mu.lastNow = 0 // the mark, if there was one, was taken back too
	l.mu.epoch++
	l.mu.dropped = err
	if failed, ok := err.(*FailedError); ok {
		l.mu.dropped = &FailedError{Err: failed.Err}
	}
	l.opts.Host.Dropped(dropped)
	others := l.mu.dropped
	l.expected = 0
	l.room.Broadcast()
	more := l.releaseLocked()
	l.mu.Unlock()
	for i, c := range dropped {
		if i < written {
			c.tell(err)
		} else {
			c.tell(others)
		}
	}
	return more
}
