package annals

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSenselessOptionsAreRefused(t *testing.T) {
	dir := t.TempDir() + "/store"
	for field, o := range map[string]Options{
		"SegmentSize":             {SegmentSize: minSegment - 1},
		"SegmentSize is 1073":     {SegmentSize: maxSegment + 1},
		"SegmentSize is -1":       {SegmentSize: -1},
		"MaxValue":                {MaxValue: -1},
		"MaxValue is 134":         {MaxValue: maxValueLimit + 1},
		"History":                 {History: -1},
		"Sync":                    {Sync: -2},
		"Sync is -9":              {Sync: math.MinInt64},
		"Compaction.MinLive":      {Compaction: Compaction{MinLive: 1.1}},
		"Compaction.MinLive is -": {Compaction: Compaction{MinLive: -0.1}},
		"Compaction.MinLive is N": {Compaction: Compaction{MinLive: math.NaN()}},
		"Rate":                    {Compaction: Compaction{Rate: -1}},
		"Grace":                   {Compaction: Compaction{Grace: -1}},
	} {
		t.Run(field, func(t *testing.T) {
			db, err := Open(dir, &o)
			if err == nil {
				db.Close()
			}
			require.ErrorContains(t, err, field, "the error names the field")
		})
	}
	require.NoDirExists(t, dir, "nothing is touched")
}

func TestExtremesOfOptionsWork(t *testing.T) {
	for _, o := range []Options{
		{SegmentSize: minSegment}, {SegmentSize: maxSegment}, {MaxValue: 1}, {MaxValue: maxValueLimit}, {History: math.MaxInt64},
		{Sync: math.MaxInt64}, {Sync: SyncNever}, {Compaction: Compaction{MinLive: 1}}, {Compaction: Compaction{Rate: 1, Grace: math.MaxInt64}},
	} {
		db := open(t, &o)
		put(t, db, "k", "1")
		put(t, db, "k", "2", TTL(time.Hour))
		compactAll(t, db)
		present(t, db, "k", "2")
		db = reopen(t, db, &o)
		present(t, db, "k", "2")
	}
}

func TestSyncPolicySpellsItself(t *testing.T) {
	require.Equal(t, "always", SyncAlways.String())
	require.Equal(t, "never", SyncNever.String())
	require.Equal(t, "100ms", SyncEvery(100*time.Millisecond).String())
	require.Equal(t, SyncAlways, SyncEvery(0))
	require.Equal(t, SyncAlways, SyncEvery(-time.Second))
}
