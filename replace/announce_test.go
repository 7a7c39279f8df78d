package replace

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func init() {
	children["announce"] = func(args []string) error {
		f, err := TryLock(args[0], Exclusive)
		if err != nil {
			return err
		}
		if err := f.(Announcer).Announce(); err != nil {
			return err
		}
		os.Stdout.WriteString("announced\n")
		select {}
	}
}

// announced asks as a reader does: with a file of its own, open for reading only.
func announced(t *testing.T, path string) bool {
	t.Helper()
	f, err := OS.OpenFile(path, os.O_RDONLY, 0)
	require.NoError(t, err)
	there, err := f.(Announcer).Announced()
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return there
}

// A holder is seen from this process and from others, until it closes the file or is
// killed.
func TestHolderIsSeenWithoutALock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := TryLock(path, Exclusive)
	require.NoError(t, err)
	require.NoError(t, f.(Announcer).Announce())
	require.True(t, announced(t, path))
	there, err := f.(Announcer).Announced()
	require.NoError(t, err)
	require.False(t, there, "another open file is asked for")
	require.NoError(t, f.Close())
	require.False(t, announced(t, path))

	holder := start(t, "announce", path)
	require.Equal(t, "announced", holder.line())
	require.True(t, announced(t, path))
	holder.kill()
	require.False(t, announced(t, path))
}

// Whoever looks all the time keeps nobody from taking the lock and announcing himself.
func TestLookingKeepsNobodyAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				announced(t, path)
			}
		}
	}()
	for range 2000 {
		f, err := TryLock(path, Exclusive)
		require.NoError(t, err)
		require.NoError(t, f.(Announcer).Announce())
		require.NoError(t, f.Close())
	}
	close(stop)
	<-done
}
