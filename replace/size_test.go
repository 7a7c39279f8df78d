package replace

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// statOnly is a File that has no more than that.
type statOnly struct{ File }

func (f statOnly) Stat() (fs.FileInfo, error) { return f.File.Stat() }

func TestSizeOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f, err := OS.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	for _, size := range []int64{0, 1, 5000, 70_000, 3} {
		require.NoError(t, os.Truncate(path, size))
		for _, f := range []File{f, statOnly{f}} {
			n, err := SizeOf(f)
			require.NoError(t, err)
			require.Equal(t, size, n)
		}
		_, err := f.WriteAt([]byte("x"), 0) // the place that it moved is nobody's
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	for _, f := range []File{f, statOnly{f}} {
		_, err := SizeOf(f)
		require.Error(t, err)
	}
}
