package model

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

var (
	linearSeed      = flag.Uint64("linear.seed", 0, "seed of the first history; 0: a new one")
	linearHistories = flag.Int("linear.histories", defaultHistories, "histories to check")
)

const (
	clients      = 8
	callsEach    = 45
	crashesEach  = 3 // at most, in a history
	historyLimit = 60 * time.Second
)

// met counts what a run of TestLinearizable has met.
type met struct {
	histories, calls, overlapped            int
	crashes, poisoned, unknown              int
	conflicts, refused, aborted             int
	rotations, compactions                  int
	watched, seenBeforeACrash, wholeWatches int
}

// TestLinearizable has clients read and write at the same time, while the store rotates,
// compacts, runs out of room, fails and crashes. Some order of their operations, which
// respects who was done before whom, must explain all that they saw.
func TestLinearizable(t *testing.T) {
	seed := *linearSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	var sum met
	for i := range uint64(*linearHistories) {
		w := newWorld(t, seed+i, &sum)
		history := w.run()
		result, info := porcupine.CheckOperationsVerbose(register, history, historyLimit)
		if result != porcupine.Ok {
			t.Errorf("no order explains the history: %s; a picture of it: %s", result, picture(t, info))
		}
		sum.histories++
		sum.calls += len(history)
		sum.overlapped += overlapping(history)
		if t.Failed() {
			t.Fatalf("to try again (no two runs are quite alike): go test ./fuzz/model -run TestLinearizable -linear.histories=20 -linear.seed=%d", seed+i)
		}
	}
	requireAll(t, sum)
	require.Greater(t, 2*sum.overlapped, sum.calls, "more than half of the operations must run beside others")
}

// picture writes a history for people.
func picture(t *testing.T, info porcupine.LinearizationInfo) string {
	file, err := os.CreateTemp("", "annals-history-*.html")
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, porcupine.Visualize(register, info, file))
	return file.Name()
}

// world is a store with clients and watchers, which lives through crashes.
type world struct {
	t    *testing.T
	c    *assert.Assertions // for goroutines
	seed uint64
	sum  *met

	broken atomic.Bool  // a sync has failed, since the last crash
	stamp  atomic.Int64 // orders calls and returns
	values atomic.Int32 // the last that was written

	mu      sync.Mutex // held when an operation ends, and when the store crashes: one is before the other
	fs      *faultfs.FS
	db      *annals.Store
	epoch   int // one more after each crash
	down    bool
	ending  bool // no crash any more
	up      sync.Cond
	crashed *faultfs.FS
	durable uint64   // by the store's own word, before the crash
	crashes []int64  // their stamps
	firsts  []uint64 // the first numbers after them, before which some may be missing
	history []porcupine.Operation
	epochs  []int // of the history's operations with unknown outcome; -1 for others

	disk sync.Mutex
	rnd  *rand.Rand // of the disk; guarded by disk

	watchers []*onlooker
}

func newWorld(t *testing.T, seed uint64, sum *met) *world {
	w := &world{t: t, c: assert.New(t), seed: seed, sum: sum, fs: faultfs.New(), rnd: rand.New(rand.NewPCG(seed, 1))}
	w.up.L = &w.mu
	w.db = w.open(w.fs)
	w.plan(w.fs, 0)
	return w
}

func (w *world) open(fs *faultfs.FS) *annals.Store {
	db, err := annals.Open(dir, &annals.Options{
		FS: fs, SegmentSize: 4 << 10, History: 100, Checkpoint: 10,
		Compaction: annals.Compaction{MinLive: 0.9, Rate: 1 << 40},
	})
	if err != nil {
		panic(fmt.Sprintf("-linear.seed=%d: opening after a crash: %v", w.seed, err)) // everybody waits for this store
	}
	return db
}

