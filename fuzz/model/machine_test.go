package model

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

const dir = "/top/store"

// machine is a store and what it should hold, side by side.
type machine struct {
	t    *rapid.T
	sum  *sums
	fs   *faultfs.FS
	db   *annals.Store
	opts annals.Options
	serial

	wall     atomic.Int64 // the clock that is injected, in microseconds
	lead     int64        // how far the store's time was ahead of it at Open
	now      int64        // the store's time
	recorded atomic.Int64 // a store's time that is certainly on disk
	wrote    bool         // something, since Open
	jobs     uint64       // compactions by hand, since Open

	log     []record // all there is; what a crash took is not in it
	state   *state   // what follows from log
	next    uint64   // the number of the next record
	synced  atomic.Uint64
	history uint64
	held    []*heldSnapshot
	backups int

	hook hook
}

// heldSnapshot is a snapshot and what it must go on to show.
type heldSnapshot struct {
	*annals.Snapshot
	state *state
	now   int64
}

// hook is what happens before operations of the file system.
type hook struct {
	mu       sync.Mutex
	gate     chan struct{} // no sync of the log begins before it is closed
	in       int           // crash before the change that is so many ahead; 0 for no crash
	keep     func(int) bool
	crashed  *faultfs.FS
	synced   uint64 // what was durable at that moment
	recorded int64  // the store's time that was
}

func newMachine(t *rapid.T, sum *sums) *machine {
	m := &machine{t: t, sum: sum, fs: faultfs.New(), state: newState(), next: 1, history: 1}
	m.wall.Store(1_750_000_000_000_000)
	m.opts = annals.Options{
		SegmentSize: rapid.SampledFrom([]int64{4 << 10, 4 << 10, 16 << 10, 1 << 20}).Draw(t, "segment size"),
		Sync:        rapid.SampledFrom([]annals.SyncPolicy{annals.SyncAlways, annals.SyncAlways, annals.SyncAlways, annals.SyncEvery(time.Hour), annals.SyncNever}).Draw(t, "sync"),
		History:     rapid.SampledFrom([]int64{0, 0, 10, 1000}).Draw(t, "history"),
		Checkpoint:  rapid.SampledFrom([]int{0, 1, 5, 1 << 30}).Draw(t, "checkpoint"),
		Compaction: annals.Compaction{
			Off:     rapid.SampledFrom([]bool{true, true, false}).Draw(t, "compaction off"),
			MinLive: rapid.SampledFrom([]float64{0.5, 0.9, 1}).Draw(t, "min live"),
			Rate:    1 << 40,
			Grace:   rapid.SampledFrom([]time.Duration{time.Nanosecond, time.Nanosecond, time.Hour}).Draw(t, "grace"),
		},
		Now: func() time.Time { return time.UnixMicro(m.wall.Load()) },
	}
	m.now = m.wall.Load()
	m.fs.Hook(m.before)
	m.open()
	return m
}

func (m *machine) lazy() bool { return m.opts.Sync != annals.SyncAlways }

// before is called before each operation, in any goroutine of the store.
func (m *machine) before(op faultfs.Op) {
	m.hook.mu.Lock()
	gate := m.hook.gate
	if m.hook.in > 0 && op.Kind.Changes() {
		if m.hook.in--; m.hook.in == 0 {
			m.takeCrash()
		}
	}
	m.hook.mu.Unlock()
	if gate != nil && op.Kind == faultfs.SyncData {
		<-gate
	}
}

func (m *machine) takeCrash() {
	m.hook.synced, m.hook.recorded = m.synced.Load(), m.recorded.Load()
	m.hook.crashed = m.fs.Crash(m.hook.keep)
}

// arm has a crash come before one of the next changes of the file system.
func (m *machine) arm(t *rapid.T) {
	seed := rapid.Uint64().Draw(t, "subset")
	share := rapid.SampledFrom([]float64{0, 0.2, 0.5, 0.8, 1}).Draw(t, "share kept")
	rnd := rand.New(rand.NewPCG(seed, 0))
	m.hook.mu.Lock()
	defer m.hook.mu.Unlock()
	m.hook.in = rapid.IntRange(1, 9).Draw(t, "crash at")
	m.hook.keep = func(int) bool { return rnd.Float64() < share }
	m.hook.crashed = nil
}

// fire goes on with the crashed file system, and what was durable on it. If nothing has
// set the crash off yet it comes now.
func (m *machine) fire() {
	m.hook.mu.Lock()
	defer m.hook.mu.Unlock()
	if m.hook.crashed == nil {
		m.sum.lateCrashes++
		m.takeCrash()
	}
	m.hook.in = 0
	m.fs.Hook(nil)
	m.fs = m.hook.crashed
	m.fs.Hook(m.before)
	m.synced.Store(m.hook.synced)
	m.recorded.Store(m.hook.recorded)
}

// setGate holds all syncs of the log until open is called.
func (m *machine) setGate() (open func()) {
	gate := make(chan struct{})
	m.hook.mu.Lock()
	m.hook.gate = gate
	m.hook.mu.Unlock()
	return sync.OnceFunc(func() {
		m.hook.mu.Lock()
		m.hook.gate = nil
		m.hook.mu.Unlock()
		close(gate)
	})
}

func (m *machine) options() *annals.Options {
	o := m.opts
	o.FS = m.fs
	return &o
}

// open opens the store and takes over its time, which must be one that it may have
// recorded.
func (m *machine) open() {
	db, err := annals.Open(dir, m.options())
	require.NoError(m.t, err)
	m.db = db
	m.wrote, m.jobs = false, 0
	m.now = m.timeOf(db, m.recorded.Load(), "the store")
	m.lead = m.now - m.wall.Load()
}

