package fuzz

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

var (
	crashSeed   = flag.Uint64("crash.seed", 1, "seed of the crash enumeration")
	crashRandom = flag.Int("crash.random", 6, "random subsets of pending effects at each crash point")
	crashLong   = flag.Int("crash.long", 2, "random sequences of length 30")
	crashDeep   = flag.Int("crash.deep", 32, "of how many crash states one has its recovery crashed too")
	crashAll    = flag.Bool("crash.all", false, "crash in every step of a short sequence, not just in its last: shorter sequences cover the rest")
	crashStates = flag.Int("crash.states", 30000, "the number of crash states that a run must reach")
)

// step is one operation of a workload.
type step func(*machine)

var steps = []struct {
	name string
	do   step
}{
	{"put", (*machine).put},
	{"delete", (*machine).delete},
	{"batch", (*machine).batch},
	{"big", (*machine).big},
	{"rotate", (*machine).rotate},
	{"compact", (*machine).compact},
	{"reopen", (*machine).reopen},
	{"expire", (*machine).expire},
	// Only in random sequences:
	{"append", (*machine).append},
	{"update", (*machine).update},
	{"ttl", (*machine).ttl},
}

const shortSteps = 8 // of these, all sequences up to length 3

// machine runs a workload on a store and, before each change of the file system,
// has crashed copies of it checked.
type machine struct {
	t    *testing.T
	c    checker // for checks in the hook
	name string
	rnd  *rand.Rand
	fs   *faultfs.FS
	db   *annals.Store
	now  time.Time
	n    int // for unique values
	sum  *sums
	seen map[uint64]bool

	quiet   bool    // nothing is checked for now
	broken  bool    // a check has failed
	states  []model // the state after each commit; the first is empty
	acked   int     // how many commits were acknowledged
	lastSeq uint64  // the greatest number that was acknowledged
}

// abort is what a failed check in the hook panics with. The hook may run in any of
// the store's goroutines, where FailNow would leave the others waiting for ever.
type abort struct{}

// checker lets require fail in any goroutine.
type checker struct{ *testing.T }

func (checker) FailNow() { panic(abort{}) }

// check runs fn, which may fail, from the hook. After the first failure nothing
// is checked any more, and the workload ends.
func (m *machine) check(fn func()) {
	if m.broken || m.quiet {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(abort); !ok {
				panic(r)
			}
			m.broken = true
		}
	}()
	fn()
}

// sums count what a run has met, so that one that meets nothing fails.
type sums struct {
	states, distinct, recoveries, tails, dropped, orphans, removals int
}

// model is the state of a store.
type model struct {
	keys    map[string]modelEntry
	samples []string
}

type modelEntry struct {
	value   string
	expires time.Time
}

func (m model) clone() model {
	c := model{keys: map[string]modelEntry{}, samples: slices.Clip(m.samples)}
	for k, e := range m.keys {
		c.keys[k] = e
	}
	return c
}

