package annals

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/annalsdb/annals/compact"
	"github.com/annalsdb/annals/wal"
)

// How much of a store is dead decides how fast compaction works and, when it falls
// behind nevertheless, how fast writers may write. In times the live bytes, for the
// default MinLive:
//
//	1.5   from here on compaction works faster than Options.Compaction.Rate
//	1.8   from here on it works as fast as it can, and writers wait a little for each
//	      batch: see brake
//	2.1   from here on they write 1 MiB a second all together, which a lone durable writer
//	      hardly reaches, or wait for as long as brake lets them at the most
//
// INDEX is beside that, and twice while it is written: of short lines half of what is
// alive. A store that nobody writes to for a second is cleaned down to 1.3, a small one
// to 1.05.

const (
	wakeBytes   = 1 << 20     // how much is written until compaction looks again
	restAfter   = time.Second // a store that was not written to for so long is at rest
	minGarbage  = 1 << 20     // no segment is ended early for less
	restGarbage = 256 << 10   // nor by a store at rest
	restLive    = 0.77        // what MinLive is for a store at rest: at most 1.3 times the live bytes stay
	restSmall   = 0.95        // the same for a small one, which is soon written anew
	smallStore  = 2           // segments of live bytes: one job copies all of it, so it begins earlier,
	smallLive   = 0.67        // with a MinLive of this
)

// balance is what the segments hold that compaction may touch, in bytes.
type balance struct {
	total, live int64
	open        int64 // of total: of the segment that is being written
	openLive    int64
}

func (b balance) dead() int64 { return b.total - b.live }

// times is how many times the live bytes there are. Little garbage counts as none.
func (b balance) times() float64 {
	if b.dead() < minGarbage {
		return 1
	}
	return float64(b.total) / float64(max(b.live, 1))
}

// balance weighs the store.
func (s *Store) balance() (b balance) {
	p := s.policy()
	for _, st := range s.segmentStats() {
		if st.Last < p.KeepFrom {
			b.total += st.Bytes
			b.live += st.Live + st.Held
		}
	}
	if s.opts.History > 0 {
		return b // the newest records stay as they are
	}
	b.open, b.openLive = s.openBytes()
	b.total += b.open
	b.live += b.openLive
	return b
}

// openBytes is how long the lines of the segment that is being written are, and how
// many bytes of them matter.
func (s *Store) openBytes() (all, live int64) {
	v := s.files.acquire()
	if v == nil {
		return 0, 0
	}
	defer v.release()
	for _, f := range v.byID {
		seg, writing := f.ReaderAt.(*wal.Segment)
		if !writing || s.manifest.lists(seg.Number) {
			continue
		}
		u := s.index.Usage(seg.Number)
		all += max(seg.End()-f.header, 0)
		live += u.Entries + u.Samples + u.Tombstones
	}
	return all, live
}

// cleaning is what background compaction goes by. One that is told to keep more
// garbage than by default does so always.
func (s *Store) cleaning(b balance, rest bool) compact.Policy {
	p := s.policy()
	// A job's outputs are there beside its inputs for a while.
	p.JobBytes = min(max(b.live/8, s.opts.SegmentSize), compact.MaxJobSegments*s.opts.SegmentSize)
	small, least := b.live < smallStore*s.opts.SegmentSize, restLive
	if small {
		least = restSmall
	}
	switch {
	case p.MinLive < 0.5:
	case rest && b.dead() >= restGarbage && float64(b.live) < least*float64(b.total):
		p.MinLive = max(p.MinLive, least)
	case small && b.dead() >= minGarbage:
		p.MinLive = max(p.MinLive, smallLive)
	}
	return p
}

// endOpenSegment ends the segment that is being written if much of the store's garbage
// is in it, where compaction can't reach it: that of a store smaller than a segment,
// say.
func (s *Store) endOpenSegment(ctx context.Context, b balance, p compact.Policy, rest bool) (done bool, err error) {
	least := max(minGarbage, s.opts.SegmentSize/8, b.live/2)
	switch {
	case rest && b.live < smallStore*s.opts.SegmentSize:
		least = max(restGarbage, b.live/32)
	case rest:
		least = max(restGarbage, b.live/4)
	}
	if b.open-b.openLive < least || float64(b.openLive) >= p.MinLive*float64(b.open) {
		return false, nil
	}
	return true, s.log.Rotate(ctx)
}

