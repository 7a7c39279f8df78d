package annals

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// churn makes random changes to keys, and appends samples.
func churn(t testing.TB, rng *rand.Rand, db *Store, want model, all []Sample, n int) []Sample {
	t.Helper()
	for i := range n {
		key := randomKey(rng)
		switch rng.IntN(6) {
		case 0:
			del(t, db, key)
			delete(want, key)
		case 1:
			s := Sample{Series: fmt.Sprint("s", rng.IntN(3)), At: time.UnixMicro(int64(rng.IntN(1000))), Value: []byte(key)}
			var err error
			s.Seq, err = db.Append(s.Series, s.Value, At(s.At))
			require.NoError(t, err)
			all = append(all, s)
		default:
			want[key] = fmt.Sprint(i, rng.IntN(1000))
			put(t, db, key, want[key])
		}
	}
	return all
}

// records returns all records of a sealed segment, and its header.
func records(t testing.TB, path string) (segment.Header, []Record) {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	info, err := file.Stat()
	require.NoError(t, err)
	h, _, err := segment.ReadHeader(file, info.Size(), path)
	require.NoError(t, err)
	var list []Record
	scan := segment.NewScanner(file, 0, info.Size())
	for scan.Scan() {
		require.NotEqual(t, segment.BadLine, scan.Line().Kind)
		if scan.Line().Kind == segment.RecordLine {
			list = append(list, recordOf(&scan.Line().View))
		}
	}
	require.NoError(t, scan.Err())
	return h, list
}

func TestCompactKeepsWhatCanBeReadAndNothingElse(t *testing.T) {
	rng := seed.Rand(t)
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			opts := &Options{SegmentSize: minSegment, Sync: policy, Compaction: Compaction{Off: true}}
			db := open(t, opts)
			want := model{}
			var all []Sample
			check := func() {
				t.Helper()
				want.holds(t, db)
				for i := range 3 {
					name := fmt.Sprint("s", i)
					require.Equal(t, plain(window(all, name, Window{})), plain(samples(t, db, name, Window{})))
				}
			}
			for round := range 4 {
				all = churn(t, rng, db, want, all, 300)
				_, err := db.Sync(t.Context())
				require.NoError(t, err)
				before := db.Stats()
				stats := compactAll(t, db)
				after := db.Stats()
				require.Less(t, after.Bytes, before.Bytes, "it shrinks")
				require.EqualValues(t, len(want)+len(all), stats.Kept, "tombstones and dead records are gone")
				require.Equal(t, stats.Before-stats.After, after.Compaction.Reclaimed-before.Compaction.Reclaimed)
				require.Equal(t, stats.Outputs+1, len(after.Segments), "the outputs and the open segment")
				check()
				db = reopen(t, db, opts)
				check()
				require.EqualValues(t, len(want)+len(all), db.Recovery().Replayed)
				if round == 2 {
					require.Zero(t, compactAll(t, db).Inputs, "there is nothing left to do")
				}
			}
			lastKey, lastSeq := "", uint64(0)
			for _, path := range segmentsIn(t, db.dir) {
				h, list := records(t, path)
				require.True(t, h.Compacted())
				for i, r := range list {
					if h.Order == segment.BySeq {
						require.Equal(t, KindSample, r.Kind)
						require.Greater(t, r.Seq, lastSeq)
						lastSeq = r.Seq
						continue
					}
					require.Equal(t, KindPut, r.Kind)
					require.True(t, i == 0 || r.Key > lastKey, "%q behind %q", r.Key, lastKey)
					lastKey = r.Key
				}
			}
		})
	}
}

