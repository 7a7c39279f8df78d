package annals

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/faultfs"
)

// TestWhatCantBeReadIsNoAnswer fails every read of a job once, some of them
// halfway. A job that goes on has taken the failure for an answer. (Repair goes
// on, and says so: that is what it is for.)
func TestWhatCantBeReadIsNoAnswer(t *testing.T) {
	for _, test := range []struct {
		name string
		job  func(t *testing.T, fsys *faultfs.FS) func(n int) error
	}{
		{"compact", compactAgain},
		{"backup without links", backupByCopying},
	} {
		for bytes := range 2 {
			t.Run(fmt.Sprintf("%s, %d bytes are read", test.name, bytes), func(t *testing.T) {
				fsys := faultfs.New()
				job := test.job(t, fsys)
				for k := 1; ; k++ {
					n := 0
					fsys.Inject(func(op faultfs.Op) *faultfs.Fault {
						if op.Kind == faultfs.Link {
							return &faultfs.Fault{Err: syscall.EXDEV}
						}
						if op.Kind == faultfs.Read {
							n++
						}
						if op.Kind != faultfs.Read || n != k {
							return nil
						}
						return &faultfs.Fault{Err: syscall.EIO, Bytes: bytes}
					})
					err := job(k)
					if n < k {
						require.NoError(t, err)
						require.Greater(t, k, 2, "nothing was read")
						return
					}
					require.ErrorIs(t, err, syscall.EIO, "read %d", k)
					require.NotErrorIs(t, err, ErrCorrupt, "read %d", k)
				}
			})
		}
	}
}

func compactAgain(t *testing.T, fsys *faultfs.FS) func(int) error {
	db, err := Open("/store", &Options{FS: fsys, Compaction: Compaction{Off: true}})
	require.NoError(t, err)
	t.Cleanup(func() {
		fsys.Inject(nil)
		require.NoError(t, db.Close())
	})
	put(t, db, "a", "1")
	_, err = db.Append("s", []byte("1"))
	require.NoError(t, err)
	_, err = db.Compact(t.Context(), nil)
	require.NoError(t, err)
	put(t, db, "a", "2") // else there would be nothing to do
	return func(int) error {
		_, err := db.Compact(t.Context(), nil)
		return err
	}
}

func backupByCopying(t *testing.T, fsys *faultfs.FS) func(int) error {
	db, err := Open("/store", &Options{FS: fsys, Compaction: Compaction{Off: true}})
	require.NoError(t, err)
	put(t, db, "a", "1")
	require.NoError(t, db.Close())
	db, err = Open("/store", &Options{FS: fsys, Compaction: Compaction{Off: true}})
	require.NoError(t, err)
	t.Cleanup(func() {
		fsys.Inject(nil)
		require.NoError(t, db.Close())
	})
	put(t, db, "b", "1")
	return func(n int) error { return db.Backup(t.Context(), fmt.Sprintf("/copy%d", n)) }
}

// TestBackupToADirectoryThatWasThereIsDurable: somebody has made the directory, or
// a backup before has and was killed, and nobody has synced its name.
func TestBackupToADirectoryThatWasThereIsDurable(t *testing.T) {
	fsys := faultfs.New()
	db, err := Open("/store", &Options{FS: fsys})
	require.NoError(t, err)
	put(t, db, "k", "1")
	require.NoError(t, fsys.Mkdir("/copy", 0o700))
	require.NoError(t, db.Backup(t.Context(), "/copy"))
	require.NoError(t, db.Close())
	crashed := fsys.Crash(func(int) bool { return false })
	db, err = Open("/copy", &Options{FS: crashed})
	require.NoError(t, err)
	present(t, db, "k", "1")
	require.NoError(t, db.Close())
}
