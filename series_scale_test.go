package annals

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// manySamples appends n samples to so many series, one after the other, but for every
// rareEvery-th, which is of the series "rare". It returns when the rare ones were.
func manySamples(t testing.TB, db *Store, n, series, rareEvery int) (rare []time.Time) {
	t.Helper()
	names := make([]string, series)
	for i := range names {
		names[i] = fmt.Sprintf("series-%05d", i)
	}
	var b Batch
	for i := range n {
		name, at := names[i%series], time.UnixMicro(int64(i)*1000)
		if rareEvery > 0 && i%rareEvery == rareEvery/2 {
			name = "rare"
			rare = append(rare, at)
		}
		b.Append(name, fmt.Appendf(nil, `{"t":%d.%d,"state":"running"}`, i%40, i%10), At(at))
		if b.Len() == 1000 || i == n-1 {
			_, err := db.Apply(&b)
			require.NoError(t, err)
			b.Reset()
		}
	}
	return rare
}

func scaleOf(t *testing.T) int {
	if raceDetector {
		return 60_000
	}
	return 300_000
}

// The index of samples takes at most one byte for 500 of the log, whatever the number
// of series, and is as small again after a clean close, which leaves nothing to read.
func TestIndexOfSamplesIsSmall(t *testing.T) {
	for _, series := range []int{1, 100, 1000, 10_000} {
		t.Run(fmt.Sprint(series), func(t *testing.T) {
			opts := &Options{Sync: SyncEvery(time.Second), SegmentSize: 2 << 20, Checkpoint: 1 << 30} // whole segments
			db := open(t, opts)
			n := scaleOf(t)
			manySamples(t, db, n, series, 0)
			require.NoError(t, db.log.Rotate(t.Context())) // what is open has more room
			put(t, db, "k", "v")
			check := func(when string) {
				log := db.Stats().Bytes
				t.Logf("%s: %d bytes for %d of the log", when, db.index.Footprint(), log)
				require.LessOrEqual(t, int64(db.index.Footprint()), log/500+1024, when)
			}
			check("written")
			db = reopen(t, db, opts)
			require.Zero(t, db.Recovery().Replayed)
			check("opened")
			compactAll(t, db)
			check("compacted")
			require.EqualValues(t, n, db.Stats().Samples)
		})
	}
}

// Who asks for one rare series among thousands reads the blocks in which it is, and
// those only, of whatever stretch of time, forward and backward.
func TestRareSeriesReadsOnlyItsBlocks(t *testing.T) {
	opts := &Options{Sync: SyncEvery(time.Second), SegmentSize: 2 << 20, Checkpoint: 1 << 30} // whole segments: a short one knows less of each series
	db := open(t, opts)
	n := scaleOf(t)
	rare := manySamples(t, db, n, 5000, 30_000)
	check := func() {
		t.Helper()
		s := db.Snapshot()
		defer s.Close()
		for _, reverse := range []bool{false, true} {
			blocks := 0
			all := Window{}.span(s.Seq())
			for b := range s.index.Blocks("rare", all.first, all.last, all.since, all.until, reverse) {
				require.LessOrEqual(t, b.End-b.Start, int64(80<<10))
				blocks++
			}
			require.Equal(t, len(rare), blocks)
			require.Len(t, samples(t, s, "rare", Window{Reverse: reverse}), len(rare))
			for _, at := range rare {
				w := Window{Since: at, Until: at.Add(time.Microsecond), Reverse: reverse}
				p, read := w.span(s.Seq()), 0
				for range s.index.Blocks("rare", p.first, p.last, p.since, p.until, reverse) {
					read++
				}
				require.Equal(t, 1, read)
				require.Len(t, samples(t, s, "rare", w), 1)
			}
		}
	}
	check()
	db = reopen(t, db, opts)
	check()
	compactAll(t, db)
	check()
}

// The memory of a compaction does not grow with the samples that it copies.
func TestCompactionOfSamplesTakesLittleMemory(t *testing.T) {
	live := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	db := open(t, &Options{Sync: SyncEvery(time.Second), SegmentSize: 2 << 20, Compaction: Compaction{Off: true}})
	n := scaleOf(t)
	manySamples(t, db, n, 1000, 0)
	before, most, told := live(), int64(0), int64(0)
	stats, err := db.Compact(t.Context(), func(done, total int64) {
		if done-told > total/16 || done == total { // a collection takes time
			told, most = done, max(most, live()-before)
		}
	})
	require.NoError(t, err)
	require.EqualValues(t, n, stats.Kept)
	require.Positive(t, most)
	t.Logf("%.1f MiB for %d samples", float64(most)/(1<<20), n)
	require.Less(t, most, int64(16<<20))
	require.Less(t, live()-before, int64(2<<20))
}

// Who takes the state for INDEX holds up everybody else, so it must not write all of
// it down there.
func TestFreezeCopiesLittle(t *testing.T) {
	db := open(t, &Options{Sync: SyncEvery(time.Second), SegmentSize: 2 << 20, Compaction: Compaction{Off: true}})
	freeze := func() (copied, all int) {
		require.NoError(t, db.log.Rotate(t.Context()))
		put(t, db, "k", "v")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		db.index.Freeze()
		runtime.ReadMemStats(&after)
		return int(after.TotalAlloc - before.TotalAlloc), db.index.Footprint()
	}
	manySamples(t, db, scaleOf(t)/4, 2000, 0)
	before, little := freeze()
	manySamples(t, db, scaleOf(t), 2000, 0)
	after, much := freeze()
	t.Logf("%d bytes copied of %d, then %d of %d", before, little, after, much)
	require.Less(t, after-before, (much-little)/5)
}