func TestTombstoneStaysWhileAnOlderSegmentMayHoldItsKey(t *testing.T) {
	opts := &Options{Compaction: Compaction{Off: true}}
	db := open(t, opts)
	put(t, db, "k", "old")
	put(t, db, "other", "1")
	db = reopen(t, db, opts)
	del(t, db, "k")
	put(t, db, "more", "2")
	db = reopen(t, db, opts)
	put(t, db, "last", "3")
	db = reopen(t, db, opts)
	sealed := db.manifest.copy().Sealed
	require.Len(t, sealed, 3)
	run := func(inputs ...uint64) {
		db.compaction.job.Lock()
		defer db.compaction.job.Unlock()
		_, err := db.compactLocked(t.Context(), inputs, pace(0, nil), false)
		require.NoError(t, err)
	}
	tombstones := func() (n int) {
		for _, path := range segmentsIn(t, db.dir) {
			_, list := records(t, path)
			for _, r := range list {
				if r.Kind == KindDelete {
					n++
				}
			}
		}
		return n
	}
	run(sealed[1].Segment, sealed[2].Segment)
	require.Equal(t, 1, tombstones(), "segment 1 holds the key still")
	absent(t, db, "k")
	db = reopen(t, db, opts)
	absent(t, db, "k")
	compactAll(t, db)
	require.Zero(t, tombstones())
	db = reopen(t, db, opts)
	require.Equal(t, []string{"last=3", "more=2", "other=1"}, scan(t, db, Range{}))
}

// Random subsets of segments are rewritten: dead keys must stay dead.
func TestCompactionOfAnySegmentsChangesNothing(t *testing.T) {
	rng := seed.Rand(t)
	clock := newFakeClock()
	opts := &Options{SegmentSize: minSegment, Now: clock.Now, Compaction: Compaction{Off: true, Grace: time.Hour}}
	db := open(t, opts)
	want := model{}
	var all []Sample
	for range 25 {
		all = churn(t, rng, db, want, all, 60)
		key := randomKey(rng)
		put(t, db, key, "expires", TTL(time.Minute))
		delete(want, key)
		clock.move(time.Duration(rng.IntN(3)) * time.Hour)
		clock.move(2 * time.Minute)
		var inputs []uint64
		for _, f := range db.manifest.copy().Sealed {
			if rng.IntN(2) == 0 {
				inputs = append(inputs, f.Segment)
			}
		}
		if len(inputs) > 0 {
			db.compaction.job.Lock()
			_, err := db.compactLocked(t.Context(), inputs, pace(0, nil), false)
			db.compaction.job.Unlock()
			require.NoError(t, err)
		}
		check := func() {
			want.holds(t, db)
			for i := range 3 {
				for _, w := range []Window{{}, {Reverse: true}, {Limit: 5}, randomWindow(rng, append(all, Sample{At: time.UnixMicro(5)}))} {
					name := fmt.Sprint("s", i)
					require.Equal(t, plain(window(all, name, w)), plain(samples(t, db, name, w)), "%s %+v", name, w)
				}
			}
		}
		check()
		if rng.IntN(3) == 0 {
			db = reopen(t, db, opts)
			check()
		}
	}
}

func TestBackgroundCompactionStartsByItselfAndStaysRight(t *testing.T) {
	db := open(t, &Options{SegmentSize: 64 << 10, Sync: SyncEvery(time.Millisecond), Compaction: Compaction{Rate: 1 << 30}})
	const goroutines = 4
	wants := make([]model, goroutines)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range goroutines {
		wants[g] = model{}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprint(g, ".", rng.IntN(30))
				var err error
				if rng.IntN(5) == 0 {
					err = db.Delete(key)
					delete(wants[g], key)
				} else {
					wants[g][key] = fmt.Sprint(i)
					err = db.Put(key, []byte(wants[g][key]))
				}
				if err != nil {
					t.Error(err)
					return
				}
				if i%100 == 99 { // or the buffer is always full, and each job waits for all of it
					if _, err := db.Sync(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
				key = fmt.Sprint(g, ".", rng.IntN(30))
				if v, err := db.Get(key); err == nil && string(v) != wants[g][key] || err != nil && wants[g][key] != "" {
					t.Errorf("key %s is %q, %v instead of %q", key, v, err, wants[g][key])
					return
				}
			}
		})
	}
	eventually(t, "compaction runs", func() bool { return db.Stats().Compaction.Runs > 2 })
	close(stop)
	wg.Wait()
	require.Empty(t, db.Stats().Compaction.LastError)
	want := model{}
	for _, w := range wants {
		for key, value := range w {
			want[key] = value
		}
	}
	want.holds(t, db)
	db = reopen(t, db, nil)
	want.holds(t, db)
}

