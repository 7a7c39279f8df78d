package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/annalsdb/annals"
)

// inFlight is how many commits a pipeline lets wait for their sync. The store
// bounds their bytes.
const inFlight = 16 << 10

// A pipeline writes commits to a store with many in flight, and acknowledges
// their ops in order as they become durable. The ways of a commit:
//
//	submit -> pending -> await: the store has taken it -> written -> acknowledge, tally: it is durable
//
// Each commit is made only if the one before it was, so a failure leaves no hole:
// nothing behind it is written, submitted or acknowledged.
type pipeline struct {
	store   *annals.Store
	sync    annals.SyncPolicy
	acks    *output // where to acknowledge; nil for nowhere
	pending chan pendingCommit
	written chan seqRange
	failed  chan struct{} // closed at the first failure
	stop    func()        // called then
	failure error         // of that failure; read it after failed is closed
	once    sync.Once
	last    *annals.Commit // of submit alone
	done    sync.WaitGroup
	ops     uint64 // known to be durable; read it after done
	durable uint64 // everything up to here is known to be durable; of acknowledge alone
}

type pendingCommit struct {
	commit *annals.Commit
	ops    int
}

// seqRange is the sequence numbers of one commit.
type seqRange struct{ first, last uint64 }

// errStopped is what submit gives after a failure, which finish then tells.
var errStopped = errors.New("the pipeline has stopped")

// newPipeline starts a pipeline. If acks is not nil, the sequence number of each
// op goes there, on a line of its own, as soon as the op is durable. stop is
// called at the first failure.
func newPipeline(store *annals.Store, sync annals.SyncPolicy, acks *output, stop func()) *pipeline {
	p := &pipeline{
		store:   store,
		sync:    sync,
		acks:    acks,
		pending: make(chan pendingCommit, inFlight),
		written: make(chan seqRange, inFlight),
		failed:  make(chan struct{}),
		stop:    stop,
	}
	p.done.Go(p.await)
	if acks != nil {
		p.done.Go(p.acknowledge)
	} else {
		p.done.Go(p.tally)
	}
	return p
}

// submit hands a commit to the store and does not wait for it. The batch may be
// used again at once.
func (p *pipeline) submit(b *annals.Batch) error {
	select {
	case <-p.failed:
		return errStopped
	default:
	}
	b.After(p.last)
	p.last = p.store.Submit(b)
	select {
	case p.pending <- pendingCommit{p.last, b.Len()}:
		return nil
	case <-p.failed:
		return errStopped
	}
}

// finish waits until everything submitted is durable and acknowledged. It
// returns how many ops are, and the first failure.
func (p *pipeline) finish() (ops uint64, err error) {
	close(p.pending)
	p.done.Wait()
	select {
	case <-p.failed:
		return p.ops, p.failure
	default:
		return p.ops, nil
	}
}

func (p *pipeline) fail(err error) {
	p.once.Do(func() {
		p.failure = err
		close(p.failed)
		p.stop()
	})
}

// await waits for each commit in turn. Cancelling would not take a commit back,
// so nothing cancels it.
func (p *pipeline) await() {
	defer close(p.written)
	for c := range p.pending {
		last, err := c.commit.Wait(context.Background())
		if err != nil {
			p.fail(err)
			return
		}
		p.written <- seqRange{last - uint64(c.ops) + 1, last}
	}
}

// acknowledge acknowledges each commit in turn, and passes the lines on whenever
// no other commit is ready.
func (p *pipeline) acknowledge() {
	var line []byte
	stopped := false
	for r := range p.written {
		if stopped {
			continue // what comes later is not durable either; await must not be held up
		}
		if err := p.settle(r.last); err != nil {
			p.fail(err)
			stopped = true
			continue
		}
		p.ops += r.last - r.first + 1
		for seq := r.first; seq <= r.last; seq++ {
			line = append(strconv.AppendUint(line[:0], seq, 10), '\n')
			p.acks.Write(line) // a failure shows at the next Flush
		}
		if len(p.written) == 0 {
			p.flush()
		}
	}
}

// tally counts the ops where nobody wants them acknowledged one by one: one sync
// at the end does for all.
func (p *pipeline) tally() {
	var last uint64
	for r := range p.written {
		p.ops += r.last - r.first + 1
		last = r.last
	}
	if p.sync == annals.SyncAlways || p.ops == 0 {
		return
	}
	if _, err := p.store.Sync(context.Background()); err != nil {
		p.fail(err)
		p.ops -= min(p.ops, last-min(last, p.store.Durable()))
	}
}

func (p *pipeline) flush() {
	if err := p.acks.Flush(); errors.Is(err, errReaderGone) {
		p.fail(errors.New("nobody reads the acknowledgements any more"))
	} else if err != nil {
		p.fail(err)
	}
}

// settle returns once the record seq is durable. With SyncAlways it is as soon as
// the store has taken it. With SyncEvery the store's own sync is awaited, with
// SyncNever one is asked for: each covers all that is in flight.
func (p *pipeline) settle(seq uint64) error {
	if p.sync == annals.SyncAlways || seq <= p.durable {
		return nil
	}
	p.flush() // nobody should wait for older acknowledgements meanwhile
	for end := time.Now().Add(time.Duration(p.sync)); time.Now().Before(end); {
		if p.durable = p.store.Durable(); seq <= p.durable {
			return nil
		}
		time.Sleep(min(max(time.Duration(p.sync)/20, time.Millisecond), 50*time.Millisecond))
	}
	durable, err := p.store.Sync(context.Background())
	p.durable = max(p.durable, durable)
	return err
}