// plan gives the disk of an epoch its speed, its faults and its end: a crash before one of the
// changes, or a sync that fails and a crash soon after.
func (w *world) plan(fs *faultfs.FS, epoch int) {
	if w.seed%3 == 0 {
		fs.Failure = faultfs.XFS
	}
	w.broken.Store(false)
	changes, syncs := 10+w.draw(120), 0
	if w.draw(3) == 0 {
		changes, syncs = 0, 5+w.draw(50)
	}
	if epoch >= crashesEach {
		changes, syncs = 0, 0
	}
	fs.Inject(func(op faultfs.Op) *faultfs.Fault { // called with fs locked: one at a time
		switch op.Kind {
		case faultfs.Write:
			if strings.HasSuffix(op.Path, ".log") && w.draw(60) == 0 {
				return &faultfs.Fault{Err: syscall.ENOSPC, Bytes: w.draw(200)}
			}
		case faultfs.SyncData:
			if syncs--; syncs == 0 {
				w.broken.Store(true)
				return &faultfs.Fault{Err: syscall.EIO}
			}
		}
		return nil
	})
	var n atomic.Int64
	fs.Hook(func(op faultfs.Op) {
		if op.Kind.Changes() && n.Add(1) == int64(changes) {
			w.crash(epoch)
		}
		if op.Kind == faultfs.SyncData {
			time.Sleep(time.Duration(w.draw(100)) * time.Microsecond) // a disk takes its time
		}
	})
}

// draw is random, for the disk.
func (w *world) draw(n int) int {
	w.disk.Lock()
	defer w.disk.Unlock()
	return w.rnd.IntN(n)
}

// crash stops the world for a moment and takes what a crash may leave. What was
// acknowledged before is in it; whatever ends later has an unknown outcome.
func (w *world) crash(epoch int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epoch != epoch || w.ending {
		return
	}
	w.epoch++
	w.down = true
	w.durable = w.db.Durable()
	share := float64(w.draw(5)) / 4
	w.crashed = w.fs.Crash(func(int) bool { return float64(w.draw(1000)) < 1000*share })
	w.crashes = append(w.crashes, w.stamp.Add(1))
	w.up.Broadcast()
}

// current returns the store, once there is one.
func (w *world) current() (*annals.Store, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.down {
		w.up.Wait()
	}
	return w.db, w.epoch
}

// ended notes the end of a call, and whether it came before the crash.
func (w *world) ended(client, epoch int, begun int64, c call, a answer, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var failed *annals.FailedError
	if errors.As(err, &failed) && epoch == w.epoch {
		w.c.True(w.broken.Load(), "the store has failed, though no sync has: %v", err)
	}
	switch {
	case epoch != w.epoch:
		a = answer{unknown: true}
	case errors.Is(err, annals.ErrConflict):
		a.conflict = true
		w.sum.conflicts++
	case errors.As(err, &failed) && failed.Unknown:
		a = answer{unknown: true}
	case errors.Is(err, errAborted):
		w.sum.aborted++
	case err != nil && len(c.values) == 0 && c.what != "tx":
		w.c.NoError(err, "%+v", c)
	case err != nil:
		w.c.True(failed != nil || errors.Is(err, syscall.ENOSPC), "%+v: %v", c, err)
		a = answer{refused: true}
		w.sum.refused++
	}
	if a.unknown && len(c.values) == 0 {
		return // a read that nobody saw
	}
	op := porcupine.Operation{ClientId: client, Input: c, Call: begun, Output: a, Return: w.stamp.Add(1)}
	if a.unknown {
		w.sum.unknown++
		w.epochs = append(w.epochs, epoch)
	} else {
		w.epochs = append(w.epochs, -1)
	}
	w.history = append(w.history, op)
}

// run lets clients and watchers loose and returns the history.
func (w *world) run() []porcupine.Operation {
	ctx, cancel := context.WithCancel(context.Background())
	var repair, work, look sync.WaitGroup
	repair.Go(func() { w.recoverAll(ctx) })
	repair.Go(func() { w.compactAll(ctx) })
	looking, stop := context.WithCancel(ctx)
	for range 2 {
		o := &onlooker{w: w}
		w.watchers = append(w.watchers, o)
		look.Go(func() { o.watch(looking) })
	}
	for i := range clients {
		work.Go(func() { (&client{w: w, id: i, rnd: rand.New(rand.NewPCG(w.seed, uint64(i)+2))}).work() })
	}
	work.Wait()
	last := w.finish()
	for _, o := range w.watchers {
		for o.next() <= last && !w.t.Failed() {
			time.Sleep(100 * time.Microsecond)
		}
	}
	stop()
	look.Wait()
	cancel()
	w.mu.Lock()
	w.up.Broadcast()
	w.mu.Unlock()
	repair.Wait()
	w.settle()
	for i, epoch := range w.epochs {
		if epoch < 0 {
			continue
		}
		op := &w.history[i]
		if crash := w.crashes[epoch]; op.Call < crash {
			op.Return = crash // it happened before, or never
		} else {
			op.Output = answer{refused: true} // by a machine that was gone
		}
	}
	return w.history
}