func TestManySmallSegmentsAreJoined(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	want := model{}
	for i := range 70 {
		db, err := Open(dir, &Options{Compaction: Compaction{Off: true}})
		require.NoError(t, err)
		want[fmt.Sprint("k", i)] = "v"
		put(t, db, fmt.Sprint("k", i), "v")
		require.NoError(t, db.Close())
	}
	require.Len(t, segmentsIn(t, dir), 70)
	db := openAt(t, dir, nil)
	eventually(t, "the segments are joined", func() bool { return len(db.Stats().Segments) < 10 })
	want.holds(t, db)
}

func TestDamageInAnInputStopsCompaction(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	db := openDamaged(t, dir, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	for i := range 200 {
		put(t, db, fmt.Sprintf("k%03d", i), "value")
	}
	path := segmentsIn(t, dir)[1]
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	at := len(text) / 2
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteAt([]byte{text[at] ^ 1}, int64(at))
	require.NoError(t, err)
	require.NoError(t, file.Close())

	_, err = db.Compact(t.Context(), nil)
	require.ErrorIs(t, err, ErrCorrupt)
	after := tree(t, dir)
	require.Len(t, segmentsIn(t, dir), len(db.Stats().Segments), "no output is left")
	require.NotEmpty(t, db.Stats().Damage)
	require.NotEmpty(t, db.Stats().Compaction.LastError)
	_, err = db.Compact(t.Context(), nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.Equal(t, after[filepath.Base(path)], tree(t, dir)[filepath.Base(path)])

	bad := 0
	for e, err := range db.Scan(Range{}) {
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			require.NotEmpty(t, e.Key, "the error comes with the key")
			_, err := db.Get(e.Key)
			require.ErrorIs(t, err, ErrCorrupt)
			bad++
		} else {
			require.Equal(t, "value", string(e.Value))
		}
	}
	require.Equal(t, 1, bad, "the other values can be read")
	put(t, db, "writes", "go on")
}

func TestCancelledCompactionLeavesNoFile(t *testing.T) {
	db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	want := model{}
	for i := range 300 {
		key := fmt.Sprintf("k%03d", i%150)
		want[key] = fmt.Sprint(i)
		put(t, db, key, want[key])
	}
	db = reopen(t, db, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	before := tree(t, db.dir)
	inputs := []uint64{}
	for _, f := range db.manifest.copy().Sealed {
		inputs = append(inputs, f.Segment)
	}
	for stopAt := 1; ; stopAt += 7 {
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		db.compaction.job.Lock()
		_, err := db.compactLocked(ctx, inputs, func(context.Context, int) error {
			if calls++; calls == stopAt {
				cancel()
			}
			return nil
		}, false)
		db.compaction.job.Unlock()
		cancel()
		if err == nil {
			require.Greater(t, stopAt, 100, "it was stopped in each of its phases")
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		sameTree(t, before, tree(t, db.dir))
		want.holds(t, db)
	}
	want.holds(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := db.Compact(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestFullDiskStopsCompactionAndChangesNothing(t *testing.T) {
	hooks := newHookFS()
	opts := &Options{FS: hooks, SegmentSize: minSegment, Compaction: Compaction{Off: true}}
	db := open(t, opts)
	want := model{}
	for i := range 200 {
		key := fmt.Sprintf("k%03d", i%100)
		want[key] = fmt.Sprint(i)
		put(t, db, key, want[key])
	}
	db = reopen(t, db, opts)
	before := tree(t, db.dir)
	for _, hook := range []func(func(string) error){
		func(fn func(string) error) { set(&hooks.onWrite, fn) },
		func(fn func(string) error) { set(&hooks.onSync, fn) },
	} {
		hook(func(string) error { return errNoRoom })
		_, err := db.Compact(t.Context(), nil)
		require.ErrorIs(t, err, errNoRoom)
		hook(nil)
		sameTree(t, before, tree(t, db.dir))
		want.holds(t, db)
		require.Empty(t, db.Stats().Failed, "a file that nothing lists yet only fails its job")
	}
	compactAll(t, db)
	want.holds(t, db)
}

func TestCloseStopsACompactionAndChangesNothing(t *testing.T) {
	hooks := newHookFS()
	opts := &Options{FS: hooks, SegmentSize: minSegment, Compaction: Compaction{Off: true}}
	db := open(t, opts)
	want := model{}
	for i := range 200 {
		key := fmt.Sprintf("k%03d", i%100)
		want[key] = fmt.Sprint(i)
		put(t, db, key, want[key])
	}
	db = reopen(t, db, opts)
	waiting, release := hooks.holdSyncs(t)
	done := make(chan error)
	go func() {
		_, err := db.Compact(t.Context(), nil)
		done <- err
	}()
	<-waiting
	closed := make(chan error)
	go func() { closed <- db.Close() }()
	eventually(t, "Close has begun", func() bool { return db.compaction.ctx.Err() != nil })
	release()
	within(t, "Close", func() {
		require.NoError(t, <-closed)
		require.ErrorIs(t, <-done, ErrClosed)
	})
	require.Len(t, segmentsIn(t, db.dir), len(db.Stats().Segments))
	db = openAt(t, db.dir, nil)
	require.True(t, db.Recovery().Clean)
	want.holds(t, db)
}

func TestCompactReportsProgress(t *testing.T) {
	db := open(t, nil)
	value := make([]byte, 1<<20)
	for i := range 8 {
		require.NoError(t, db.Put(fmt.Sprint("k", i), value))
	}
	last, calls := int64(0), 0
	_, err := db.Compact(t.Context(), func(done, total int64) {
		require.GreaterOrEqual(t, done, last)
		require.LessOrEqual(t, done, total)
		last = done
		calls++
	})
	require.NoError(t, err)
	require.Greater(t, calls, 3)
}

// Damage to samples costs these samples, not the store; and nobody is left to
// believe that there are none.
func TestDamagedSamplesAreReportedWhereverTheyLie(t *testing.T) {
	db := open(t, nil)
	const n = 2000 // several blocks of the index
	var b Batch
	for i := range n {
		b.Append("s", fmt.Appendf(nil, `{"n":%d,"pad":"%0100d"}`, i, i))
	}
	_, err := db.Apply(&b)
	require.NoError(t, err)
	put(t, db, "k", "v")
	compactAll(t, db)
	require.NoError(t, db.Close())
	for _, i := range []int{0, 1, n / 3, n / 2, n - 2, n - 1} {
		t.Run(fmt.Sprint("sample ", i), func(t *testing.T) {
			dir := copyDir(t, db.dir)
			for _, path := range segmentsIn(t, dir) {
				if h, _ := records(t, path); h.Order == segment.BySeq {
					flip(t, path, fmt.Sprintf(`{"n":%d,`, i))
				}
			}
			db := openDamaged(t, dir, nil)
			present(t, db, "k", "v")
			require.NotEmpty(t, db.Stats().Damage)
			for _, w := range []Window{{}, {Reverse: true}} {
				good, bad := 0, 0
				for s, err := range db.Samples("s", w) {
					if err != nil {
						require.ErrorIs(t, err, ErrCorrupt)
						require.Equal(t, "s", s.Series)
						bad++
					} else {
						good++
					}
				}
				require.Equal(t, n-1, good)
				require.Equal(t, 1, bad, "the loop tells that a sample is missing")
			}
			_, err := db.Compact(t.Context(), nil)
			if err == nil { // all of it is settled: there is nothing to rewrite
				del(t, db, "k")
				_, err = db.Compact(t.Context(), nil)
			}
			require.ErrorIs(t, err, ErrCorrupt)
		})
	}
}

var errNoRoom = fmt.Errorf("no room: %w", syscall.ENOSPC)

var _ replace.FS = (*hookFS)(nil)

// A small store is mostly headers. Rewriting it gains nothing, and rewriting the
// outcome gains nothing again, for ever.
func TestBackgroundCompactionComesToRest(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10} {
		t.Run(fmt.Sprint(n, " keys"), func(t *testing.T) {
			db := open(t, nil)
			for i := range n {
				put(t, db, fmt.Sprint("k", i), "v")
			}
			_, err := db.Append("s", []byte("v"))
			require.NoError(t, err)
			db = reopen(t, db, nil)
			put(t, db, "k0", "again")
			db = reopen(t, db, nil)
			// There is no condition to wait for: the fault is that it never ends.
			time.Sleep(300 * time.Millisecond)
			require.LessOrEqual(t, db.Stats().Compaction.Runs, uint64(3))
		})
	}
}

// A record that is not yet durable makes an older one dead. Before the older one
// goes the newer one is synced, or a crash would leave neither.
func TestCompactionWaitsForTheRecordThatMadeAnotherDead(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncEvery(time.Hour), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			fs := faultfs.New()
			opts := &Options{FS: fs, Sync: policy, Compaction: Compaction{Off: true}}
			db, err := Open("/store", opts)
			require.NoError(t, err)
			put(t, db, "k", "old")
			put(t, db, "other", "1")
			require.NoError(t, db.log.Rotate(t.Context()))
			put(t, db, "k", "new")
			db.compaction.job.Lock()
			stats, err := db.compactLocked(t.Context(), []uint64{1}, pace(0, nil), false)
			db.compaction.job.Unlock()
			require.NoError(t, err)
			require.EqualValues(t, 1, stats.Dropped)
			crashed, err := Open("/store", &Options{FS: fs.Crash(func(int) bool { return false })})
			require.NoError(t, err)
			require.Equal(t, []string{"k=new", "other=1"}, scan(t, crashed, Range{}))
			require.NoError(t, crashed.Close())
			require.NoError(t, db.Close())
		})
	}
}

// Every operation of a compaction fails. Either the store goes on as before, and the
// next compaction succeeds, or it takes no more writes; nothing that was
// acknowledged is lost in either case, nor in a power cut.
func TestCompactionThatFailsAnywhereLosesNothing(t *testing.T) {
	went, ended, stride := 0, 0, 1
	if raceDetector {
		stride = 5
	}
	for _, forever := range []bool{false, true} {
		for n := 1; ; n += stride {
			fs := faultfs.New()
			db := onDisk(t, fs)
			for i := range 6 {
				put(t, db, fmt.Sprint("k", i%4), fmt.Sprintf("%d%s", i, strings.Repeat("x", 1000)))
				_, err := db.Append("s", fmt.Append(nil, i))
				require.NoError(t, err)
			}
			del(t, db, "k0")
			want := scan(t, db, Range{})
			count, hit := 0, ""
			fs.Inject(func(op faultfs.Op) *faultfs.Fault {
				if count++; count == n || forever && count > n {
					hit += fmt.Sprintln(op.Kind, op.Path)
					return &faultfs.Fault{Err: syscall.EIO, Bytes: op.Len / 2}
				}
				return nil
			})
			_, err := db.Compact(t.Context(), nil)
			fs.Inject(nil)
			if hit == "" {
				require.NoError(t, err)
				require.NoError(t, db.Close())
				break
			}
			if err != nil {
				require.ErrorIs(t, err, syscall.EIO, hit)
				require.NotErrorIs(t, err, ErrCorrupt, hit)
			}
			holds := func(fs *faultfs.FS) {
				again := onDisk(t, fs)
				require.Equal(t, want, scan(t, again, Range{}), hit)
				require.Len(t, samples(t, again, "s", Window{}), 6, hit)
				require.NoError(t, again.Close(), hit)
				require.Zero(t, fs.OpenFiles(), hit)
			}
			require.Equal(t, want, scan(t, db, Range{}), hit)
			holds(fs.Crash(kept(false)))
			holds(fs.Crash(kept(true)))
			if put := db.Put("k9", nil); put == nil {
				_, err := db.Compact(t.Context(), nil)
				require.NoError(t, err, hit)
				del(t, db, "k9")
				if err := db.Close(); err != nil { // it tells of an input that could not be closed
					require.ErrorIs(t, err, syscall.EIO, hit)
					require.Contains(t, hit, "close", hit)
				}
				went++
			} else {
				require.ErrorIs(t, put, ErrFailed, hit)
				require.ErrorIs(t, db.Close(), ErrFailed, hit)
				ended++
			}
			holds(fs)
		}
	}
	require.NotZero(t, went, "a read that failed changes nothing")
	require.NotZero(t, ended, "a sync that failed ends writing")
}

// Background compaction that meets damage stops for good, so that a person can look
// before anything is rewritten.
func TestBackgroundCompactionStopsAtDamage(t *testing.T) {
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), &Options{SegmentSize: minSegment})
	put(t, db, "k", "first")
	put(t, db, "other", "1")
	flipped := segmentsIn(t, db.dir)[0]
	file, err := os.OpenFile(flipped, os.O_WRONLY, 0)
	require.NoError(t, err)
	text, err := os.ReadFile(flipped)
	require.NoError(t, err)
	_, err = file.WriteAt([]byte("#"), int64(indexOf(t, text, `"first"`)))
	require.NoError(t, err)
	require.NoError(t, file.Close())
	for i := range 60 { // several segments, all but one of them dead
		put(t, db, "k", fmt.Sprintf("%0200d", i))
	}
	within(t, "the end of background compaction", func() { <-db.compaction.done })
	require.NotEmpty(t, db.Stats().Damage)
	require.Contains(t, db.Stats().Compaction.LastError, "corrupt")
	require.FileExists(t, flipped)
	put(t, db, "writes", "go on")
}