// timeOf returns the time of a store or reader that was opened just now, which knows of
// all times up to recorded.
func (m *machine) timeOf(db interface{ Stats() annals.Stats }, recorded int64, what string) int64 {
	now := db.Stats().Clock.UnixMicro()
	if low := max(m.wall.Load(), recorded); now < low || now > max(m.now, low) {
		require.Fail(m.t, "the time is wrong", "%s was opened at time %d, which is not from %d to %d", what, now, low, m.now)
	}
	return now
}

// close closes the store; its snapshots end with it.
func (m *machine) close(db *annals.Store) {
	m.sum.background += int(db.Stats().Compaction.Runs - m.jobs)
	require.NoError(m.t, db.Close())
	for _, h := range m.held {
		_, err := h.Get("a")
		require.ErrorIs(m.t, err, annals.ErrClosed)
		require.NoError(m.t, h.Close())
	}
	m.held = nil
}

// end lets go of everything, also after a failure.
func (m *machine) end() {
	m.fs.Hook(nil)
	m.hook.mu.Lock()
	if m.hook.gate != nil {
		close(m.hook.gate)
	}
	m.hook.mu.Unlock()
	if m.db != nil {
		_ = m.db.Close()
	}
}

// took adds a commit that the store has made.
func (m *machine) took(records []record) {
	for _, r := range records {
		if _, ok := m.state.get(r.name, m.now); ok && r.verb == put {
			m.sum.collisions++
		}
		m.state.apply(r)
		m.log = append(m.log, r)
		m.next = r.seq + 1
	}
	if len(records) == 0 {
		return
	}
	m.wrote = true
	if m.lazy() {
		return
	}
	m.synced.Store(m.next - 1)
	for _, r := range records {
		if r.expires != 0 { // its batch, or one in the second before, says what time it is
			m.record(m.now - 1_000_000)
		}
	}
}

// record notes that a time is on disk.
func (m *machine) record(now int64) { m.recorded.Store(max(m.recorded.Load(), now)) }

// sync makes all durable, so that others may see it.
func (m *machine) sync() {
	seq, err := m.db.Sync(context.Background())
	require.NoError(m.t, err)
	require.Equal(m.t, m.next-1, seq, "Sync")
	m.synced.Store(m.next - 1)
}

// after returns the records that are left in the log and the number of the next one, by
// writing that to a copy of the store.
func (m *machine) after() (history uint64, records []record, next uint64) {
	o := m.options()
	o.FS, o.Compaction.Off = m.fs.Clone(), true
	db, err := annals.Open(dir, o)
	require.NoError(m.t, err)
	history = db.Stats().History
	next, err = db.Append("s", nil)
	require.NoError(m.t, err)
	_, err = db.Sync(context.Background())
	require.NoError(m.t, err)
	for r, err := range db.Watch(context.Background(), history) {
		require.NoError(m.t, err)
		if r.Seq == next {
			break
		}
		records = append(records, recordOf(r))
	}
	require.NoError(m.t, db.Close())
	return history, records, next
}

// learnHistory asks from where on all records are left, and whether that can be.
func (m *machine) learnHistory() {
	history := m.db.Stats().History
	require.GreaterOrEqual(m.t, history, m.history, "history")
	require.LessOrEqual(m.t, history, m.next, "history")
	if h, last := uint64(m.opts.History), m.next-1; h > 0 { // counted in numbers: a crash may leave a gap
		require.LessOrEqual(m.t, history, max(m.history, last-min(last, h)+1), "fewer records are left than Options.History says")
	}
	m.history = history
}

// follow finds the prefix of the log that a recovered store holds and goes on from it.
// It holds at least all that was durable, and the next number is one that nobody has
// seen.
func (m *machine) follow() {
	durable := m.synced.Load()
	history, records, next := m.after()
	require.Greater(m.t, next, durable, "a number would be given twice")
	why := ""
	for n := len(m.log); n >= 0; n-- {
		if n > 0 && m.log[n-1].more {
			continue // inside a commit
		}
		if n < len(m.log) && m.log[n].seq <= durable {
			break
		}
		s := newState()
		for _, r := range m.log[:n] {
			s.apply(r)
		}
		if why = m.fits(s, m.log[:n], history, records); why == "" {
			if n < len(m.log) {
				m.sum.dropped++
			}
			m.log, m.state = m.log[:n], s
			m.next, m.history = next, history
			m.synced.Store(next - 1)
			return
		}
	}
	require.Fail(m.t, "a recovered store holds no allowed prefix", "all up to %d was durable, %d was submitted; the shortest prefix does not fit: %s", durable, m.next-1, why)
}

// fits tells why the store does not hold a state and its records; "" if it does.
func (m *machine) fits(s *state, log []record, history uint64, records []record) (why string) {
	p := &probe{}
	defer func() {
		if r := recover(); r != nil {
			if r != p {
				panic(r)
			}
			why = p.message
		}
	}()
	compare(p, m.db, s, m.now, "after the crash")
	same(p, from(log, history), records, "the log after the crash")
	return ""
}

// from is the part of a log from a number on.
func from(log []record, seq uint64) []record {
	i, _ := slices.BinarySearchFunc(log, seq, func(r record, seq uint64) int { return cmp.Compare(r.seq, seq) })
	return log[i:]
}

// probe is a test that may fail.
type probe struct{ message string }

func (p *probe) Errorf(format string, args ...any) { p.message = fmt.Sprintf(format, args...) }
func (p *probe) FailNow()                          { panic(p) }
