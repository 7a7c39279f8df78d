package annals

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/replace"
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

// What readers in other processes may see stands in LOCK, whether it is mapped or
// written, and cutting LOCK under an open store is no end of anything.
func TestLockTellsReadersWhatTheyMaySee(t *testing.T) {
	for name, opts := range map[string]*Options{"mapped": nil, "written": {FS: unmapped{replace.OS}}} {
		t.Run(name, func(t *testing.T) {
			db := open(t, opts)
			path := filepath.Join(db.dir, lockName)
			told := func(visible, generation uint64) {
				t.Helper()
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Len(t, text, lockSize)
				require.Equal(t, visible, binary.LittleEndian.Uint64(text[visibleAt:]))
				require.Equal(t, generation, binary.LittleEndian.Uint64(text[generationAt:]))
			}
			told(0, 1)
			put(t, db, "k", "v")
			put(t, db, "k", "w")
			told(2, 2)
			require.NoError(t, os.Truncate(path, 0))
			put(t, db, "k", "x")
			present(t, db, "k", "x")
			require.NoError(t, os.Truncate(path, lockSize))
			put(t, db, "k", "y")
			told(4, 0)
		})
	}
}

// unmapped is a file system whose files can't be mapped.
type unmapped struct{ replace.FS }

func (u unmapped) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	file, err := u.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return struct{ replace.File }{file}, nil
}