// Records expire by themselves: without being woken, compaction looks once a minute.
func TestBackgroundCompactionLooksByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := faultfs.New()
		opts := &Options{FS: fs, SegmentSize: minSegment, Compaction: Compaction{Grace: time.Second}}
		db, err := Open("/store", opts)
		require.NoError(t, err)
		for i := range 20 {
			put(t, db, fmt.Sprint("k", i), strings.Repeat("x", 1000), TTL(10*time.Second))
		}
		require.NoError(t, db.log.Rotate(t.Context()))
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Equal(t, 20, db.Stats().Keys, "nobody has looked")
		time.Sleep(compactEvery)
		synctest.Wait()
		require.Zero(t, db.Stats().Keys)
		require.NotZero(t, db.Stats().Compaction.Runs)
		require.NoError(t, db.Close())
	})
}

// What expired only counts as dead once the grace is over, and then as held: it must
// be copied while an older segment may hold its key.
func TestSegmentStatsCountTheExpired(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{Now: clock.Now, Compaction: Compaction{Off: true, Grace: time.Hour}}
	db := open(t, opts)
	put(t, db, "k", "1", TTL(time.Minute))
	put(t, db, "stays", "2")
	require.NoError(t, db.log.Rotate(t.Context()))
	before := db.segmentStats()
	require.Len(t, before, 1)
	require.Zero(t, before[0].Held)
	clock.move(time.Hour + time.Minute)
	require.Equal(t, before, db.segmentStats(), "the grace is not over")
	clock.move(time.Microsecond)
	after := db.segmentStats()
	require.Equal(t, before[0].Live, after[0].Live+after[0].Held)
	require.NotZero(t, after[0].Held)
	require.NotZero(t, after[0].Live)
}