// dump is what a reader sees at a time.
func (m model) dump(now time.Time) string {
	var lines []string
	for k, e := range m.keys {
		if e.expires.IsZero() || now.Before(e.expires) {
			lines = append(lines, fmt.Sprintf("%s=%s\n", k, e.value))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "") + strings.Join(m.samples, "\n")
}

func dumpStore(t require.TestingT, db interface {
	Snapshot() *annals.Snapshot
}) string {
	s := db.Snapshot()
	defer s.Close()
	var b strings.Builder
	for e, err := range s.Scan(annals.Range{}) {
		require.NoError(t, err)
		fmt.Fprintf(&b, "%s=%s\n", e.Key, e.Value)
	}
	var samples []string
	for sample, err := range s.Samples("s", annals.Window{}) {
		require.NoError(t, err)
		samples = append(samples, string(sample.Value))
	}
	return b.String() + strings.Join(samples, "\n")
}

func newMachine(t *testing.T, name string, seed uint64, sum *sums) *machine {
	m := &machine{t: t, c: checker{t}, name: name, rnd: rand.New(rand.NewPCG(seed, 0)), fs: faultfs.New(), sum: sum, seen: map[uint64]bool{}}
	m.now = time.Unix(1_750_000_000, 0)
	m.states = []model{{keys: map[string]modelEntry{}}}
	m.fs.Hook(func(op faultfs.Op) {
		if op.Kind.Changes() {
			m.check(func() { m.crash(op) })
		}
	})
	m.open()
	return m
}

func (m *machine) options(fs *faultfs.FS) *annals.Options {
	return &annals.Options{FS: fs, SegmentSize: 4096, Now: func() time.Time { return m.now },
		Compaction: annals.Compaction{Off: true, Grace: time.Nanosecond}}
}

func (m *machine) open() {
	db, err := annals.Open("/top/store", m.options(m.fs))
	require.NoError(m.t, err, m.name)
	m.db = db
}

// commit submits a batch whose effect on the model is change.
func (m *machine) commit(change func(*model), b *annals.Batch) {
	next := m.states[len(m.states)-1].clone()
	change(&next)
	m.states = append(m.states, next)
	seq, err := m.db.Apply(b)
	require.NoError(m.t, err, m.name)
	m.acknowledged(seq)
}

func (m *machine) acknowledged(seq uint64) {
	m.acked = len(m.states) - 1
	m.lastSeq = seq
	require.Equal(m.t, m.states[m.acked].dump(m.now), dumpStore(m.t, m.db), m.name)
}

func (m *machine) key() string { return fmt.Sprintf("k%d", m.rnd.IntN(3)) }

func (m *machine) value(size int) string {
	m.n++
	return fmt.Sprintf("%d%s", m.n, strings.Repeat("x", size))
}

func (m *machine) put() {
	k, v := m.key(), m.value(0)
	var b annals.Batch
	b.Put(k, []byte(v))
	m.commit(func(s *model) { s.keys[k] = modelEntry{value: v} }, &b)
}

func (m *machine) delete() {
	k := m.key()
	var b annals.Batch
	b.Delete(k)
	m.commit(func(s *model) { delete(s.keys, k) }, &b)
}

func (m *machine) batch() { m.putTwo(0) }
func (m *machine) big()   { m.putTwo(2200) } // more than a page

func (m *machine) putTwo(size int) {
	v, w := m.value(size), m.value(size)
	var b annals.Batch
	b.Put("k0", []byte(v))
	b.Put("k1", []byte(w))
	b.Append("s", []byte(v))
	m.commit(func(s *model) {
		s.keys["k0"], s.keys["k1"] = modelEntry{value: v}, modelEntry{value: w}
		s.samples = append(s.samples, v)
	}, &b)
}

// rotate fills the segment, so that the next commit goes to another.
func (m *machine) rotate() {
	v := m.value(3900)
	var b annals.Batch
	b.Put("full", []byte(v))
	m.commit(func(s *model) { s.keys["full"] = modelEntry{value: v} }, &b)
}

func (m *machine) compact() {
	_, err := m.db.Compact(m.t.Context(), nil)
	require.NoError(m.t, err, m.name)
	require.Equal(m.t, m.states[m.acked].dump(m.now), dumpStore(m.t, m.db), m.name)
}

func (m *machine) reopen() {
	require.NoError(m.t, m.db.Close(), m.name)
	m.open()
	require.Equal(m.t, m.states[m.acked].dump(m.now), dumpStore(m.t, m.db), m.name)
}

// expire puts a key that expires and lets the time pass.
func (m *machine) expire() {
	m.ttl()
	m.now = m.now.Add(2 * time.Minute)
}

func (m *machine) ttl() {
	k, v := m.key(), m.value(0)
	var b annals.Batch
	b.Put(k, []byte(v), annals.ExpiresAt(m.now.Add(time.Minute)))
	e := modelEntry{value: v, expires: m.now.Add(time.Minute)}
	m.commit(func(s *model) { s.keys[k] = e }, &b)
}

func (m *machine) append() {
	v := m.value(0)
	var b annals.Batch
	b.Append("s", []byte(v))
	m.commit(func(s *model) { s.samples = append(s.samples, v) }, &b)
}

func (m *machine) update() {
	k, v := m.key(), m.value(0)
	next := m.states[len(m.states)-1].clone()
	next.keys[k] = modelEntry{value: v}
	next.samples = append(next.samples, v)
	m.states = append(m.states, next)
	var seq uint64
	err := m.db.Update(func(tx *annals.Tx) (err error) {
		if err := tx.Put(k, []byte(v)); err != nil {
			return err
		}
		seq, err = tx.Append("s", []byte(v))
		return err
	})
	require.NoError(m.t, err, m.name)
	m.acknowledged(seq)
}

// crash checks what a crash at this moment can leave: nothing of what is pending,
// all of it, each prefix, all but one, one only, and random subsets.
func (m *machine) crash(op faultfs.Op) {
	n := m.fs.Pending()
	m.crashed(op, "none", func(int) bool { return false })
	m.crashed(op, "all", func(int) bool { return true })
	for i := 0; i < n; i += 1 + n/16 {
		m.crashed(op, fmt.Sprint("prefix ", i), func(j int) bool { return j < i })
		m.crashed(op, fmt.Sprint("without ", i), func(j int) bool { return j != i })
		m.crashed(op, fmt.Sprint("only ", i), func(j int) bool { return j == i })
	}
	for i := range min(*crashRandom, 1<<min(n, 20)) {
		m.crashed(op, fmt.Sprint("random ", i), func(int) bool { return m.rnd.IntN(2) == 0 })
	}
}

func (m *machine) crashed(op faultfs.Op, what string, keep func(int) bool) {
	m.sum.states++
	after := m.fs.Crash(keep)
	digest := after.Digest("LOCK") ^ uint64(m.acked)<<32 ^ uint64(len(m.states))
	if m.seen[digest] {
		return
	}
	m.seen[digest] = true
	m.sum.distinct++
	where := fmt.Sprintf("%s: crash before operation %d, %v %s, keeping %s of what is pending", m.name, op.N, op.Kind, op.Path, what)
	m.recover(after, where, true)
}

// recover opens a crashed copy and holds it against the model. With deep set it
// also crashes the recovery, at each of its operations.
func (m *machine) recover(fs *faultfs.FS, where string, deep bool) {
	m.sum.recoveries++
	if deep && m.rnd.IntN(*crashDeep) == 0 {
		again := fs.Clone()
		again.Hook(func(op faultfs.Op) {
			if op.Kind.Changes() {
				for _, all := range []bool{false, true} {
					m.recover(again.Crash(func(int) bool { return all }), fmt.Sprintf("%s, then before operation %d of the recovery, %v %s, keeping %v", where, op.N, op.Kind, op.Path, all), false)
				}
				m.recover(again.Crash(func(int) bool { return m.rnd.IntN(2) == 0 }), where+", then in the recovery", false)
			}
		})
		db, err := annals.Open("/top/store", m.options(again))
		require.NoError(m.c, err, where)
		again.Hook(nil)
		require.NoError(m.c, db.Close(), where)
	}
	db, err := annals.Open("/top/store", m.options(fs))
	require.NoError(m.c, err, where)
	got := dumpStore(m.c, db)
	m.judge(got, where)
	m.count(db.Recovery())
	m.writeOn(db, fs, got, where)
}

// judge requires the state to be that after some prefix of the commits that holds
// all acknowledged ones.
func (m *machine) judge(got, where string) {
	for i := len(m.states) - 1; i >= m.acked; i-- {
		if m.states[i].dump(m.now) == got {
			if i < len(m.states)-1 {
				m.sum.dropped++
			}
			return
		}
	}
	require.Fail(m.c, "the state is not that of any allowed prefix", "%s\nhave:\n%s\nacknowledged:\n%s\nsubmitted:\n%s",
		where, got, m.states[m.acked].dump(m.now), m.states[len(m.states)-1].dump(m.now))
}

func (m *machine) count(r annals.RecoveryReport) {
	if len(r.Quarantined) > 0 {
		m.sum.tails++
	}
	if len(r.Removed) > 0 {
		m.sum.orphans++
	}
	for _, name := range r.Removed {
		if strings.HasSuffix(name, ".log") && r.Clean {
			m.sum.removals++ // a removal that the crash took back
		}
	}
}

// writeOn closes the recovered store, opens it again, which must change nothing,
// and writes: the number must be a new one.
func (m *machine) writeOn(db *annals.Store, fs *faultfs.FS, state, where string) {
	require.NoError(m.c, db.Close(), where)
	before := fs.Digest("LOCK")
	db, err := annals.Open("/top/store", m.options(fs))
	require.NoError(m.c, err, where)
	require.True(m.c, db.Recovery().Clean, where)
	require.Equal(m.c, before, fs.Digest("LOCK"), "%s: opening again has changed something", where)
	require.Equal(m.c, state, dumpStore(m.c, db), where)
	if m.rnd.IntN(8) == 0 {
		var b annals.Batch
		b.Put("new", nil)
		seq, err := db.Apply(&b)
		require.NoError(m.c, err, where)
		require.Greater(m.c, seq, m.lastSeq, "%s: a number was given twice", where)
	}
	require.NoError(m.c, db.Close(), where)
	require.Zero(m.c, fs.OpenFiles(), "%s: files are left open", where)
}

// TestCrashAnywhere runs all sequences of up to three operations, and random ones
// of thirty, and crashes before every change of the file system in all the ways
// that its fault model allows.
func TestCrashAnywhere(t *testing.T) {
	sum := &sums{}
	sequences := allSequences()
	if underRace { // a sample of them: races hide in the code, not in the states
		rnd := rand.New(rand.NewPCG(*crashSeed, 2))
		rnd.Shuffle(len(sequences), func(i, j int) { sequences[i], sequences[j] = sequences[j], sequences[i] })
		sequences = sequences[:60]
	}
	for i, seq := range sequences {
		runSequence(t, seq, *crashSeed+uint64(i), sum)
	}
	t.Logf("%d crash states, %d of them distinct, %d recoveries; a tail was cut in %d, a commit dropped in %d, an orphan removed in %d, a removal taken back in %d",
		sum.states, sum.distinct, sum.recoveries, sum.tails, sum.dropped, sum.orphans, sum.removals)
	require.GreaterOrEqual(t, sum.states, *crashStates)
	for _, n := range []int{sum.tails, sum.dropped, sum.orphans, sum.removals} {
		require.NotZero(t, n, "the run has not met what it is made for")
	}
}

// allSequences returns all sequences of one to three of the short steps, and
// random ones of thirty.
func allSequences() (sequences [][]int) {
	for a := range shortSteps {
		sequences = append(sequences, []int{a})
		for b := range shortSteps {
			sequences = append(sequences, []int{a, b})
			for c := range shortSteps {
				sequences = append(sequences, []int{a, b, c})
			}
		}
	}
	rnd := rand.New(rand.NewPCG(*crashSeed, 1))
	for range *crashLong {
		long := make([]int, 30)
		for i := range long {
			long[i] = rnd.IntN(len(steps))
		}
		sequences = append(sequences, long)
	}
	return sequences
}

func runSequence(t *testing.T, seq []int, seed uint64, sum *sums) {
	names := make([]string, len(seq))
	for i, s := range seq {
		names[i] = steps[s].name
	}
	m := newMachine(t, strings.Join(names, " "), seed, sum)
	for i, s := range seq {
		m.quiet = !*crashAll && len(seq) <= 3 && i < len(seq)-1
		steps[s].do(m)
		require.False(t, t.Failed(), "%s: replay with -crash.seed=%d", m.name, *crashSeed)
	}
	require.NoError(t, m.db.Close(), m.name)
	m.fs.Hook(nil)
	require.Zero(t, m.fs.OpenFiles(), "%s: files are left open", m.name)
}
