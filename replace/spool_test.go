package replace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func init() {
	children["produce"] = produce
	children["consume"] = consume
	children["claim"] = claimAndHold
}

// produce puts n items "who-0" to "who-n-1".
func produce(args []string) error {
	s, err := OpenSpool(args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := s.Put(fmt.Appendf(nil, "%s-%d", args[1], i)); err != nil {
			return err
		}
	}
	return nil
}

// consume prints each item that it gets, until it gets one that says "stop".
func consume(args []string) error {
	s, err := OpenSpool(args[0])
	if err != nil {
		return err
	}
	for {
		item, err := s.Claim()
		if errors.Is(err, ErrEmpty) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		data, err := item.Bytes()
		if err != nil {
			return err
		}
		if err := item.Done(); err != nil {
			return err
		}
		if string(data) == "stop" {
			return nil
		}
		fmt.Println(string(data))
	}
}

// claimAndHold claims an item, says which, and holds it until it is killed.
func claimAndHold(args []string) error {
	s, err := OpenSpool(args[0])
	if err != nil {
		return err
	}
	item, err := s.Claim()
	if errors.Is(err, ErrEmpty) {
		return nil
	}
	if err != nil {
		return err
	}
	defer item.Release()
	fmt.Println(item.Name())
	select {}
}

func openSpool(t *testing.T, dir string, opts ...Option) *Spool {
	t.Helper()
	s, err := OpenSpool(dir, opts...)
	require.NoError(t, err)
	return s
}

func claim(t *testing.T, s *Spool) *Item {
	t.Helper()
	item, err := s.Claim()
	require.NoError(t, err)
	return item
}

func contents(t *testing.T, item *Item) string {
	t.Helper()
	data, err := item.Bytes()
	require.NoError(t, err)
	return string(data)
}

func TestSpoolInOrder(t *testing.T) {
	s := openSpool(t, filepath.Join(t.TempDir(), "new", "spool"))
	_, err := s.Claim()
	assert.ErrorIs(t, err, ErrEmpty)
	var names []string
	for i := range 5 {
		name, err := s.Put([]byte(fmt.Sprint(i)))
		require.NoError(t, err)
		names = append(names, name)
	}
	assert.True(t, slices.IsSorted(names))
	for i := range 5 {
		item := claim(t, s)
		assert.Equal(t, names[i], item.Name())
		assert.Equal(t, fmt.Sprint(i), contents(t, item))
		require.NoError(t, item.Done())
	}
	_, err = s.Claim()
	assert.ErrorIs(t, err, ErrEmpty)
	assert.Empty(t, ls(t, s.dir))
}

