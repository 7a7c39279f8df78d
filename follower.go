package annals

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/annalsdb/annals/replace"
)

// follower is the goroutine that refreshes a reader while somebody wants it: Follow,
// or a Watch that waits.
type follower struct {
	mu    sync.Mutex
	users int
	stop  chan struct{} // nil unless it runs
	done  chan struct{}
	wake  replace.Notices
}

// How a follower looks for news. It is woken when something is written to the
// directory: that is before the sync, so it looks again, at growing intervals, until
// the number that is durable has moved. A busy writer would wake it for each batch: it
// pauses after it has shown something, longer while there is news each time, and takes
// what has come meanwhile at once.
const (
	followPause = time.Millisecond
	longPause   = 5 * time.Millisecond
	lookFirst   = 50 * time.Microsecond
	lookOften   = 10 * time.Millisecond
	lookFor     = time.Second // so long after a write that has not shown anything yet
	lookSeldom  = 100 * time.Millisecond
	lookFailed  = 10 * time.Second // the longest pause after failures
)

// followOn begins to follow, or goes on.
func (r *Reader) followOn() {
	f := &r.follower
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
	if f.users > 1 || r.isClosed() {
		return
	}
	f.stop, f.done = make(chan struct{}), make(chan struct{})
	f.wake, _ = replace.NoticesIn(r.opts.FS, r.dir) // without, we look every now and then
	go r.follow(f.stop, f.done, f.wake)
}

// followOff ends the following if nobody else wants it.
func (r *Reader) followOff() {
	f := &r.follower
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users == 0 {
		f.endLocked()
	}
}

func (f *follower) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked()
}

func (f *follower) endLocked() {
	if f.stop == nil {
		return
	}
	close(f.stop)
	if f.wake != nil {
		f.wake.Close()
	}
	<-f.done
	f.stop = nil
}

func (r *Reader) isClosed() bool { return r.ended.Load() }

// follow refreshes the reader until stop.
func (r *Reader) follow(stop, done chan struct{}, wake replace.Notices) {
	defer close(done)
	p := pause{stop: stop, wake: wake}
	for {
		moved, err := r.refresh()
		if errors.Is(err, ErrClosed) || !p.next(moved, err != nil) {
			return
		}
	}
}

// pause decides when a follower looks again.
type pause struct {
	stop   chan struct{}
	wake   replace.Notices
	delay  time.Duration // until the next look
	since  time.Time     // of the first look that found nothing
	busy   time.Duration // the pause, while each look finds something
	failed time.Duration
}

// next waits. It returns false at stop.
func (p *pause) next(moved, failed bool) bool {
	switch {
	case failed:
		p.delay = 0
		p.failed = min(max(2*p.failed, lookSeldom), lookFailed)
		return p.sleep(p.failed)
	case moved:
		p.delay, p.failed = 0, 0
		p.busy = min(max(p.busy*3/2, followPause), longPause)
		return p.sleep(p.busy)
	case p.delay == 0: // nothing is known to be under way
		p.failed, p.busy = 0, 0
		return p.rest()
	}
	d := p.delay
	switch {
	case time.Since(p.since) > lookFor:
		return p.rest()
	case d < lookOften:
		p.delay *= 2
	}
	if d < time.Millisecond {
		replace.Nap(d)
		d = 0
	}
	return p.sleep(d)
}

// rest waits until something is written, or for a while.
func (p *pause) rest() bool {
	if p.wake == nil {
		return p.sleep(lookOften)
	}
	written, err := p.wake.Wait(lookSeldom)
	switch {
	case err != nil: // it was closed, or is of no use
		p.wake = nil
	case written && p.delay == 0:
		p.delay, p.since = lookFirst, time.Now()
	}
	return p.sleep(0)
}

func (p *pause) sleep(d time.Duration) bool {
	if d == 0 {
		select {
		case <-p.stop:
			return false
		default:
			return true
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.stop:
		return false
	case <-t.C:
		return true
	}
}

// Watch yields every record from number from on, as Store.Watch does, and goes on
// with what another process writes, once it is durable. It refreshes the reader while
// it waits, and is woken when something is written (Linux; elsewhere it looks a
// hundred times a second). If that fails the loop yields the error and ends; watch again
// to go on. Whoever is slower than the writer and its compaction gets a
// *CompactedError: Options.History of the writer says how many of the newest records
// are left for watchers.
func (r *Reader) Watch(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if from > r.news.published.Load()+1 {
			_ = r.Refresh() // start says what is wrong
		}
		state := r.now()
		w := watcher{core: state.core, news: &r.news, history: r.history, durable: r.news.published.Load, ctx: ctx, next: from}
		following := false
		defer func() {
			if following {
				r.followOff()
			}
		}()
		w.idle = func() error {
			if !following {
				if err := r.Refresh(); err != nil {
					return err
				}
				r.followOn()
				following = true
			}
			if err := r.failed.Load(); err != nil {
				return *err
			}
			return nil
		}
		if err := w.start(); err != nil {
			yield(Record{}, err)
			return
		}
		w.run(yield, func() *core {
			if now := r.now(); now != state && !r.isClosed() {
				state = now // it was read anew meanwhile
				return state.core
			}
			return nil
		})
	}
}

// history is the number from which on every record is left, in order.
func (r *Reader) history() uint64 { return r.now().shown.Load().manifest.History }
