package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

// A queue holds moments until they are written, in bounded memory. What finds no room
// is dropped and counted: in its place, behind what is in the queue, stands a gap.
type queue struct {
	limit int // bytes

	mu struct {
		sync.Mutex
		list    []moment
		taken   int // how many of the list the writer is at
		bytes   int
		dropped int  // samples, since waiting was asked to begin anew
		full    bool // the disk, when it was written to last
		closed  bool
		change  chan struct{} // closed at the next change
	}
}

// A gap is that samples are missing: how many, and the times of the first and last.
type gap struct {
	samples     int
	first, last time.Time
}

// value is the gap as a sample.
func (g *gap) value() []byte {
	value, _ := json.Marshal(struct { // which always has a spelling
		Event   string      `json:"event"`
		Samples int         `json:"samples"`
		First   json.Number `json:"first"`
		Last    json.Number `json:"last"`
	}{"dropped", g.samples, unixSeconds(g.first), unixSeconds(g.last)})
	return value
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit}
	q.mu.change = make(chan struct{})
	return q
}

// changed wakes all who wait for a change; the caller holds the lock.
func (q *queue) changed() {
	close(q.mu.change)
	q.mu.change = make(chan struct{})
}

// put adds a moment, or drops it if there is no room.
func (q *queue) put(m moment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.putLocked(m)
}

func (q *queue) putLocked(m moment) {
	if q.mu.bytes+m.bytes <= q.limit {
		q.mu.list = append(q.mu.list, m)
		q.mu.bytes += m.bytes
		q.changed()
		return
	}
	// A gap that the writer is at, or that something came behind, is over.
	n := len(q.mu.list)
	if n == q.mu.taken || q.mu.list[n-1].gap == nil {
		q.mu.list = append(q.mu.list, moment{gap: &gap{first: m.at}})
		n++
		q.changed()
	}
	g := q.mu.list[n-1].gap
	g.samples += len(m.samples)
	g.last = m.at
	q.mu.dropped += len(m.samples)
}

// putWaiting is put for a source that can be made to wait: it waits for room, but not
// for room on the disk, nor longer than ctx.
func (q *queue) putWaiting(ctx context.Context, m moment) {
	for {
		q.mu.Lock()
		if q.mu.bytes+m.bytes <= q.limit || q.mu.full || m.bytes > q.limit {
			q.putLocked(m)
			q.mu.Unlock()
			return
		}
		change := q.mu.change
		q.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
			q.put(m)
			return
		}
	}
}

// mostMoments bounds how many moments are written at a time.
const mostMoments = 1024

// next waits until there are moments to write, or the queue is closed, and returns the
// first ones. They stay in the queue until done.
func (q *queue) next() (moments []moment, closed bool) {
	q.mu.Lock()
	for len(q.mu.list) == 0 && !q.mu.closed {
		change := q.mu.change
		q.mu.Unlock()
		<-change
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	q.mu.taken = min(len(q.mu.list), mostMoments)
	return q.mu.list[:q.mu.taken:q.mu.taken], q.mu.closed
}

// done takes the first n moments out of the queue: they are written. full says whether
// others could not be, for want of room on the disk.
func (q *queue) done(n int, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.mu.list[:n] {
		q.mu.bytes -= q.mu.list[i].bytes
		q.mu.list[i] = moment{} // the memory of its samples
	}
	if q.mu.list = q.mu.list[n:]; len(q.mu.list) == 0 {
		q.mu.list = nil
	}
	q.mu.taken, q.mu.full = 0, full
	q.mergeGaps()
	q.changed()
}

// mergeGaps makes the last two moments one if both are gaps: the writer was at the one
// when the other began.
func (q *queue) mergeGaps() {
	n := len(q.mu.list)
	if n < 2 || q.mu.list[n-1].gap == nil || q.mu.list[n-2].gap == nil {
		return
	}
	before, last := q.mu.list[n-2].gap, q.mu.list[n-1].gap
	before.samples += last.samples
	before.last = last.last
	q.mu.list = q.mu.list[:n-1]
}

// waiting returns how many samples wait, and how many have been dropped since reset.
func (q *queue) waiting(reset bool) (samples, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.mu.list {
		samples += len(m.samples)
	}
	dropped = q.mu.dropped
	if reset {
		q.mu.dropped = 0
	}
	return samples, dropped
}

// pause waits for some time, or until the queue is closed.
func (q *queue) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		q.mu.Lock()
		change, closed := q.mu.change, q.mu.closed
		q.mu.Unlock()
		if closed {
			return
		}
		select {
		case <-timer.C:
			return
		case <-change:
		}
	}
}

// close says that nothing more comes.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.closed = true
	q.changed()
}
