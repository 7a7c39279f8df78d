package fuzz

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
)

var (
	soakLength = flag.Duration("soak", 4*time.Second, "how long TestSoak runs")
	soakSeed   = flag.Uint64("soak.seed", 0, "seed of TestSoak; 0 takes a new one")
)

const (
	soakWriters = 4
	soakSlots   = 40 // of each writer; a slot is two keys that are written together
	soakOpens   = 40 // how often a store is opened before a new one takes its place
)

// soak is a test that runs for hours: rounds of mixed load on two stores in turn, one
// on the real file system and one in memory, each ended by a close, a crash or a sync that fails.
type soak struct {
	t     *testing.T
	rnd   *rand.Rand
	sites [2]*soakSite
	tally soakTally
	marks []soakMark
}

// soakTally counts what a run has met, so that one that meets nothing fails.
type soakTally struct {
	Closed, Crashed, Poisoned, Full, OnAgain               atomic.Int64 // events
	Writes, Refused, Unknown, Reads, Scans, Watched        atomic.Int64
	Snapshots, Backups, Readers, Compactions, FoundPending atomic.Int64
}

func (c *soakTally) each(fn func(name string, n int64)) {
	for _, e := range []struct {
		name string
		n    *atomic.Int64
	}{
		{"closed", &c.Closed}, {"crashed", &c.Crashed}, {"poisoned", &c.Poisoned}, {"full disks", &c.Full}, {"writes after those", &c.OnAgain},
		{"writes", &c.Writes}, {"refused", &c.Refused}, {"unknown", &c.Unknown}, {"reads", &c.Reads}, {"scans", &c.Scans},
		{"watched", &c.Watched}, {"snapshots", &c.Snapshots}, {"backups", &c.Backups}, {"readers", &c.Readers}, {"compactions", &c.Compactions},
	} {
		fn(e.name, e.n.Load())
	}
}

func (c *soakTally) String() string {
	var parts []string
	c.each(func(name string, n int64) { parts = append(parts, fmt.Sprintf("%s %d", name, n)) })
	return strings.Join(parts, ", ")
}

// soakMark is what was measured between two rounds, with all stores closed.
type soakMark struct {
	site       string
	goroutines int
	files      int // -1 where that can't be told
	heap       uint64
	rate       float64 // acknowledged writes a second
}

// TestSoak runs mixed load, faults, crashes and backups for as long as -soak says. At each
// open all that was acknowledged must be there, and each write whole or not at all; and the process must
// not grow.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -soak=%v -soak.seed=%d", *soakLength, seed)
	s := &soak{t: t, rnd: rand.New(rand.NewPCG(seed, 0))}
	for i := range s.sites {
		s.sites[i] = s.newSite(i)
	}
	round := min(max(*soakLength/24, 150*time.Millisecond), 4*time.Second)
	begun, told := time.Now(), time.Now()
	for n := 0; time.Since(begun) < *soakLength || n < 8; n++ {
		if s.sites[n%2].opens >= soakOpens {
			s.sites[n%2] = s.newSite(n % 2)
		}
		s.round(s.sites[n%2], n/2, round)
		require.False(t, t.Failed(), "after %v: replay with -soak=%v -soak.seed=%d", time.Since(begun), *soakLength, seed)
		if time.Since(told) >= 10*time.Second {
			told = time.Now()
			t.Logf("%v: %s; %+v", time.Since(begun).Round(time.Second), &s.tally, s.marks[len(s.marks)-1])
		}
	}
	t.Logf("%d rounds: %s", len(s.marks), &s.tally)
	s.tally.each(func(name string, n int64) { require.NotZero(t, n, "the run has not met what it is made for: %s", name) })
	s.judge()
}

// soakSite is a place for a store, and what is known of it.
type soakSite struct {
	name    string
	disk    soakDisk
	dir     string
	opens   int
	writers []*soakWriter
}

