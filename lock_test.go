package annals

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSecondWriterFailsAtOnceAndIsToldWhoHoldsTheStore(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(db.dir, link))
	parent := filepath.Join(t.TempDir(), "parent")
	require.NoError(t, os.Symlink(filepath.Dir(db.dir), parent))
	holder := fmt.Sprintf("process %d", os.Getpid())
	for _, dir := range []string{db.dir, link, filepath.Join(parent, "store"), db.dir + "/../store/."} {
		within(t, "Open of a store in use", func() {
			_, err := Open(dir, nil)
			require.ErrorIs(t, err, ErrLocked)
			require.ErrorContains(t, err, holder)
		})
		out := child(t, dir)
		require.Contains(t, out, ErrLocked.Error())
		require.Contains(t, out, holder)
	}
	require.Len(t, tree(t, db.dir), 3, "the directory, MANIFEST and one segment")
	put(t, db, "k", "goes on")
	require.NoError(t, db.Close())
	require.Equal(t, "opened\n", child(t, link))
	db = openAt(t, link, nil)
	present(t, db, "k", "goes on")
}

func TestLockFileThatWasReplacedEndsWriting(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	db := openDamaged(t, dir, &Options{SegmentSize: minSegment})
	put(t, db, "k", "v")
	require.NoError(t, os.Remove(filepath.Join(dir, lockName)))
	other, err := Open(dir, nil)
	require.NoError(t, err, "whoever removes LOCK has taken the guard away")
	defer other.Close()
	for i := 0; err == nil && i < 1000; i++ {
		err = db.Put("k", make([]byte, 100))
	}
	require.ErrorIs(t, err, ErrFailed, "the next rotation notices")
	_, err = db.Get("k")
	require.NoError(t, err, "reads go on")
}
