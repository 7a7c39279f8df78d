package annals

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/fuzz/seed"
)

// written is what a test has appended and put.
type written struct {
	clock   *fakeClock
	rules   Retention
	samples []Sample // all that ever were
	keys    model
	sizes   map[uint64]int64 // of lines, by number
	trusted int64            // the latest time by which samples may have gone
}

func newWritten() *written {
	return &written{clock: newFakeClock(), keys: model{}, sizes: map[uint64]int64{}}
}

func (r *written) options(fs *faultfs.FS) *Options {
	o := &Options{
		SegmentSize: 4 << 10, Sync: SyncEvery(time.Millisecond), Now: r.clock.Now, Retention: r.rules,
		Compaction: Compaction{Grace: time.Nanosecond, Rate: 1 << 30},
	}
	if fs != nil {
		o.FS = fs
	}
	return o
}

func (r *written) record(t *testing.T, rng *rand.Rand, db *Store, n int) {
	db.compaction.job.Lock() // nothing goes that was not measured
	defer db.compaction.job.Unlock()
	defer r.measure(t, db)
	for range n {
		r.clock.move(time.Second)
		if rng.IntN(8) == 0 {
			key, value := fmt.Sprint("key", rng.IntN(10)), fmt.Sprint(rng.IntN(1000))
			put(t, db, key, value)
			r.keys[key] = value
		}
		s := Sample{Series: fmt.Sprint("s", rng.IntN(5)), At: r.clock.Now(), Value: fmt.Appendf(nil, `"%s"`, strings.Repeat("x", rng.IntN(60)))}
		if rng.IntN(20) == 0 {
			s.At = s.At.Add(-time.Duration(rng.IntN(600)) * time.Second)
		}
		var err error
		s.Seq, err = db.Append(s.Series, s.Value, At(s.At))
		require.NoError(t, err)
		r.samples = append(r.samples, s)
	}
}

var seqOf = regexp.MustCompile(`(?m)^\{"seq":(\d+).*\n`)

// measure notes the lengths of all lines that are there.
func (r *written) measure(t *testing.T, db *Store) {
	r.trusted = max(r.trusted, db.clock.trusted(time.Nanosecond))
	_, err := db.Sync(t.Context())
	require.NoError(t, err)
	for _, path := range segmentsIn(t, db.dir) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range seqOf.FindAllSubmatch(text, -1) {
			seq, err := strconv.ParseUint(string(m[1]), 10, 64)
			require.NoError(t, err)
			r.sizes[seq] = int64(len(m[0]))
		}
	}
}

// within splits the samples of a series that were there before into those that may go
// and those that must stay.
func (r *written) within(before []Sample, now int64) (stay []Sample) {
	bytes, count := int64(0), int64(0)
	for _, s := range slices.Backward(before) {
		l := r.rules.of(s.Series)
		count++
		bytes += r.sizes[s.Seq]
		switch {
		case l.Count > 0 && count > l.Count:
		case l.Bytes > 0 && bytes > l.Bytes && count > 1:
		case l.Age > 0 && s.At.UnixMicro() < now-l.Age.Microseconds():
		default:
			stay = append(stay, s)
		}
	}
	slices.Reverse(stay)
	return stay
}

// check makes sure that what is within the limits is there, nothing that was not there
// before, and that all is counted; exact: that nothing is there that is beyond.
func (r *written) check(t *testing.T, db *Store, before map[string][]Sample, exact bool) (now map[string][]Sample) {
	t.Helper()
	db.compaction.job.Lock() // nothing goes meanwhile
	defer db.compaction.job.Unlock()
	r.measure(t, db)
	trusted := db.clock.trusted(time.Nanosecond)
	now, all := map[string][]Sample{}, r.left()
	sums := map[string]SeriesInfo{}
	for _, info := range series(t, db) {
		sums[info.Name] = info
	}
	for i := range 5 {
		name := fmt.Sprint("s", i)
		now[name] = samples(t, db, name, Window{})
		have := plain(now[name])
		was := map[string]bool{}
		for _, line := range plain(before[name]) {
			was[line] = true
		}
		bytes := int64(0)
		for j, line := range have {
			require.True(t, was[line], "%s was not there", line)
			bytes += r.sizes[now[name][j].Seq]
			info := sums[name]
			require.False(t, now[name][j].At.Before(info.First) || now[name][j].At.After(info.Last) || now[name][j].Seq < info.FirstSeq || now[name][j].Seq > info.LastSeq, "%+v", info)
		}
		require.EqualValues(t, len(have), sums[name].Samples, name)
		require.Equal(t, bytes, sums[name].Bytes, name)
		if exact {
			// Of two samples that may go the newer one may have gone before: then the older one
			// counts as one of the newest, for who does not know.
			most := plain(r.within(before[name], trusted))
			for _, line := range have {
				require.Contains(t, most, line, "it is beyond the limits: %+v", r.rules)
			}
		}
		for _, line := range plain(r.within(all[name], r.trusted)) {
			require.Contains(t, have, line, "it is within the limits")
		}
	}
	r.keys.holds(t, db)
	return now
}