// finish writes a last record, at which watchers may go, and returns its number. A store
// that has failed is crashed first.
func (w *world) finish() uint64 {
	for {
		db, epoch := w.current()
		var b annals.Batch
		b.Append("end", nil)
		if seq, err := db.Apply(&b); err == nil {
			w.mu.Lock()
			w.ending = epoch == w.epoch
			w.mu.Unlock()
			if w.ending {
				return seq
			}
		} else if errors.Is(err, annals.ErrFailed) {
			w.crash(epoch)
		}
	}
}

// recoverAll opens the store after each crash, and has it looked at before anybody else
// writes to it.
func (w *world) recoverAll(ctx context.Context) {
	for {
		w.mu.Lock()
		for !w.down && ctx.Err() == nil {
			w.up.Wait()
		}
		if !w.down {
			w.mu.Unlock()
			return
		}
		old, epoch, fs, durable := w.db, w.epoch, w.crashed, w.durable
		w.mu.Unlock()

		w.count(old)
		db := w.open(fs)
		w.c.GreaterOrEqual(db.Durable(), durable, "Durable was not true")
		for _, o := range w.watchers {
			o.findAgain(db)
		}
		begun := w.stamp.Add(1)
		values, err := readAll(w.c, db)
		w.c.NoError(err)
		w.mu.Lock()
		w.sum.crashes++
		w.firsts = append(w.firsts, db.Durable()+1)
		w.history = append(w.history, porcupine.Operation{
			ClientId: clients, Input: call{what: "scan", keys: allKeys}, Call: begun, Output: answer{values: values}, Return: w.stamp.Add(1),
		})
		w.epochs = append(w.epochs, -1)
		w.fs, w.db, w.down = fs, db, false
		w.plan(fs, epoch)
		w.up.Broadcast()
		w.mu.Unlock()
		_ = old.Close() // it may have failed
	}
}

// count adds up what a store has done.
func (w *world) count(db *annals.Store) {
	st := db.Stats()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sum.rotations += max(0, len(st.Segments)-1)
	w.sum.compactions += int(st.Compaction.Runs)
	if st.Failed != "" {
		w.sum.poisoned++
	}
}

// compactAll compacts now and then, while the clients are at work.
func (w *world) compactAll(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
		db, _ := w.current()
		_, _ = db.Compact(ctx, nil) // the disk may be full, the store dead
	}
}

// settle closes the last store, which holds what watchers have seen.
func (w *world) settle() {
	for _, o := range w.watchers {
		o.compare(w.db)
	}
	w.count(w.db)
	w.fs.Hook(nil)
	w.fs.Inject(nil)
	_ = w.db.Close()
}

// keyOf names the keys.
func keyOf(i int) string { return fmt.Sprintf("key %d", i) }

var allKeys = []int{0, 1, 2, 3, 4}

// textOf is a value as it is stored: long enough to fill segments.
func textOf(v int32) []byte { return fmt.Appendf(nil, "%d %s", v, strings.Repeat("v", 100)) }

func valueOf(c *assert.Assertions, text []byte) (v int32) {
	_, err := fmt.Sscan(string(text), &v)
	c.NoError(err)
	return v
}

// readAll reads all keys at one moment.
func readAll(c *assert.Assertions, v view) ([]int32, error) {
	values := make([]int32, places)
	for e, err := range v.Scan(annals.Prefix("key ")) {
		if err != nil {
			return nil, err
		}
		var i int
		_, err := fmt.Sscanf(e.Key, "key %d", &i)
		c.NoError(err)
		values[i] = valueOf(c, e.Value)
	}
	return values, nil
}