func (s *soak) newSite(i int) *soakSite {
	site := &soakSite{name: "memory", dir: "/top/store"}
	if i == 0 {
		site.name, site.dir = "disk", filepath.Join(s.t.TempDir(), "store")
		site.disk = newTapDisk()
	} else {
		site.disk = newMemoryDisk(faultfs.New(), s.rnd.Uint64())
	}
	for w := range soakWriters {
		site.writers = append(site.writers, &soakWriter{id: w, rnd: rand.New(rand.NewPCG(s.rnd.Uint64(), 0))})
	}
	return site
}

// round opens the store, judges what is in it, has everybody use it for a while, and ends
// it in one way or another.
func (s *soak) round(site *soakSite, n int, length time.Duration) {
	db, err := annals.Open(site.dir, &annals.Options{FS: site.disk, SegmentSize: 64 << 10})
	require.NoError(s.t, err)
	site.opens++
	for _, w := range site.writers {
		w.judge(s, db)
	}
	r := &soakRound{s: s, c: assert.New(s.t), site: site, db: db}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, w := range site.writers {
		all.Go(func() { r.write(w) })
	}
	for i, task := range []func(*rand.Rand){r.read, r.read, r.scan, r.watch, r.watch, r.hold, r.backup, r.readBeside} {
		seed := s.rnd.Uint64()
		all.Go(func() { task(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	begun := time.Now()
	r.disturb(length, n)
	took := time.Since(begun)
	r.cancel()
	all.Wait()
	s.tally.Compactions.Add(int64(db.Stats().Compaction.Runs))
	if err := db.Close(); !r.poisoned {
		require.NoError(s.t, err)
	}
	site.disk.heal()
	if r.crashed != nil {
		site.disk, site.dir = r.crashed()
	}
	s.mark(site, float64(r.acks.Load())/took.Seconds())
}

// disturb fills the disk for a while in every third round, and ends each: by a close, a
// crash, or a sync that fails.
func (r *soakRound) disturb(length time.Duration, n int) {
	time.Sleep(length / 2)
	if n%3 == 1 {
		r.site.disk.fill(true)
		time.Sleep(length / 6)
		r.site.disk.fill(false)
		r.s.tally.Full.Add(1)
		before := r.acks.Load()
		r.c.Eventually(func() bool { return r.acks.Load() > before+10 }, time.Minute, time.Millisecond, "writes did not go on once there was room")
		r.s.tally.OnAgain.Add(r.acks.Load() - before)
	}
	time.Sleep(length / 3)
	switch n % 4 {
	case 0:
		r.s.tally.Closed.Add(1)
	case 1, 3:
		r.s.tally.Crashed.Add(1)
		r.crash()
	case 2:
		r.s.tally.Poisoned.Add(1)
		r.poisoned = true
		r.site.disk.breakSyncs()
		r.c.Eventually(func() bool { return r.db.Stats().Failed != "" }, time.Minute, time.Millisecond, "a failed sync did not end writing")
		_, err := r.db.Get("w0 0 a")
		r.c.True(err == nil || errors.Is(err, annals.ErrNotFound), "reads must go on: %v", err)
		if n%8 == 6 {
			r.crash()
		}
	}
}

// crash takes what a crash leaves: all that was acknowledged before is in it, what ends
// later has an unknown outcome.
func (r *soakRound) crash() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = true
	r.crashed = r.site.disk.crash(r.s.t, r.site.dir)
}

// mark measures the process between two rounds.
func (s *soak) mark(site *soakSite, rate float64) {
	m := soakMark{site: site.name, rate: rate, files: -1}
	for range 50 { // goroutines that have done their work may not be gone yet
		if m.goroutines = runtime.NumGoroutine(); len(s.marks) == 0 || m.goroutines <= s.marks[0].goroutines {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	if entries, err := os.ReadDir("/dev/fd"); err == nil {
		m.files = len(entries)
	}
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m.heap = stats.HeapAlloc
	s.marks = append(s.marks, m)
}

// judge holds the last third of the rounds against those before, the first few left out:
// nothing may grow, and writing may not become slow.
func (s *soak) judge() {
	warm := s.marks[min(4, len(s.marks)/3):]
	third := max(1, len(warm)/3)
	early, late := warm[:len(warm)-third], warm[len(warm)-third:]
	most := func(marks []soakMark, of func(soakMark) float64) float64 {
		list := []float64{}
		for _, m := range marks {
			list = append(list, of(m))
		}
		return slices.Max(list)
	}
	goroutines := func(m soakMark) float64 { return float64(m.goroutines) }
	files := func(m soakMark) float64 { return float64(m.files) }
	heap := func(m soakMark) float64 { return float64(m.heap) }
	require.LessOrEqual(s.t, most(late, goroutines), most(early, goroutines), "goroutines grow")
	if most(late, files) < 0 {
		s.t.Log("OPEN FILES ARE NOT COUNTED: this system has no /dev/fd")
	}
	require.LessOrEqual(s.t, most(late, files), most(early, files), "open files grow")
	require.LessOrEqual(s.t, most(late, heap), 1.5*most(early, heap)+(16<<20), "the heap grows")
	for _, site := range s.sites {
		if then, now := soakMedian(early, site.name), soakMedian(late, site.name); then > 0 && now > 0 {
			s.t.Logf("%s: %.0f writes a second, %.0f in the last third", site.name, then, now)
			require.Greater(s.t, now, then/8, "writing has become slow")
		}
	}
}

// soakMedian is the usual rate of the rounds on one site; 0 if there are too few to tell.
func soakMedian(marks []soakMark, site string) float64 {
	var rates []float64
	for _, m := range marks {
		if m.site == site {
			rates = append(rates, m.rate)
		}
	}
	if len(rates) < 3 {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// soakRound is one open store with all its users.
type soakRound struct {
	s      *soak
	c      *assert.Assertions // for goroutines
	site   *soakSite
	db     *annals.Store
	ctx    context.Context
	cancel context.CancelFunc
	acks   atomic.Int64

	mu       sync.Mutex // held when a write ends, and when the store crashes
	dead     bool
	crashed  func() (soakDisk, string)
	poisoned bool
}

// over tells whether users should go home.
func (r *soakRound) over() bool { return r.ctx.Err() != nil || r.s.t.Failed() }

// soakWriter writes to slots of its own, and knows what it has written.
type soakWriter struct {
	id      int
	rnd     *rand.Rand
	n       int
	state   [soakSlots]int // the value of each slot; 0: absent
	samples int
	pending []*soakOp // in order; the outcome is not known yet
}

type soakOp struct {
	slot, value int
	sample      bool
}

func (w *soakWriter) key(slot int, half string) string {
	return fmt.Sprintf("w%d %d %s", w.id, slot, half)
}
func (w *soakWriter) series() string { return fmt.Sprintf("w%d", w.id) }

// soakText is a value: as long as its number says, so that each is checked in full.
func soakText(n int) string { return fmt.Sprintf("%d %s", n, strings.Repeat("v", n*37%900)) }

// draw makes the next write and its batch.
func (w *soakWriter) draw() (*soakOp, *annals.Batch) {
	w.n++
	op := &soakOp{slot: w.rnd.IntN(soakSlots), value: w.n, sample: w.rnd.IntN(10) == 0}
	var b annals.Batch
	if w.rnd.IntN(5) == 0 {
		op.value = 0
		b.Delete(w.key(op.slot, "a"))
		b.Delete(w.key(op.slot, "b"))
	} else {
		b.Put(w.key(op.slot, "a"), []byte(soakText(op.value)))
		b.Put(w.key(op.slot, "b"), []byte(soakText(op.value)))
	}
	if op.sample {
		b.Append(w.series(), []byte(soakText(w.n)))
	}
	return op, &b
}

func (w *soakWriter) made(op *soakOp) {
	w.state[op.slot] = op.value
	if op.sample {
		w.samples++
	}
}

// judge requires of a store that was opened just now that it holds all that was acknowledged to
// the writer, and of what was under way the first so many, whole.
func (w *soakWriter) judge(s *soak, db *annals.Store) {
	var have [soakSlots]int
	samples := 0
	require.NoError(s.t, db.View(func(snapshot *annals.Snapshot) error {
		for slot := range soakSlots {
			have[slot] = soakPair(assert.New(s.t), snapshot, w.key(slot, "a"), w.key(slot, "b"))
		}
		for _, err := range snapshot.Samples(w.series(), annals.Window{}) {
			require.NoError(s.t, err)
			samples++
		}
		return nil
	}))
	for {
		if have == w.state && samples == w.samples {
			break
		}
		if len(w.pending) == 0 {
			require.Fail(s.t, "the store holds no allowed state", "writer %d: have %v and %d samples, want %v and %d", w.id, have, samples, w.state, w.samples)
		}
		w.made(w.pending[0])
		w.pending = w.pending[1:]
		s.tally.FoundPending.Add(1)
	}
	w.pending = nil
}

// soakPair reads the two keys of a slot, which are written together.
func soakPair(c *assert.Assertions, from *annals.Snapshot, a, b string) (n int) {
	x, errX := from.Get(a)
	y, errY := from.Get(b)
	c.Equal(string(x), string(y), "%s and %s", a, b)
	if errors.Is(errX, annals.ErrNotFound) && errors.Is(errY, annals.ErrNotFound) {
		return 0
	}
	c.NoError(errX)
	c.NoError(errY)
	return soakNumber(c, string(x))
}

func soakNumber(c *assert.Assertions, text string) (n int) {
	_, err := fmt.Sscan(text, &n)
	c.NoError(err)
	c.Equal(soakText(n), text, "a value that nobody wrote")
	return n
}

// write keeps a few writes in flight.
func (r *soakRound) write(w *soakWriter) {
	for !r.over() {
		var commits []*annals.Commit
		var ops []*soakOp
		for range 1 + w.rnd.IntN(4) {
			op, b := w.draw()
			r.mu.Lock()
			w.pending = append(w.pending, op)
			r.mu.Unlock()
			ops, commits = append(ops, op), append(commits, r.db.Submit(b))
		}
		for i, c := range commits {
			_, err := c.Wait(context.Background())
			r.wrote(w, ops[i], err)
		}
		r.mu.Lock()
		done := r.dead || len(w.pending) > 0
		r.mu.Unlock()
		if done || errors.Is(commitErr(commits[0]), annals.ErrFailed) {
			return
		}
	}
}

func commitErr(c *annals.Commit) error {
	_, err := c.Wait(context.Background())
	return err
}

// wrote notes the outcome of a write, if it came before the crash.
func (r *soakRound) wrote(w *soakWriter, op *soakOp, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed *annals.FailedError
	switch {
	case r.dead || errors.As(err, &failed) && failed.Unknown:
		r.s.tally.Unknown.Add(1)
		return
	case err == nil:
		w.made(op)
		r.acks.Add(1)
		r.s.tally.Writes.Add(1)
	default:
		r.c.True(failed != nil || errors.Is(err, syscall.ENOSPC), "%v", err)
		r.s.tally.Refused.Add(1)
		time.Sleep(100 * time.Microsecond)
	}
	i := slices.Index(w.pending, op)
	w.pending = slices.Delete(w.pending, i, i+1)
}

// read looks at slots of all writers.
func (r *soakRound) read(rnd *rand.Rand) {
	for !r.over() {
		w := r.site.writers[rnd.IntN(soakWriters)]
		slot := rnd.IntN(soakSlots)
		_ = r.db.View(func(s *annals.Snapshot) error {
			soakPair(r.c, s, w.key(slot, "a"), w.key(slot, "b"))
			return nil
		})
		r.s.tally.Reads.Add(1)
		time.Sleep(20 * time.Microsecond)
	}
}

// soakScan reads all and makes sure that slots are whole. It returns what it read.
func soakScan(c *assert.Assertions, from interface{ Snapshot() *annals.Snapshot }) (text string) {
	s := from.Snapshot()
	defer s.Close()
	return soakDump(c, s)
}

func soakDump(c *assert.Assertions, s *annals.Snapshot) string {
	var b strings.Builder
	half := ""
	for e, err := range s.Scan(annals.Range{}) {
		if !c.NoError(err) {
			break
		}
		soakNumber(c, string(e.Value))
		if slot, isB := strings.CutSuffix(e.Key, " b"); isB {
			c.Equal(half, slot+" "+string(e.Value), "half a batch")
		} else {
			half = strings.TrimSuffix(e.Key, " a") + " " + string(e.Value)
		}
		fmt.Fprintf(&b, "%s %d\n", e.Key, e.Seq)
	}
	return b.String()
}

func (r *soakRound) scan(*rand.Rand) {
	for !r.over() {
		soakScan(r.c, r.db)
		r.s.tally.Scans.Add(1)
		time.Sleep(time.Millisecond)
	}
}

// hold keeps a snapshot for a while, whatever compaction does.
func (r *soakRound) hold(rnd *rand.Rand) {
	for !r.over() {
		s := r.db.Snapshot()
		before := soakDump(r.c, s)
		r.pause(time.Duration(rnd.IntN(300)) * time.Millisecond)
		r.c.Equal(before, soakDump(r.c, s), "a snapshot has changed")
		r.c.NoError(s.Close())
		r.s.tally.Snapshots.Add(1)
	}
}

func (r *soakRound) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
	}
}

// watch follows the log: every number once, in order.
func (r *soakRound) watch(rnd *rand.Rand) {
	from := uint64(rnd.IntN(2))
	for !r.over() {
		for rec, err := range r.db.Watch(r.ctx, from) {
			var gone *annals.CompactedError
			switch {
			case errors.As(err, &gone):
				from = gone.First
			case err != nil:
				r.c.ErrorIs(err, context.Canceled)
			default:
				r.c.GreaterOrEqual(rec.Seq, from)
				from = rec.Seq + 1
				r.s.tally.Watched.Add(1)
			}
		}
	}
}

// backup makes backups and looks into them.
func (r *soakRound) backup(rnd *rand.Rand) {
	for n := 0; !r.over(); n++ {
		dir := fmt.Sprintf("%s-backup-%d-%d", r.site.dir, r.site.opens, n)
		if err := r.db.Backup(r.ctx, dir); err == nil {
			reader, err := annals.OpenReader(dir, &annals.ReaderOptions{FS: r.site.disk})
			if r.c.NoError(err) {
				soakScan(r.c, reader)
				r.c.NoError(reader.Close())
				r.s.tally.Backups.Add(1)
			}
		} else {
			r.c.True(errors.Is(err, context.Canceled) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO), "%v", err)
		}
		soakRemove(r.c, r.site.disk, dir)
		r.pause(time.Duration(20+rnd.IntN(100)) * time.Millisecond)
	}
}

// soakRemove removes a flat directory.
func soakRemove(c *assert.Assertions, fsys replace.FS, dir string) {
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	c.NoError(err)
	for _, e := range entries {
		c.NoError(fsys.Remove(filepath.Join(dir, e.Name())))
	}
	c.NoError(fsys.Remove(dir))
}

// readBeside reads as another process would.
func (r *soakRound) readBeside(rnd *rand.Rand) {
	for !r.over() {
		reader, err := annals.OpenReader(r.site.dir, &annals.ReaderOptions{FS: r.site.disk})
		if err != nil {
			r.c.ErrorIs(err, syscall.EIO)
			continue
		}
		for range 3 {
			soakScan(r.c, reader)
			r.pause(time.Duration(rnd.IntN(10)) * time.Millisecond)
			if err := reader.Refresh(); err != nil {
				r.c.ErrorIs(err, syscall.EIO)
			}
		}
		r.c.NoError(reader.Close())
		r.s.tally.Readers.Add(1)
	}
}
