package wal

import "time"

// armLocked has the buffer written and synced after d, if that is not so already.
func (l *Log) armLocked(d time.Duration) {
	if d <= 0 || l.mu.armed || l.mu.closed {
		return
	}
	l.mu.armed = true
	l.mu.timer = again(l.mu.timer, d, l.due)
}

// again has a timer that is not running, or a new one, call f after d.
func again(t *time.Timer, d time.Duration, f func()) *time.Timer {
	if t == nil {
		return time.AfterFunc(d, f)
	}
	t.Reset(d)
	return t
}

func (l *Log) due() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.armed = false
	if l.mu.closed || l.mu.failure != nil {
		return
	}
	if l.opts.Sync > 0 {
		l.syncSoonLocked()
	}
	if l.ownLocked() {
		go l.Run()
	}
}

// wroteLocked notes that a batch was written; when none follows for a second,
// rest is called.
func (l *Log) wroteLocked() {
	l.mu.lastBatch = time.Now()
	if l.mu.idle == nil && !l.mu.closed && l.opts.Sync >= 0 {
		l.mu.idle = time.AfterFunc(idleMark, l.rest)
	}
}

// rest writes a mark behind the last batch of a log at rest: the evidence that
// this batch, too, had been durable. Without it, damage to the last batch before
// a crash could not be told from a write that the crash cut short.
func (l *Log) rest() {
	l.mu.Lock()
	wait := idleMark - time.Since(l.mu.lastBatch)
	busy := l.mu.owned || l.mu.left || len(l.mu.queue) > 0 || len(l.mu.buffer) > 0 || l.durable.Load() != l.mu.next-1
	switch {
	case l.mu.closed || l.mu.failure != nil:
		l.mu.idle = nil
		l.mu.Unlock()
		return
	case wait > 0 || busy:
		l.mu.idle.Reset(max(wait, idleMark/10))
		l.mu.Unlock()
		return
	}
	l.mu.idle = nil // the next batch sets it again
	l.mu.spares = nil
	l.mu.lastNow = l.opts.Now()
	l.mu.owned = true
	if l.lazy() {
		b := &batch{seg: l.mu.plan.seg, start: l.mu.plan.off, sync: true}
		b.addMark(l.durable.Load(), l.mu.lastNow)
		l.mu.buffer = append(l.mu.buffer, b)
		l.mu.buffered += int64(len(b.lines))
		l.mu.plan.off += int64(len(b.lines))
		l.mu.Unlock()
		l.Run()
		return
	}
	b := &batch{seg: l.tail.seg, start: l.tail.end}
	b.addMark(l.durable.Load(), l.mu.lastNow)
	l.mu.Unlock()

	// A mark that finds no room does no harm: write has taken it back.
	written := l.tail.footer == nil && l.write(b) == nil
	if written {
		_ = l.sync() // a failure has been recorded by sync itself
	}
	l.mu.Lock()
	if !written {
		l.mu.lastNow = 0
	}
	more := l.releaseLocked()
	l.mu.Unlock()
	if more {
		l.Run()
	}
}

func (l *Log) stopTimersLocked() {
	if l.mu.timer != nil {
		l.mu.timer.Stop()
	}
	if l.mu.idle != nil {
		l.mu.idle.Stop()
	}
	if l.mu.watch != nil {
		l.mu.watch.Stop()
	}
}