// Background compaction keeps to its rate, and Close does not wait for it.
func TestThrottleKeepsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slice = 32 << 10
		rate := float64(slice)
		pace := throttle(func() float64 { return rate })
		begun := time.Now()
		for i := range 8 {
			require.NoError(t, pace(t.Context(), slice/2))
			require.Equal(t, time.Duration((i+1)/2)*time.Second, time.Since(begun))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, pace(ctx, 100*slice), context.Canceled)
		require.Equal(t, 4*time.Second, time.Since(begun))
		rate = 0 // as many as come
		require.NoError(t, pace(t.Context(), 100*slice))
		require.Equal(t, 4*time.Second, time.Since(begun))
		require.ErrorIs(t, pace(ctx, slice), context.Canceled)
	})
}

// The log fails while a compaction is at work: its MANIFEST must not be written,
// since nobody knows what the disk holds.
func TestCompactionOfAFailedStoreChangesNothing(t *testing.T) {
	fs := faultfs.New()
	db := onDisk(t, fs)
	for range 3 {
		put(t, db, "k", strings.Repeat("x", 3000))
	}
	before, err := readManifest(fs, "/store")
	require.NoError(t, err)
	db.log.Fail(errNoRoom)
	_, err = db.compactLocked(t.Context(), []uint64{1, 2}, pace(0, nil), false)
	require.ErrorIs(t, err, ErrFailed)
	after, err := readManifest(fs, "/store")
	require.NoError(t, err)
	require.Equal(t, before, after)
	l, err := listDir(fs, "/store")
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3}, l.segments, "no output is left")
	require.ErrorIs(t, db.Close(), ErrFailed)
}

