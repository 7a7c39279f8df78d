package annals

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
)

func TestScanEqualsASortedModel(t *testing.T) {
	rng := seed.Rand(t)
	opts := &Options{SegmentSize: minSegment}
	db := open(t, opts)
	want := model{}
	for round := range 40 {
		var b Batch
		for range 1 + rng.IntN(40) {
			key := randomKey(rng)
			if rng.IntN(4) == 0 {
				b.Delete(key)
				delete(want, key)
			} else {
				want[key] = fmt.Sprint(round, rng.IntN(100))
				b.Put(key, []byte(want[key]))
			}
		}
		_, err := db.Apply(&b)
		require.NoError(t, err)
		switch rng.IntN(8) {
		case 0:
			db = reopen(t, db, opts)
		case 1:
			compactAll(t, db)
		case 2:
			db = openAt(t, killed(t, db), opts)
		}
		want.holds(t, db)
		snapshot := db.Snapshot()
		for range 30 {
			r := randomRange(rng)
			require.Equal(t, want.scan(r), scan(t, db, r), "%+v", r)
			require.Equal(t, want.scan(r), scan(t, snapshot, r), "%+v", r)
		}
		snapshot.Close()
	}
}

func TestRangesOfPrefixesAndBounds(t *testing.T) {
	db := open(t, nil)
	want := model{}
	for _, key := range []string{"", "a", "a\xff", "a\xff\xff", "a\xff\xffz", "b", "\xfe", "\xff", "\xff\x00", "\xff\xff", "\xff\xffa", "\xff\xff\xff"} {
		want[key] = "v"
		put(t, db, key, "v")
	}
	for _, r := range []Range{
		Prefix(""), Prefix("a"), Prefix("a\xff"), Prefix("\xff"), Prefix("\xff\xff"), Prefix("\xff\xff\xff\xff"), Prefix("c"),
		{From: "a"}, {To: "a"}, {From: "a", To: "b"}, {From: "b", To: "a"}, {From: "a", To: "a"}, {From: "\xff"}, {To: "\xff\xff"},
		{Prefix: "a", From: "b"}, {Prefix: "b", To: "a"}, {Prefix: "\xff", From: "\xff\xff"}, {Prefix: "\xff", To: "\xff\xff"}, {Prefix: "a\xff", From: "a", To: "z"},
	} {
		for _, reverse := range []bool{false, true} {
			for _, limit := range []int{0, 1, 2, 100} {
				r.Reverse, r.Limit = reverse, limit
				require.Equal(t, want.scan(r), scan(t, db, r), "%+q", fmt.Sprintf("%+v", r))
			}
		}
	}
}

func TestKeysOnlyReadsNoValue(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v", TTL(year))
	for e, err := range db.Scan(Range{KeysOnly: true}) {
		require.NoError(t, err)
		require.Equal(t, "k", e.Key)
		require.Nil(t, e.Value)
		require.EqualValues(t, 1, e.Seq)
		require.False(t, e.Expires.IsZero())
	}
}

// Where the keys come from INDEX alone they are those that a scan of values shows.
func TestKeysOnlyFromATableAreThoseOfTheScan(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{Now: clock.Now})
	var b Batch
	for i := range 2000 {
		key := fmt.Sprintf("k%04d%s", i, strings.Repeat("x", i%7/6*(i%200)))
		switch {
		case i >= 600 && i < 900 || i%50 == 0:
			b.Put(key, []byte("1"), TTL(time.Minute))
		case i%70 == 0:
			b.Put(key, []byte("1"), TTL(time.Hour))
		default:
			b.Put(key, []byte("1"))
		}
	}
	_, err := db.Apply(&b)
	require.NoError(t, err)
	require.NoError(t, db.Checkpoint(t.Context()))
	clock.move(2 * time.Minute)
	for _, r := range []Range{{}, {Limit: 3}, {Limit: 300}, {Limit: 1000, From: "k0500"}, {From: "k0123", To: "k1789"}, {Prefix: "k07"}, {Prefix: "k1"}, {From: "x"}} {
		var want, got []Entry
		for e, err := range db.Scan(r) {
			require.NoError(t, err)
			e.Value = nil
			want = append(want, e)
		}
		r.KeysOnly = true
		for e, err := range db.Scan(r) {
			require.NoError(t, err)
			got = append(got, e)
		}
		require.Equal(t, want, got, "%+v", r)
	}
}

func TestScanShowsTheMomentItBegan(t *testing.T) {
	db := open(t, &Options{SegmentSize: minSegment})
	want := model{}
	for i := range 100 {
		key := fmt.Sprintf("k%02d", i)
		want[key] = "old"
		put(t, db, key, "old")
	}
	var got []string
	for e, err := range db.Scan(Range{}) {
		require.NoError(t, err)
		if len(got) == 10 {
			var b Batch
			for key := range want {
				b.Put(key, []byte("new"))
				b.Put(key+" more", []byte("new"))
			}
			b.Delete("k50")
			_, err := db.Apply(&b)
			require.NoError(t, err)
			compactAll(t, db)
		}
		got = append(got, e.Key+"="+string(e.Value))
	}
	require.Equal(t, want.scan(Range{}), got)
	require.Len(t, scan(t, db, Range{}), 199)
}

