package replace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func init() { children["lock"] = holdLock }

// holdLock locks a file, says so, and holds it until it is killed.
func holdLock(args []string) error {
	f, err := Lock(context.Background(), args[0], Exclusive)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println("locked")
	select {}
}

// contexts are the two ways to wait: in the kernel, and by asking again.
func contexts(t *testing.T) map[string]context.Context {
	return map[string]context.Context{"in the kernel": context.Background(), "polling": t.Context()}
}

// waiter starts to lock path, and returns once it has opened the file and is about
// to wait for the lock. The result comes through the channel.
func waiter(ctx context.Context, path string, flag int, mode LockMode) <-chan locked {
	var (
		waiting = make(chan struct{})
		result  = make(chan locked, 1)
		once    sync.Once
	)
	s := &steps{FS: OS, before: func(step string) {
		if step == "lock "+filepath.Base(path) {
			once.Do(func() { close(waiting) })
		}
	}}
	go func() {
		f, err := LockedOpen(ctx, path, flag, mode, On(s))
		result <- locked{f, err}
	}()
	<-waiting
	return result
}

type locked struct {
	File
	err error
}

// names reports whether path names the locked file.
func (l locked) names(t *testing.T, path string) bool {
	t.Helper()
	require.NoError(t, l.err)
	opened, err := l.Stat()
	require.NoError(t, err)
	named, err := os.Lstat(path)
	require.NoError(t, err)
	return os.SameFile(opened, named)
}

func TestLockModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	writer, err := Lock(t.Context(), path, Exclusive)
	require.NoError(t, err)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode())
	for _, mode := range []LockMode{Shared, Exclusive} {
		_, err = TryLock(path, mode)
		assert.ErrorIs(t, err, ErrLocked)
	}
	require.NoError(t, writer.Close())

	reader, err := TryLock(path, Shared)
	require.NoError(t, err)
	reader2, err := Lock(t.Context(), path, Shared)
	require.NoError(t, err)
	_, err = TryLock(path, Exclusive)
	assert.ErrorIs(t, err, ErrLocked)
	require.NoError(t, reader.Close())
	require.NoError(t, reader2.Close())
	writer, err = TryLock(path, Exclusive)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
}

// The article's "ghost": the waiter has opened the file when it is replaced.
func TestLockFileReplacedWhileWaiting(t *testing.T) {
	for name, ctx := range contexts(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			holder, err := Lock(ctx, path, Exclusive)
			require.NoError(t, err)
			result := waiter(ctx, path, os.O_RDWR, Exclusive)
			require.NoError(t, WriteFile(path, []byte("new")))
			require.NoError(t, holder.Close())

			got := <-result
			assert.True(t, got.names(t, path), "locked a ghost")
			_, err = TryLock(path, Shared)
			assert.ErrorIs(t, err, ErrLocked)
			data, err := readAll(got)
			require.NoError(t, err)
			assert.Equal(t, "new", string(data))
			require.NoError(t, got.Close())
		})
	}
}

func TestLockFileRemovedWhileWaiting(t *testing.T) {
	for _, c := range []struct {
		flag int
		want error
	}{
		{os.O_RDWR, fs.ErrNotExist},
		{os.O_RDWR | os.O_CREATE, nil},
	} {
		path := filepath.Join(t.TempDir(), "lock")
		holder, err := Lock(t.Context(), path, Exclusive)
		require.NoError(t, err)
		result := waiter(t.Context(), path, c.flag, Exclusive)
		require.NoError(t, os.Remove(path))
		require.NoError(t, holder.Close())
		got := <-result
		if c.want != nil {
			assert.ErrorIs(t, got.err, c.want)
			continue
		}
		assert.True(t, got.names(t, path))
		require.NoError(t, got.Close())
	}
}

// The holder is the one who may change the file, so it is cut only under the lock.
func TestLockedOpenTruncatesUnderTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, WriteFile(path, []byte("contents")))
	holder, err := LockedOpen(t.Context(), path, os.O_RDONLY, Shared)
	require.NoError(t, err)
	result := waiter(t.Context(), path, os.O_RDWR|os.O_TRUNC, Exclusive)
	assert.Equal(t, "contents", read(t, path))
	require.NoError(t, holder.Close())
	got := <-result
	require.NoError(t, got.err)
	assert.Empty(t, read(t, path))
	require.NoError(t, got.Close())
}

func TestLockObeysItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	holder, err := Lock(t.Context(), path, Shared)
	require.NoError(t, err)
	defer holder.Close()

	ctx, cancel := context.WithCancel(t.Context())
	result := waiter(ctx, path, os.O_RDWR, Exclusive)
	cancel()
	assert.ErrorIs(t, (<-result).err, context.Canceled)

	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = Lock(ctx, path, Exclusive)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.NotErrorIs(t, err, ErrLocked)
	var pathErr *fs.PathError
	require.ErrorAs(t, err, &pathErr)
	assert.Equal(t, path, pathErr.Path)

	_, err = Lock(ctx, path, Shared) // free, but too late
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestLockOfAKilledProcessIsFree(t *testing.T) {
	for name, ctx := range contexts(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			holder := start(t, "lock", path)
			require.Equal(t, "locked", holder.line())
			_, err := TryLock(path, Shared)
			require.ErrorIs(t, err, ErrLocked)
			result := waiter(ctx, path, os.O_RDWR, Exclusive)
			holder.kill()
			got := <-result
			assert.True(t, got.names(t, path))
			require.NoError(t, got.Close())
		})
	}
}

func TestLockRefusesAPlantedLink(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "lock")
	require.NoError(t, os.WriteFile(victim, []byte("untouched"), 0o600))
	require.NoError(t, os.Symlink("victim", path))
	_, err := Lock(t.Context(), path, Exclusive)
	assert.ErrorIs(t, err, ErrNotRegular)
	_, err = LockedOpen(t.Context(), path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, Exclusive)
	assert.ErrorIs(t, err, ErrNotRegular)
	assert.Equal(t, "untouched", read(t, victim))
}

// After a failure of any step the lock is free.
func TestFailedLockHoldsNothing(t *testing.T) {
	prepare := func(dir string) { require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600)) }
	run := func(fsys FS, dir string) error {
		f, err := LockedOpen(context.Background(), filepath.Join(dir, "f"), os.O_RDWR|os.O_TRUNC, Exclusive, On(fsys))
		if err != nil {
			return err
		}
		return f.Close()
	}
	sweep(t, prepare, run, func(t *testing.T, dir string, err error, s *steps) {
		assert.True(t, errors.Is(err, syscall.EIO))
		f, err := TryLock(filepath.Join(dir, "f"), Exclusive)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	})
}