// left is what was written, as it would be if nothing had gone.
func (r *written) left() map[string][]Sample {
	all := map[string][]Sample{}
	for _, s := range r.samples {
		all[s.Series] = append(all[s.Series], s)
	}
	return all
}

// Whatever the limits, compaction by hand leaves exactly what is within them, compaction
// in the background that and perhaps more, keys as they are, and what is gone does not
// come back, neither after a crash nor under other limits.
func TestRetentionTakesWhatIsBeyondAndNothingElse(t *testing.T) {
	rng := seed.Rand(t)
	for range 6 {
		r := newWritten()
		limits := func() (l Limits) {
			if rng.IntN(2) == 0 {
				l.Age = time.Duration(20+rng.IntN(400)) * time.Second
			}
			if rng.IntN(2) == 0 {
				l.Count = int64(1 + rng.IntN(1+rng.IntN(60)))
			}
			if rng.IntN(2) == 0 {
				l.Bytes = int64(1 + rng.IntN(1+rng.IntN(8000)))
			}
			return l
		}
		r.rules.Default = limits()
		if rng.IntN(2) == 0 {
			r.rules.Series = map[string]Limits{"s1": limits(), "s2": {}}
		}
		db := open(t, r.options(nil))
		before := map[string][]Sample{}
		known := 0
		for range 8 {
			r.record(t, rng, db, 20+rng.IntN(200))
			for _, s := range r.samples[known:] {
				before[s.Series] = append(before[s.Series], s)
			}
			known = len(r.samples)
			switch rng.IntN(5) {
			case 0, 1:
				// What is there when Compact begins, less what the background took.
				before = r.check(t, db, before, false)
				compactAll(t, db)
				before = r.check(t, db, before, true)
			case 2:
				db = reopen(t, db, r.options(nil))
			case 3:
				_, err := db.Sync(t.Context())
				require.NoError(t, err)
				db = openAt(t, killed(t, db), r.options(nil))
			case 4:
				require.NoError(t, db.Checkpoint(t.Context()))
			}
			before = r.check(t, db, before, false)
		}
		opts := r.options(nil)
		opts.Retention = Retention{}
		db = reopen(t, db, opts)
		r.check(t, db, before, false)
		db = reopen(t, db, r.options(nil))
		compactAll(t, db)
		r.check(t, db, before, true)
	}
}

// A background store does it by itself.
func TestRetentionWorksInTheBackground(t *testing.T) {
	rng := seed.Rand(t)
	r := newWritten()
	r.rules = Retention{Default: Limits{Age: time.Hour}, Series: map[string]Limits{"s1": {Count: 10}, "s2": {Bytes: 1000}}}
	opts := r.options(nil)
	db := open(t, opts)
	r.record(t, rng, db, 1000)
	r.clock.move(2 * time.Hour)
	r.record(t, rng, db, 1000)
	all := len(r.samples)
	eventually(t, "samples have gone", func() bool { st := db.Stats(); return st.Compaction.Retired > 0 && st.Compaction.Unlinked > 0 })
	eventually(t, "half has gone", func() bool {
		put(t, db, "key0", "again")
		r.keys["key0"] = "again"
		return db.Stats().Samples < uint64(all/2)
	})
	r.check(t, db, r.left(), false)
	st := db.Stats()
	require.EqualValues(t, all, st.Samples+st.Compaction.Retired)
	require.Positive(t, st.Compaction.RetiredBytes)
}

