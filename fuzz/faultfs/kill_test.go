package faultfs_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/faultfs"
)

// A kill leaves what is in the cache as it is: a later sync makes it durable, a
// power cut without one may lose it. Locks are free.
func TestKillKeepsTheCache(t *testing.T) {
	f := faultfs.New()
	file, err := f.OpenFile("/a", os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, file.Lock(true, false))
	require.NoError(t, f.SyncDir("/"))
	_, err = file.WriteAt([]byte("text"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Rename("/a", "/b"))

	killed := f.Kill()
	require.Equal(t, f.Pending(), killed.Pending())
	again, err := killed.OpenFile("/b", os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, again.Lock(true, false))
	require.NoError(t, again.Sync())
	cut := killed.Crash(func(int) bool { return false })
	_, err = cut.Lstat("/b")
	require.ErrorIs(t, err, os.ErrNotExist, "nobody synced the directory")
	info, err := cut.Lstat("/a")
	require.NoError(t, err)
	require.EqualValues(t, 4, info.Size())

	cut = f.Crash(func(int) bool { return false })
	info, err = cut.Lstat("/a")
	require.NoError(t, err)
	require.Zero(t, info.Size(), "what the next process synced is not synced here")
}