func TestSnapshotKeepsItsSegmentsUntilClosed(t *testing.T) {
	db := open(t, &Options{Compaction: Compaction{Off: true}})
	put(t, db, "k", "1")
	put(t, db, "gone", "2")
	_, err := db.Append("s", []byte("3"))
	require.NoError(t, err)
	snapshot := db.Snapshot()
	other := db.Snapshot()
	put(t, db, "k", "4")
	del(t, db, "gone")
	_, err = db.Append("s", []byte("5"))
	require.NoError(t, err)
	old := segmentsIn(t, db.dir)[0]
	compactAll(t, db)
	check := func() {
		require.FileExists(t, old)
		require.Equal(t, []string{"gone=2", "k=1"}, scan(t, snapshot, Range{}))
		present(t, snapshot, "gone", "2")
		require.Len(t, samples(t, snapshot, "s", Window{}), 1)
		require.EqualValues(t, 3, snapshot.Seq())
	}
	check()
	require.NoError(t, other.Close())
	require.NoError(t, other.Close(), "closing twice does nothing")
	check()
	require.Equal(t, []string{"k=4"}, scan(t, db, Range{}))
	require.NoError(t, snapshot.Close())
	require.NoFileExists(t, old)
	_, err = snapshot.Get("k")
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, firstError(snapshot.Scan(Range{})), ErrClosed)
	require.ErrorIs(t, firstError(snapshot.Samples("s", Window{})), ErrClosed)
	require.ErrorIs(t, firstError(snapshot.Series()), ErrClosed)
}

// The end of a loop must not look like the end of the data.
func TestClosedSnapshotIsNotAnEmptyOne(t *testing.T) {
	db := open(t, nil)
	snapshot := db.Snapshot()
	require.NoError(t, snapshot.Close())
	require.ErrorIs(t, firstError(snapshot.Scan(Range{})), ErrClosed)
	require.ErrorIs(t, firstError(snapshot.Samples("s", Window{})), ErrClosed)
}

func TestSnapshotOfSeriesStaysAsItWas(t *testing.T) {
	db := open(t, nil)
	_, err := db.Append("s", []byte("1"))
	require.NoError(t, err)
	snapshot := db.Snapshot()
	defer snapshot.Close()
	_, err = db.Append("s", []byte("2"))
	require.NoError(t, err)
	_, err = db.Append("t", []byte("3"))
	require.NoError(t, err)
	require.Len(t, samples(t, snapshot, "s", Window{}), 1)
	list := series(t, snapshot)
	require.Len(t, list, 1, "series t came later")
	require.EqualValues(t, 1, list[0].Samples, "the second sample came later")
}

// Writers, compaction and long scans at the same time: each scan must equal the
// state at one moment, which all keys of a round share.
func TestLongScansStayExactUnderLoad(t *testing.T) {
	db := open(t, &Options{SegmentSize: 16 << 10, Sync: SyncNever, Compaction: Compaction{Rate: 1 << 30}})
	const keys = 200
	write := func(round int) {
		var b Batch
		for i := range keys {
			if i%10 == round%10 {
				b.Delete(fmt.Sprintf("k%03d", i))
			} else {
				b.Put(fmt.Sprintf("k%03d", i), fmt.Append(nil, round))
			}
		}
		if _, err := db.Apply(&b); err != nil {
			t.Error(err)
		}
	}
	write(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for round := 1; ; round++ {
			select {
			case <-stop:
				return
			default:
				write(round)
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := db.Compact(t.Context(), nil); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for i := range 60 {
		var round string
		seen := model{}
		for e, err := range db.Scan(Range{Reverse: i%2 == 0}) {
			require.NoError(t, err)
			seen[e.Key] = string(e.Value)
			round = string(e.Value)
		}
		want := model{}
		number := 0
		_, err := fmt.Sscan(round, &number)
		require.NoError(t, err)
		for i := range keys {
			if i%10 != number%10 {
				want[fmt.Sprintf("k%03d", i)] = round
			}
		}
		require.True(t, maps.Equal(want, seen), "round %s: %d keys, %d expected", round, len(seen), len(want))
	}
	close(stop)
	within(t, "the writers", wg.Wait)
	require.Positive(t, db.Stats().Compaction.Runs)
	entries, err := os.ReadDir(db.dir)
	require.NoError(t, err)
	compactAll(t, db)
	require.Less(t, len(segmentsIn(t, db.dir)), len(entries)+3, "segments that nobody pins are removed")
}