// A segment in which all may go is removed as it is: no byte is written for it, and no
// number of a new file is used.
func TestWhollyDeadSegmentsAreUnlinked(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{SegmentSize: 4 << 10, Now: clock.Now, Retention: Retention{Default: Limits{Age: time.Hour}}, Compaction: Compaction{Grace: time.Nanosecond, Off: true}})
	for range 5 {
		for range 50 {
			_, err := db.Append("s", []byte(`"a sample of some length"`))
			require.NoError(t, err)
		}
		require.NoError(t, db.log.Rotate(t.Context()))
		clock.move(time.Minute)
	}
	clock.move(57 * time.Minute)
	next := db.manifest.next.Load()
	stats, err := db.Compact(t.Context(), nil)
	require.NoError(t, err)
	require.EqualValues(t, 100, stats.Retired)
	require.Positive(t, stats.Unlinked)
	require.Equal(t, stats.Before, stats.After+int64(0)+db.Stats().Compaction.Reclaimed)
	require.Len(t, samples(t, db, "s", Window{}), 150)
	again := db.manifest.next.Load()
	t.Logf("numbers %d to %d, %+v", next, again, stats)

	clock.move(24 * time.Hour)
	stats, err = db.Compact(t.Context(), nil)
	require.NoError(t, err)
	require.EqualValues(t, 150, stats.Retired)
	require.Equal(t, stats.Inputs, stats.Unlinked)
	require.Zero(t, stats.Outputs)
	require.Empty(t, series(t, db))
	require.Equal(t, again, db.manifest.next.Load())
	db = reopen(t, db, nil)
	require.Empty(t, series(t, db))
	_, err = db.Append("s", nil)
	require.NoError(t, err)
	require.Len(t, samples(t, db, "s", Window{}), 1)
}

// A watcher whose history was dropped is told where to go on.
func TestWatchBehindRetentionIsTold(t *testing.T) {
	db := open(t, &Options{SegmentSize: 4 << 10, Retention: Retention{Default: Limits{Count: 10}}})
	for range 100 {
		_, err := db.Append("s", []byte("1"))
		require.NoError(t, err)
	}
	compactAll(t, db)
	var compacted *CompactedError
	for _, err := range db.Watch(t.Context(), 1) {
		require.ErrorAs(t, err, &compacted)
		require.ErrorIs(t, err, ErrCompacted)
	}
	_, err := db.Append("s", []byte("2"))
	require.NoError(t, err)
	require.EqualValues(t, 101, compacted.First)
	for rec, err := range db.Watch(t.Context(), compacted.First) {
		require.NoError(t, err)
		require.EqualValues(t, 101, rec.Seq)
		break
	}
	snapshot := db.Snapshot()
	defer snapshot.Close()
	require.Len(t, samples(t, snapshot, "s", Window{}), 11)
}

// A snapshot keeps what it has.
func TestSnapshotKeepsSamplesThatGo(t *testing.T) {
	db := open(t, &Options{SegmentSize: 4 << 10, Retention: Retention{Default: Limits{Count: 1}}})
	for range 200 {
		_, err := db.Append("s", []byte("1"))
		require.NoError(t, err)
	}
	snapshot := db.Snapshot()
	defer snapshot.Close()
	compactAll(t, db)
	require.Len(t, samples(t, db, "s", Window{}), 1)
	require.Len(t, samples(t, snapshot, "s", Window{}), 200)
}

// History is stronger than Retention.
func TestHistoryKeepsSamplesThatMightGo(t *testing.T) {
	db := open(t, &Options{SegmentSize: 4 << 10, History: 150, Retention: Retention{Default: Limits{Count: 1}}})
	for range 400 {
		_, err := db.Append("s", []byte("1"))
		require.NoError(t, err)
	}
	compactAll(t, db)
	left := samples(t, db, "s", Window{})
	require.GreaterOrEqual(t, len(left), 150)
	require.Less(t, len(left), 300)
	require.EqualValues(t, 400, left[len(left)-1].Seq)
}

