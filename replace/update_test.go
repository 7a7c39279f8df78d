package replace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func init() {
	children["count"] = func(args []string) error { return count(args, increment) }
	children["count naively"] = func(args []string) error { return count(args, incrementNaively) }
}

// count waits for its input to end, and then increments the number in a file.
func count(args []string, increment func(path string) error) error {
	times, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	for range times {
		if err := increment(args[0]); err != nil {
			return err
		}
	}
	return nil
}

func increment(path string) error {
	return Update(path, func(old []byte) ([]byte, error) {
		n, err := number(old)
		return fmt.Appendf(nil, "%d\n", n+1), err
	})
}

// number reads what increment wrote; no file counts as 0.
func number(data []byte) (int, error) {
	if data == nil {
		return 0, nil
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// incrementNaively is the first write-replace with a lock that the article shows,
// the one that looks right: it locks the file that it has opened, and never
// asks whether that still is the one to update.
func incrementNaively(path string) error {
	f, err := OS.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Lock(true, true); err != nil {
		return err
	}
	old, err := readAll(f)
	if err != nil {
		return err
	}
	n, err := number(old)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "naive")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(temp, "%d\n", n+1); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// race has several processes, let go at the same time, count one file up, and
// returns the number that it ends with.
func race(t *testing.T, how, path string, processes, times int) int {
	t.Helper()
	gate, open, err := os.Pipe()
	require.NoError(t, err)
	var running []*child
	for range processes {
		running = append(running, startWithInput(t, gate, how, path, strconv.Itoa(times)))
	}
	require.NoError(t, gate.Close())
	for _, c := range running {
		require.Equal(t, "ready", c.line())
	}
	require.NoError(t, open.Close())
	for _, c := range running {
		c.end()
	}
	n, err := number([]byte(read(t, path)))
	require.NoError(t, err)
	return n
}

const processes = 8

func TestUpdateLosesNoUpdate(t *testing.T) {
	times := 1000
	if testing.Short() {
		times = 100
	}
	path := filepath.Join(t.TempDir(), "counter")
	assert.Equal(t, processes*times, race(t, "count", path, processes, times))
	assert.Equal(t, []string{"counter"}, ls(t, filepath.Dir(path)))
}

// The same race with the naive version shows that the race is one: it loses
// updates. That it does in any one run is likely, not certain.
func TestNaiveUpdateLosesUpdates(t *testing.T) {
	const times, attempts = 100, 20
	for range attempts {
		path := filepath.Join(t.TempDir(), "counter")
		require.NoError(t, os.WriteFile(path, []byte("0\n"), 0o600))
		if n := race(t, "count naively", path, processes, times); n < processes*times {
			t.Logf("the naive version counts %d of %d", n, processes*times)
			return
		}
	}
	t.Errorf("no update lost in %d races: they show nothing about Update either", attempts)
}

func TestUpdateTakesItsStepsInOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "file")
	add := func(old []byte) ([]byte, error) { return append(old, '+'), nil }

	s := &steps{FS: OS}
	require.NoError(t, Update(path, add, On(s)))
	assert.Equal(t, []string{
		"create temp", "write temp", "sync temp", "close temp",
		"lock temp", "link file", "remove temp", "syncdir dir", "close temp",
	}, s.taken())

	s = &steps{FS: OS}
	require.NoError(t, Update(path, add, On(s)))
	assert.Equal(t, []string{
		"lock file",
		"create temp", "write temp", "sync temp", "close temp",
		"lock temp", "rename file", "syncdir dir", "close temp",
		"close file",
	}, s.taken())
	assert.Equal(t, "++", read(t, path))
}

// The new file is under its name before that is durable. Nobody who takes the lock
// may see it before.
func TestUpdateIsLockedUntilItIsDurable(t *testing.T) {
	for _, old := range []string{"", "old"} {
		path := filepath.Join(t.TempDir(), "file")
		if old != "" {
			require.NoError(t, WriteFile(path, []byte(old)))
		}
		tried := false
		s := &steps{FS: OS, before: func(step string) {
			if strings.HasPrefix(step, "syncdir") {
				tried = true
				assert.Equal(t, "new", read(t, path))
				_, err := TryLock(path, Shared)
				assert.ErrorIs(t, err, ErrLocked)
			}
		}}
		require.NoError(t, replacing["Update"](path, On(s)))
		assert.True(t, tried)
		f, err := TryLock(path, Exclusive)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

func TestUpdateGivesTheOldContents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var seen [][]byte
	for _, contents := range []string{"", "a", "bb"} {
		require.NoError(t, Update(path, func(old []byte) ([]byte, error) {
			seen = append(seen, old)
			return []byte(contents), nil
		}))
		assert.Equal(t, contents, read(t, path))
	}
	assert.Equal(t, [][]byte{nil, {}, []byte("a")}, seen)
}

func TestUpdateByAFuncThatFailsChangesNothing(t *testing.T) {
	errNo := errors.New("no")
	// The second looks like a missing file, and must not be taken for one.
	for _, want := range []error{errNo, os.ErrNotExist, os.ErrExist} {
		calls := 0
		fail := func([]byte) ([]byte, error) { calls++; return []byte("new"), want }
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		assert.ErrorIs(t, Update(path, fail), want)
		assert.Empty(t, ls(t, dir))

		require.NoError(t, WriteFile(path, []byte("old")))
		assert.ErrorIs(t, Update(path, fail), want)
		assert.Equal(t, "old", read(t, path))
		assert.Equal(t, []string{"file"}, ls(t, dir))
		assert.Equal(t, 2, calls)
	}
}

// Two make the file at once: the one that comes second sees what the first wrote.
func TestUpdateOfAFileMadeMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var seen []string
	require.NoError(t, Update(path, func(old []byte) ([]byte, error) {
		if len(seen) == 0 {
			require.NoError(t, WriteFile(path, []byte("theirs")))
		}
		seen = append(seen, string(old))
		return append(old, " and ours"...), nil
	}))
	assert.Equal(t, []string{"", "theirs"}, seen)
	assert.Equal(t, "theirs and ours", read(t, path))
	assert.Equal(t, []string{"file"}, ls(t, filepath.Dir(path)))
}
