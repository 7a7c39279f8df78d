package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMkdirAllMakesEachDirectoryDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "top")
	require.NoError(t, os.Mkdir(dir, 0o700))
	s := &steps{FS: OS}
	path := filepath.Join(dir, "a", "b", "c")
	require.NoError(t, MkdirAll(s, path, 0o750))
	assert.Equal(t, []string{
		"syncdir " + filepath.Base(filepath.Dir(dir)), // whoever made dir may have been killed before
		"mkdir a", "syncdir top",
		"mkdir b", "syncdir a",
		"mkdir c", "syncdir b",
	}, s.taken())
	info, err := os.Lstat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o750), info.Mode().Perm())
	require.NoError(t, MkdirAll(OS, path, 0o700))

	t.Chdir(dir)
	require.NoError(t, MkdirAll(OS, "x/y", 0o700))
	require.NoError(t, MkdirAll(OS, ".", 0o700))
	assert.DirExists(t, filepath.Join(dir, "x", "y"))
}

func TestMkdirAllRefusesFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	assert.ErrorIs(t, MkdirAll(OS, file, 0o700), syscall.ENOTDIR)
	assert.ErrorIs(t, MkdirAll(OS, filepath.Join(file, "x"), 0o700), syscall.ENOTDIR)
	require.NoError(t, os.Symlink(".", filepath.Join(dir, "link")))
	require.NoError(t, MkdirAll(OS, filepath.Join(dir, "link", "x"), 0o700))
	assert.DirExists(t, filepath.Join(dir, "x"))
}

func TestMkdirAllReportsEachFailure(t *testing.T) {
	run := func(fsys FS, dir string) error { return MkdirAll(fsys, filepath.Join(dir, "a", "b"), 0o700) }
	sweep(t, nil, run, func(t *testing.T, dir string, err error, s *steps) {
		assert.ErrorIs(t, err, syscall.EIO)
	})
}

func TestSyncErrorTellsWhetherTheChangeWasMade(t *testing.T) {
	cause := errors.New("sync /x: input/output error")
	before, after := &SyncError{Path: "/x", Err: cause}, &SyncError{Path: "/x", Err: cause, Unknown: true}
	assert.ErrorIs(t, before, cause)
	assert.EqualError(t, before, "sync /x: input/output error")
	assert.EqualError(t, after, "sync /x: input/output error (done, but perhaps not durable)")
}

func TestNetworkFSOfALocalDirectory(t *testing.T) {
	kind, err := NetworkFS(t.TempDir())
	require.NoError(t, err)
	assert.Empty(t, kind, "tests run on a local file system")
	_, err = NetworkFS(filepath.Join(t.TempDir(), "missing"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
}