// A clock that is far ahead for a while takes nothing.
func TestClockFarAheadTakesNoSamples(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{SegmentSize: 4 << 10, Now: clock.Now, Retention: Retention{Default: Limits{Age: time.Hour}}}
	db := open(t, opts)
	for range 300 {
		_, err := db.Append("s", []byte("1"))
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
	clock.move(10 * 365 * 24 * time.Hour)
	db = openAt(t, db.dir, opts)
	compactAll(t, db)
	require.Len(t, samples(t, db, "s", Window{}), 300)
	clock.move(25 * time.Hour) // it is not for a while
	compactAll(t, db)
	require.Empty(t, samples(t, db, "s", Window{}))
}

// Damage stops retention as it stops compaction: who knows what was there.
func TestRetentionStopsAtDamage(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{SegmentSize: 4 << 10, Now: clock.Now, Retention: Retention{Default: Limits{Age: time.Hour}}, Compaction: Compaction{Grace: time.Nanosecond, Off: true}, Checkpoint: 1}
	db, err := Open(filepath.Join(t.TempDir(), "store"), opts)
	require.NoError(t, err)
	for range 300 {
		_, err := db.Append("s", []byte(`"sample"`))
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
	flip(t, segmentsIn(t, db.dir)[1], `"sample"`)
	db = openDamaged(t, db.dir, opts)
	clock.move(48 * time.Hour)
	_, err = db.Compact(t.Context(), nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.NotEmpty(t, db.Stats().Damage)
	require.Len(t, segmentsIn(t, db.dir), len(db.Stats().Segments))
	require.NoError(t, db.Close())
}

func TestRetentionOptionsAreChecked(t *testing.T) {
	for _, r := range []Retention{{Default: Limits{Age: -1}}, {Series: map[string]Limits{"s": {Count: -1}}}, {Default: Limits{Bytes: -5}}} {
		_, err := Open(t.TempDir(), &Options{Retention: r})
		require.ErrorContains(t, err, "Retention")
	}
}

// badRun appends, syncs, saves the index and compacts until something fails. What is told
// as durable, and what a Compact that has succeeded left out, is noted.
type badRun struct {
	*written
	mu      sync.Mutex // the disk looks at it, too
	durable uint64
	gone    map[string]bool
}

func newBadRun() *badRun {
	b := &badRun{written: newWritten(), gone: map[string]bool{}}
	b.rules = Retention{Default: Limits{Count: 20}, Series: map[string]Limits{"s1": {Age: 40 * time.Second}, "s2": {Bytes: 2000}}}
	return b
}

func (b *badRun) run(t *testing.T, fs *faultfs.FS) (err error) {
	rng := rand.New(rand.NewPCG(3, 3))
	opts := b.options(fs)
	opts.Sync, opts.Compaction.Off = SyncNever, true
	db, err := Open("store", opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for round := range 3 {
		var batch Batch
		for range 60 {
			b.clock.move(time.Second)
			s := Sample{Series: fmt.Sprint("s", rng.IntN(3)), At: b.clock.Now(), Value: bytes.Repeat([]byte("x"), 40)}
			if s.Seq, err = db.Append(s.Series, s.Value, At(s.At)); err != nil {
				return err
			}
			b.note(func() { b.samples = append(b.samples, s) })
		}
		batch.Put("k", fmt.Append(nil, round))
		if _, err := db.Apply(&batch); err != nil {
			return err
		}
		durable, err := db.Sync(t.Context())
		if err != nil {
			return err
		}
		b.note(func() { b.durable = durable })
		if round == 0 {
			if err := db.Checkpoint(t.Context()); err != nil {
				return err
			}
		}
		if _, err := db.Compact(t.Context(), nil); err != nil {
			return err
		}
		for name, list := range b.left() {
			var have []string
			for s, err := range db.Samples(name, Window{}) {
				if err != nil {
					return err
				}
				have = append(have, plain([]Sample{s})...)
			}
			for _, line := range plain(list) {
				if !slices.Contains(have, line) {
					b.note(func() { b.gone[line] = true })
				}
			}
		}
	}
	return nil
}

func (b *badRun) note(what func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	what()
}

// now is what is noted so far.
func (b *badRun) now() *badRun {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec := *b.written
	return &badRun{written: &rec, durable: b.durable, gone: maps.Clone(b.gone)}
}

// check opens what is on the disk.
func (b *badRun) check(t *testing.T, fs *faultfs.FS, when string) {
	opts := b.options(fs)
	opts.Retention, opts.Compaction.Off = Retention{}, true
	db, err := Open("store", opts)
	require.NoError(t, err, when)
	counted := map[string]uint64{}
	for _, info := range series(t, db) {
		counted[info.Name] = info.Samples
	}
	b.sizes = map[uint64]int64{}
	for _, s := range b.samples {
		b.sizes[s.Seq] = 160 // at the most
	}
	for name, list := range b.left() {
		have := plain(samples(t, db, name, Window{}))
		require.EqualValues(t, len(have), counted[name], "%s: %s", when, name)
		for _, line := range have {
			require.False(t, b.gone[line], "%s: %s came back", when, line)
			if seq, _, _ := strings.Cut(line, " "); !slices.Contains(plain(list), line) {
				n, _ := strconv.ParseUint(seq, 10, 64)
				require.Greater(t, n, list[len(list)-1].Seq, "%s: %s was not appended", when, line)
			}
		}
		for _, s := range b.within(list, b.clock.Now().UnixMicro()) {
			if s.Seq <= b.durable {
				require.Contains(t, have, plain([]Sample{s})[0], "%s: within the limits", when)
			}
		}
	}
	require.NoError(t, db.Close())
}

// Every operation of the disk fails, and the machine crashes before every one of them:
// what is within the limits is there, all is counted right, and what was gone stays gone.
func TestRetentionOnABadDisk(t *testing.T) {
	whole, first := faultfs.New(), newBadRun()
	require.NoError(t, first.run(t, whole))
	first.check(t, whole, "all is well")
	require.Greater(t, len(first.gone), 60)
	ops := whole.Ops()
	step := 1
	if raceDetector {
		step = 7
	}
	for k := 0; k < ops; k += step {
		for _, forever := range []bool{false, true} {
			fs, b := faultfs.New(), newBadRun()
			fs.Inject(faultfs.FailAt(k+1, syscall.ENOSPC, 0, forever).Fault)
			err := b.run(t, fs)
			fs.Inject(nil)
			b.check(t, fs.Kill(), fmt.Sprintf("operation %d failed (%v): %v", k, forever, err))
		}
		fs, b := faultfs.New(), newBadRun()
		var crashed *faultfs.FS
		var then *badRun
		var n atomic.Int64
		fs.Hook(func(faultfs.Op) {
			if n.Add(1) == int64(k+1) {
				then, crashed = b.now(), fs.Clone()
			}
		})
		_ = b.run(t, fs)
		if crashed == nil {
			continue
		}
		then.check(t, crashed.Crash(func(int) bool { return false }), fmt.Sprintf("crash before operation %d", k))
		then.check(t, crashed.Crash(func(i int) bool { return i%2 == 0 }), fmt.Sprintf("crash before operation %d, half on the disk", k))
	}
}

// A series of which no sample is left loses its number, and the next new one gets that. A
// snapshot from before still has all of it, and nothing of what came later.
func TestSnapshotKeepsASeriesThatGoesAltogether(t *testing.T) {
	r := newWritten()
	r.rules.Series = map[string]Limits{"a": {Age: time.Minute}}
	db := open(t, r.options(nil))
	add := func(name string) {
		for i := range 3 {
			_, err := db.Append(name, fmt.Append(nil, i), At(r.clock.Now()))
			require.NoError(t, err)
		}
	}
	add("a")
	add("stays")
	before := db.Snapshot()
	defer before.Close()
	was := plain(samples(t, before, "a", Window{}))
	require.Len(t, was, 3)
	r.clock.move(time.Hour)
	eventually(t, "the samples go", func() bool {
		r.clock.move(time.Hour)
		compactAll(t, db)
		return len(samples(t, db, "a", Window{})) == 0
	})
	require.Equal(t, was, plain(samples(t, before, "a", Window{})))
	add("b")
	require.Equal(t, was, plain(samples(t, before, "a", Window{})))
	require.Empty(t, samples(t, before, "b", Window{}))
	add("a")
	require.Equal(t, was, plain(samples(t, before, "a", Window{})))
	require.Len(t, samples(t, db, "a", Window{}), 3)
	require.Len(t, samples(t, db, "b", Window{}), 3)
}