// What compaction is told of may be gone by the time that it looks.
func TestCompactionOfWhatIsGone(t *testing.T) {
	fs := faultfs.New()
	db := onDisk(t, fs)
	old := db.files.acquire()
	for range 3 {
		put(t, db, "k", strings.Repeat("x", 3000))
	}
	_, _, err := db.plan(old, []uint64{1}, false, new(atomic.Pointer[error]), nil)
	require.ErrorContains(t, err, "gone")
	old.release()
	stats, err := db.compactLocked(t.Context(), []uint64{999}, pace(0, nil), false)
	require.NoError(t, err)
	require.Zero(t, stats)
	v := db.files.acquire()
	require.False(t, db.settled(v, &segment.Footer{Segment: 999}))
	v.release()
	require.NoError(t, db.Close())
	require.Empty(t, db.segmentStats())
	_, err = db.Compact(t.Context(), nil)
	require.ErrorIs(t, err, ErrClosed)
	_, err = db.compactLocked(t.Context(), []uint64{1, 2}, pace(0, nil), false)
	require.ErrorIs(t, err, ErrClosed)
}

// The more of a store is dead, the faster compaction works; writers wait only when
// it can't keep up, not for long, and never once it is idle.
func TestBrakeSlowsWritersAndNeverStopsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b brake
		took := func(bytes int64) time.Duration {
			begun := time.Now()
			b.wait(bytes)
			return time.Since(begun)
		}
		require.Zero(t, took(1<<30))
		b.set(0)
		require.Zero(t, took(1<<30), "not above the bound")
		b.set(0.001)
		time.Sleep(time.Second)
		require.Zero(t, took(100_000), "what was not used a moment ago is free")
		require.NotZero(t, took(1<<20))
		b.set(100)
		for range 1000 {
			require.LessOrEqual(t, took(160), brakeWait+time.Millisecond)
		}
		require.LessOrEqual(t, took(8<<20), time.Second+brakeWait)
		time.Sleep(2 * time.Second)
		for range 1000 { // a lone durable writer
			require.Zero(t, took(160))
			time.Sleep(200 * time.Microsecond)
		}
		b.release()
		require.Zero(t, took(1<<30))
	})
}