func TestSpoolTakesItsStepsInOrder(t *testing.T) {
	steps := &steps{FS: OS}
	s := openSpool(t, filepath.Join(t.TempDir(), "spool"), On(steps))
	steps.mu.taken = nil
	name, err := s.Put([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, claim(t, s).Done())
	assert.Equal(t, []string{
		"create temp", "write temp", "sync temp", "close temp", "rename " + name, "syncdir spool",
		"lock " + name, "remove " + name, "syncdir spool", "close " + name,
	}, steps.taken())
}

func TestClaimedItemIsNobodyElses(t *testing.T) {
	dir := t.TempDir()
	a, b := openSpool(t, dir), openSpool(t, dir)
	_, err := a.Put([]byte("1"))
	require.NoError(t, err)
	item := claim(t, a)
	for _, s := range []*Spool{a, b} {
		_, err = s.Claim()
		assert.ErrorIs(t, err, ErrEmpty)
	}
	require.NoError(t, item.Release())
	require.NoError(t, item.Release())
	assert.ErrorIs(t, item.Done(), fs.ErrClosed, "it is no longer ours to remove")
	again := claim(t, b)
	assert.Equal(t, "1", contents(t, again))
	require.NoError(t, again.Done())
	require.NoError(t, again.Release())
	assert.ErrorIs(t, again.Done(), fs.ErrClosed)
	assert.Empty(t, ls(t, dir))
}

// The item is done while another consumer has its file open already.
func TestItemDoneMeanwhileIsNotClaimed(t *testing.T) {
	dir := t.TempDir()
	name, err := openSpool(t, dir).Put([]byte("1"))
	require.NoError(t, err)
	late := openSpool(t, dir, On(&steps{FS: OS, before: func(step string) {
		if step == "lock "+name {
			item, err := openSpool(t, dir).Claim()
			if assert.NoError(t, err) {
				assert.NoError(t, item.Done())
			}
		}
	}}))
	_, err = late.Claim()
	assert.ErrorIs(t, err, ErrEmpty)
}

func TestItemOfAKilledConsumerIsClaimedAgain(t *testing.T) {
	s := openSpool(t, t.TempDir())
	name, err := s.Put([]byte("1"))
	require.NoError(t, err)
	consumer := start(t, "claim", s.dir)
	require.Equal(t, name, consumer.line())
	_, err = s.Claim()
	require.ErrorIs(t, err, ErrEmpty)
	consumer.kill()
	item := claim(t, s)
	assert.Equal(t, "1", contents(t, item))
	require.NoError(t, item.Done())
}

// Processes put and take at the same time; some consumers are killed at work.
func TestSpoolDeliversEachItemOnce(t *testing.T) {
	const producers, consumers, each = 3, 3, 100
	s := openSpool(t, t.TempDir())
	var producing, consuming []*child
	for i := range consumers {
		producing = append(producing, start(t, "produce", s.dir, fmt.Sprint(i), fmt.Sprint(each)))
		consuming = append(consuming, start(t, "consume", s.dir))
	}
	for range 3 {
		_, err := s.Put([]byte("9-9"))
		require.NoError(t, err)
		victim := start(t, "claim", s.dir)
		if victim.lines.Scan() {
			victim.kill()
		} else { // the others were faster
			victim.end()
		}
	}
	for _, c := range producing {
		c.end()
	}
	for range consumers {
		_, err := s.Put([]byte("stop"))
		require.NoError(t, err)
	}
	got := map[string]int{}
	for _, c := range consuming {
		for _, line := range c.end() {
			got[line]++
		}
	}
	assert.Equal(t, 3, got["9-9"])
	delete(got, "9-9")
	assert.Len(t, got, producers*each)
	for item, times := range got {
		assert.Equal(t, 1, times, item)
	}
	assert.Empty(t, ls(t, s.dir))
}

func TestSpoolSharedByGoroutines(t *testing.T) {
	const items, consumers = 60, 6
	s := openSpool(t, t.TempDir())
	var wg sync.WaitGroup
	for range consumers {
		wg.Go(func() {
			for range items / consumers {
				_, err := s.Put([]byte("x"))
				assert.NoError(t, err)
				item, err := s.Claim()
				for errors.Is(err, ErrEmpty) { // all that were put are claimed
					item, err = s.Claim()
				}
				if assert.NoError(t, err) {
					assert.NoError(t, item.Done())
				}
			}
		})
	}
	wg.Wait()
	assert.Empty(t, ls(t, s.dir))
}

// Whatever is in the directory, only what a producer has finished is an item.
func TestSpoolPassesOverWhatIsNoItem(t *testing.T) {
	s := openSpool(t, t.TempDir())
	for _, name := range []string{"work.tmp", ".hidden", ".0.0123456789abcdef.tmp"} {
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), nil, 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(s.dir, "dir"), 0o700))
	require.NoError(t, os.Symlink("work.tmp", filepath.Join(s.dir, "link")))
	_, err := s.Claim()
	assert.ErrorIs(t, err, ErrEmpty)

	// Any program may be a producer.
	require.NoError(t, os.Rename(filepath.Join(s.dir, "work.tmp"), filepath.Join(s.dir, "work")))
	item := claim(t, s)
	assert.Equal(t, "work", item.Name())
	require.NoError(t, item.Done())
}

func TestRemoveAbandoned(t *testing.T) {
	s := openSpool(t, t.TempDir())
	_, err := s.Put([]byte("item"))
	require.NoError(t, err)
	for _, name := range []string{"old.tmp", "young.tmp"} {
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), nil, 0o600))
	}
	yesterday := time.Now().Add(-24 * time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(s.dir, "old.tmp"), yesterday, yesterday))
	require.NoError(t, s.RemoveAbandoned(time.Hour))
	assert.NoFileExists(t, filepath.Join(s.dir, "old.tmp"))
	assert.FileExists(t, filepath.Join(s.dir, "young.tmp"))
	require.NoError(t, claim(t, s).Done())
}

func TestFailedPut(t *testing.T) {
	run := func(fsys FS, dir string) error {
		s, err := OpenSpool(dir, On(fsys))
		if err != nil {
			return err
		}
		_, err = s.Put([]byte("item"))
		return err
	}
	sweep(t, nil, run, func(t *testing.T, dir string, err error, steps *steps) {
		require.Error(t, err)
		s := openSpool(t, dir)
		var syncErr *SyncError
		if errors.As(err, &syncErr) && syncErr.Unknown {
			assert.Equal(t, "item", contents(t, claim(t, s)))
			return
		}
		_, err = s.Claim()
		assert.ErrorIs(t, err, ErrEmpty)
		if !steps.forever {
			assert.Empty(t, ls(t, dir))
		}
	})
}

func TestFailedDoneLosesNothing(t *testing.T) {
	prepare := func(dir string) {
		_, err := openSpool(t, dir).Put([]byte("item"))
		require.NoError(t, err)
	}
	run := func(fsys FS, dir string) error {
		s, err := OpenSpool(dir, On(fsys))
		if err != nil {
			return err
		}
		item, err := s.Claim()
		if err != nil {
			return err
		}
		return item.Done()
	}
	sweep(t, prepare, run, func(t *testing.T, dir string, err error, steps *steps) {
		left := ls(t, dir)
		var syncErr *SyncError
		if err == nil || errors.As(err, &syncErr) && syncErr.Unknown {
			assert.Empty(t, left)
			return
		}
		assert.Equal(t, "item", contents(t, claim(t, openSpool(t, dir))), "it can be claimed again")
	})
}
