package annals

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVerifyReportsAllDamageNotJustTheFirst(t *testing.T) {
	db, _, _ := filled(t, &Options{Compaction: Compaction{Off: true}})
	for i := range 200 {
		put(t, db, fmt.Sprint("more", i), "a value")
	}
	require.NoError(t, db.Close())
	dir := copyDir(t, db.dir)
	all := segmentsIn(t, dir)
	require.Greater(t, len(all), 5)
	flip(t, all[0], `"key":"k01"`)
	flip(t, all[0], `"key":"k05"`)
	require.NoError(t, os.Remove(all[1]))
	require.NoError(t, os.Truncate(all[2], 1000))
	flip(t, all[3], `{"sealed"`)
	edit(t, all[4], func(text []byte) []byte { return append(text, "more\n"...) })
	before := tree(t, dir)
	report, err := Verify(t.Context(), dir, nil)
	require.NoError(t, err)
	require.False(t, report.OK())
	found := map[string]int{}
	for _, p := range report.Problems {
		found[p.Path]++
		require.NotEmpty(t, p.Reason)
	}
	require.Equal(t, 2, found[all[0]])
	for _, path := range all[1:5] {
		require.Positive(t, found[path], path)
	}
	require.Len(t, found, 5, "%v", report.Problems)
	first := report.Problems[0]
	text, err := os.ReadFile(all[0])
	require.NoError(t, err)
	require.Equal(t, byte('{'), text[first.Offset], "the offset is that of the line")
	require.NotZero(t, first.FirstSeq)
	require.Equal(t, first.FirstSeq, first.LastSeq)
	sameTree(t, before, tree(t, dir))
	require.NoFileExists(t, filepath.Join(dir, "LOCK.x"))
}

func TestVerifyWorksBesideAnOpenStoreAndTakesNoLock(t *testing.T) {
	db, _, _ := filled(t, &Options{})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				if err := db.Put(fmt.Sprint("k", i%10), make([]byte, i%3000)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	for range 30 {
		report := verifyClean(t, db.dir)
		require.Positive(t, report.Records)
	}
	close(stop)
	<-done
	require.NoError(t, db.Close())
	closed := copyDir(t, db.dir)
	require.NoError(t, os.Remove(filepath.Join(closed, lockName)))
	verifyClean(t, closed)
	require.NoFileExists(t, filepath.Join(closed, lockName))
}

func TestVerifyCountsWhatIsThere(t *testing.T) {
	db, want, all := filled(t, &Options{Compaction: Compaction{Off: true}})
	report := verifyClean(t, db.dir)
	require.EqualValues(t, 201, report.Records)
	require.EqualValues(t, 201, report.LastSeq)
	require.Equal(t, db.Stats().Store, report.Store)
	require.Equal(t, len(db.Stats().Segments), report.Segments)
	compactAll(t, db)
	require.NoError(t, db.Close())
	calls := 0
	report, err := Verify(t.Context(), db.dir, func(done, total int64) {
		calls++
		require.LessOrEqual(t, done, total)
	})
	require.NoError(t, err)
	require.EqualValues(t, len(want)+len(all), report.Records)
	sum := int64(0)
	for _, path := range segmentsIn(t, db.dir) {
		info, err := os.Stat(path)
		require.NoError(t, err)
		sum += info.Size()
	}
	require.Equal(t, sum, report.Bytes)
	require.Empty(t, report.Leftover)
	require.Nil(t, report.Tail)
}

func TestVerifyStopsWithItsContext(t *testing.T) {
	db := open(t, nil)
	var b Batch
	for range 5000 {
		b.Put("k", nil)
	}
	_, err := db.Apply(&b)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Verify(ctx, db.dir, nil)
	require.ErrorIs(t, err, context.Canceled)
}
