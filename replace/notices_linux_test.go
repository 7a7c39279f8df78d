package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNoticesTellWhatHappensInADirectory(t *testing.T) {
	dir := t.TempDir()
	file, err := OS.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	defer file.Close()
	n, err := NoticesIn(OS, dir)
	require.NoError(t, err)
	quiet := func() {
		happened, err := n.Wait(0)
		require.NoError(t, err)
		require.False(t, happened)
	}
	for name, do := range map[string]func() error{
		"a write":  func() error { _, err := file.WriteAt([]byte("x"), 0); return err },
		"a rename": func() error { return WriteFile(filepath.Join(dir, "g"), []byte("x")) },
		"the end of a writer": func() error {
			f, err := OS.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			quiet()
			require.NoError(t, do())
			happened, err := n.Wait(time.Minute)
			require.NoError(t, err)
			require.True(t, happened)
			quiet()
		})
	}
	t.Run("reading", func(t *testing.T) {
		f, err := OS.OpenFile(filepath.Join(dir, "f"), os.O_RDONLY, 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		quiet()
	})
	ended := make(chan error)
	go func() {
		_, err := n.Wait(time.Minute)
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond)
	require.NoError(t, n.Close())
	require.ErrorIs(t, <-ended, fs.ErrClosed)
}

func TestNoticesOfWhatIsNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	_, err := NoticesIn(OS, path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = NoticesIn(OS, path)
	require.Error(t, err)
	_, err = NoticesIn(struct{ FS }{OS}, filepath.Dir(path))
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
