package annals

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// sums makes sure that the parts of a Stats make up the whole, and that files are
// as long as it says.
func sums(t testing.TB, db *Store) Stats {
	t.Helper()
	st := db.Stats()
	var bytes, live int64
	for _, seg := range st.Segments {
		bytes += seg.Bytes
		live += seg.LiveBytes
		require.LessOrEqual(t, seg.LiveBytes, seg.Bytes, "%+v", seg)
		require.GreaterOrEqual(t, seg.LiveBytes, int64(0))
	}
	require.Equal(t, st.Bytes, bytes)
	require.Equal(t, st.LiveBytes, live)
	require.True(t, st.LiveRatio >= 0 && st.LiveRatio <= 1, "%v", st.LiveRatio)
	require.Len(t, st.Segments, len(segmentsIn(t, db.dir)))
	for _, seg := range st.Segments {
		info, err := os.Stat(filepath.Join(db.dir, segment.Name(seg.Segment)))
		require.NoError(t, err)
		if seg.Open {
			require.LessOrEqual(t, seg.Bytes, info.Size(), "the rest is padding")
		} else {
			require.Equal(t, seg.Bytes, info.Size())
		}
	}
	return st
}

func TestStatsAddUp(t *testing.T) {
	opts := &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}}
	db := open(t, opts)
	st := sums(t, db)
	require.Zero(t, st.LastSeq)
	require.EqualValues(t, 1, st.LiveRatio)
	for i := range 100 {
		put(t, db, fmt.Sprint("k", i%40), "value")
		_, err := db.Append(fmt.Sprint("s", i%3), []byte("value"))
		require.NoError(t, err)
	}
	del(t, db, "k0")
	put(t, db, "expired", "v", TTL(0))
	st = sums(t, db)
	require.Equal(t, 40, st.Keys, "the expired one counts until compaction takes it")
	require.Equal(t, 3, st.Series)
	require.EqualValues(t, 100, st.Samples)
	require.EqualValues(t, 202, st.LastSeq)
	require.EqualValues(t, 202, st.Durable)
	require.EqualValues(t, 202, st.Records)
	require.EqualValues(t, 202, st.Commits)
	require.EqualValues(t, 1, st.History)
	require.WithinDuration(t, time.Now(), st.Clock, time.Minute)
	var n uint64
	for _, seg := range st.Segments {
		require.Equal(t, seg.Last-seg.First+1, seg.Records)
		n += seg.Records
	}
	require.EqualValues(t, 202, n)
	require.InDelta(t, float64(st.Records)/float64(st.Syncs), st.RecordsPerSync, 0.001)
	before := st.LiveBytes
	put(t, db, "k1", "value")
	require.Less(t, sums(t, db).LiveBytes-before, int64(20), "the old record is dead, the new one as long")
	compactAll(t, db)
	st = sums(t, db)
	require.Greater(t, st.LiveRatio, 0.8)
	require.EqualValues(t, 1, st.Compaction.Runs)
	db = reopen(t, db, opts)
	again := sums(t, db)
	require.Equal(t, st.LiveBytes, again.LiveBytes)
	require.Equal(t, st.Keys, again.Keys)
	require.Equal(t, st.LastSeq, again.LastSeq)
	require.Equal(t, st.Samples, again.Samples)
	_, err := json.Marshal(again)
	require.NoError(t, err)
}

func TestLiveBytesOfABufferedStoreAreNoMoreThanItsBytes(t *testing.T) {
	db := open(t, &Options{Sync: SyncEvery(time.Hour)})
	for i := range 100 {
		put(t, db, fmt.Sprint("k", i), "value")
	}
	st := db.Stats()
	require.LessOrEqual(t, st.LiveBytes, st.Bytes)
	require.LessOrEqual(t, st.LiveRatio, 1.0)
}

func TestWriteThatFailedIsNotCounted(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks})
	put(t, db, "k", "v")
	set(&hooks.onWrite, func(string) error { return errNoRoom })
	require.ErrorIs(t, db.Put("k", nil), errNoRoom)
	set(&hooks.onWrite, nil)
	st := db.Stats()
	require.EqualValues(t, 1, st.Records)
	require.EqualValues(t, 1, st.Commits)
}

func TestRecoveryReportReadsAsASentence(t *testing.T) {
	db := open(t, nil)
	require.Contains(t, db.Recovery().String(), "record")
	put(t, db, "k", "v")
	dir := killed(t, db)
	path, _, end := lastLine(t, dir)
	edit(t, path, func(text []byte) []byte { return append(text[:end:end], "half a li"...) })
	db = openAt(t, dir, nil)
	require.Contains(t, db.Recovery().String(), "9 unacknowledged bytes")
	require.NoError(t, db.Close())
	require.Contains(t, openAt(t, dir, nil).Recovery().String(), "closed cleanly")
}

// A reader of a store that was not closed counts the segment that was being
// written, too.
func TestReaderCountsTheOpenSegment(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	r, err := OpenReader(killed(t, db), nil)
	require.NoError(t, err)
	defer r.Close()
	st := r.Stats()
	require.Len(t, st.Segments, 1)
	require.True(t, st.Segments[0].Open)
	require.EqualValues(t, 1, st.Segments[0].Records)
	require.Equal(t, db.Stats().LiveBytes, st.LiveBytes)
	require.GreaterOrEqual(t, st.Bytes, db.Stats().Bytes, "padding counts")
}
