package annals

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A loader has many batches in flight. When one fails for want of room and there
// is room again a moment later, the batches that it submits before it hears of the
// failure must not be made: they would leave a hole. Found with `annals load` on a
// full tmpfs, which kept op 23012 without 21223 to 23011.
func TestBatchAfterAFailedOneIsNotMade(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks})
	put(t, db, "first", "1")
	var writes atomic.Int64
	set(&hooks.onWrite, func(string) error {
		if n := writes.Add(1); n == 2 || n == 3 { // the write, and again without padding
			return errNoRoom
		}
		return nil
	})
	var commits []*Commit
	var last *Commit
	for i := range 20000 {
		var b Batch
		b.Put(fmt.Sprintf("k%05d", i), []byte("1"))
		b.After(last)
		last = db.Submit(&b)
		commits = append(commits, last)
	}
	failed := -1
	for i, c := range commits {
		_, err := c.Wait(t.Context())
		if err != nil && failed < 0 {
			failed = i
		}
		if failed >= 0 {
			require.ErrorIs(t, err, errNoRoom, "batch %d, after batch %d failed", i, failed)
		}
	}
	require.GreaterOrEqual(t, failed, 0, "the fault was never met")
	set(&hooks.onWrite, nil)
	n := 0
	for e, err := range db.Scan(Prefix("k")) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("k%05d", n), e.Key)
		n++
	}
	require.Equal(t, failed, n)
}