// throttle returns a Pace that lets so many bytes a second pass as rate says, which
// is asked now and then; 0: as many as come.
func throttle(rate func() float64) func(context.Context, int) error {
	const slice, look = 32 << 10, 1 << 20
	var now float64
	due, bytes, looked := time.Now(), 0, look
	return func(ctx context.Context, n int) error {
		if bytes += n; bytes < slice {
			return nil
		}
		if looked += bytes; looked >= look {
			looked = 0
			now = rate()
		}
		slept := bytes
		bytes = 0
		if now == 0 {
			due = time.Now()
			return ctx.Err()
		}
		// A late timer is made up for. An fsync or a stall is not: compaction would run
		// for as long without a pause.
		if ago := time.Now().Add(-2 * time.Millisecond); due.Before(ago) {
			due = ago
		}
		due = due.Add(time.Duration(float64(slept) / now * float64(time.Second)))
		return sleep(ctx, time.Until(due))
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	faster = 0.75 // of what is not too much: compaction works faster from here on
	allOut = 0.9  // and as fast as it can from here
)

// adjust weighs the store and sets the brake. It returns how many bytes a second
// compaction may read; 0: as many as it can. reserve is what the job may write before
// its inputs go.
func (s *Store) adjust(reserve int64) float64 {
	b := s.balance()
	most := max(2, 1/s.opts.Compaction.MinLive) // what is not too much, by the policy
	times := b.times() / most
	b.total += reserve
	s.compaction.brake.set(b.times() - allOut*most)
	switch rate := float64(s.opts.Compaction.Rate); {
	case times < faster:
		return rate
	case times < allOut:
		return rate * (1 + 8*(times-faster)/(allOut-faster))
	}
	return 0
}

// brake slows writers down while compaction works and can't keep up. It never stops
// them: a batch waits for 20 ms and what it would take to write it at 8 MiB/s, at
// the most, and not at all once compaction is idle or has failed.
type brake struct {
	rate    atomic.Int64 // bytes a second that may be written; 0: as many as they like
	written atomic.Int64 // bytes

	mu   sync.Mutex
	free time.Time // when the next batch may go
}

const (
	brakeSpan = 0.3 // times the live bytes from the first touch to the slowest
	brakeFast = 48 << 20
	brakeSlow = 1 << 20
	brakeWait = 20 * time.Millisecond
	brakeMost = 8 << 20 // bytes a second
)

// set takes how far above the bound the store is, in times the live bytes.
func (b *brake) set(over float64) {
	if over <= 0 {
		b.release()
		return
	}
	left := 1 - min(over/brakeSpan, 1)
	b.rate.Store(brakeSlow + int64(left*left*(brakeFast-brakeSlow)))
}

func (b *brake) release() { b.rate.Store(0) }

// wait lets a batch of so many bytes wait for its turn. The rate is for all writers
// together; what they did not use of the last moment they have free.
func (b *brake) wait(bytes int64) {
	rate := b.rate.Load()
	if rate == 0 {
		return
	}
	b.mu.Lock()
	now := time.Now()
	if ago := now.Add(-brakeWait); b.free.Before(ago) {
		b.free = ago
	}
	b.free = b.free.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
	most := brakeWait + time.Duration(float64(bytes)/brakeMost*float64(time.Second))
	if latest := now.Add(most); b.free.After(latest) {
		b.free = latest
	}
	d := b.free.Sub(now)
	b.mu.Unlock()
	if d > time.Millisecond/2 { // less is not worth a timer
		time.Sleep(d)
	}
}

// wrote takes notice of a batch before it is queued.
func (c *compaction) wrote(bytes int64) {
	if n := c.brake.written.Add(bytes); n/wakeBytes != (n-bytes)/wakeBytes {
		c.wake()
	}
	c.brake.wait(bytes)
}

// resting waits until compaction is to look again, and tells whether the store is at
// rest. rested is the newest record when it was the last time.
func (s *Store) resting(tick <-chan time.Time, rested *uint64) (rest, closed bool) {
	c := &s.compaction
	last := s.index.Last()
	var quiet <-chan time.Time
	if last != *rested {
		quiet = time.After(restAfter)
	}
	select {
	case <-c.ctx.Done():
		return false, true
	case <-tick:
	case <-c.wakeup:
	case <-quiet:
		if rest = s.index.Last() == last; rest {
			*rested = last
		}
	}
	return rest, false
}

func liveOf(stats []compact.Stat, inputs []uint64) (live int64) {
	for i := range stats {
		if slices.Contains(inputs, stats[i].Segment) {
			live += stats[i].Live + stats[i].Held
		}
	}
	return live
}
