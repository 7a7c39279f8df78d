package replace_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
)

// TestDirectoryWhoseNameCouldNotBeSyncedIsMadeAnew: the sync of the parent fails,
// and the kernel reports that once. The next call must not find the directory and
// take its name for durable.
func TestDirectoryWhoseNameCouldNotBeSyncedIsMadeAnew(t *testing.T) {
	fsys := faultfs.New()
	require.NoError(t, replace.MkdirAll(fsys, "/above", 0o700))
	fsys.Inject(func(op faultfs.Op) *faultfs.Fault {
		if op.Kind == faultfs.SyncDir && op.Path == "/above" {
			return &faultfs.Fault{Err: syscall.EIO}
		}
		return nil
	})
	err := replace.MkdirAll(fsys, "/above/dir/below", 0o700)
	require.ErrorIs(t, err, syscall.EIO)
	fsys.Inject(nil)
	require.NoError(t, replace.MkdirAll(fsys, "/above/dir/below", 0o700))
	crashed := fsys.Crash(func(int) bool { return false })
	_, err = crashed.Lstat("/above/dir/below")
	require.NoError(t, err)
}