// A store that is smaller than a segment is cleaned too, while it is written and when
// writing ends.
func TestSmallStoreIsCleaned(t *testing.T) {
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), &Options{Sync: SyncEvery(time.Millisecond)})
	value := strings.Repeat("x", 1000)
	for i := range 20_000 {
		put(t, db, fmt.Sprint("key", i%1000), value)
	}
	require.NotZero(t, db.Stats().Compaction.Runs)
	eventually(t, "the store is clean", func() bool { st := db.Stats(); return float64(st.Bytes) < 1.4*float64(st.LiveBytes) })
}

// What weighs the store holds its segments for a moment only, whatever the options.
func TestWeighingTheStoreLetsGoOfIt(t *testing.T) {
	for _, history := range []int64{0, 10} {
		fs := faultfs.New()
		db, err := Open("/store", &Options{FS: fs, History: history})
		require.NoError(t, err)
		put(t, db, "k", "v")
		db.balance()
		require.NoError(t, db.Close())
		require.Zero(t, fs.OpenFiles(), "History %d", history)
	}
}

// Outputs longer than what is written at a time: each of the writes may find no room.
func TestFullDiskAtAnyWriteOfCompaction(t *testing.T) {
	hooks := newHookFS()
	opts := &Options{FS: hooks, Sync: SyncNever, SegmentSize: 1 << 20, Compaction: Compaction{Off: true}}
	db := open(t, opts)
	want := model{}
	for i := range 1500 {
		key := fmt.Sprintf("k%04d", i%1000)
		want[key] = fmt.Sprint(i, strings.Repeat("x", 2000))
		put(t, db, key, want[key])
		_, err := db.Append("s", []byte(want[key]))
		require.NoError(t, err)
	}
	db = reopen(t, db, opts)
	before := tree(t, db.dir)
	all := len(samples(t, db, "s", Window{}))
	for n := int64(1); ; n++ {
		var writes atomic.Int64
		set(&hooks.onWrite, func(string) error {
			if writes.Add(1) == n {
				return errNoRoom
			}
			return nil
		})
		_, err := db.Compact(t.Context(), nil)
		set(&hooks.onWrite, nil)
		if err == nil {
			require.Greater(t, n, int64(15))
			break
		}
		require.ErrorIs(t, err, errNoRoom)
		sameTree(t, before, tree(t, db.dir))
	}
	want.holds(t, db)
	require.Len(t, samples(t, db, "s", Window{}), all)
}
