package wal

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// crowd has writers come back together until the log is left to them, and returns how
// many commits that took.
func (h *host) crowd(writers int) (commits int) {
	h.Helper()
	for range 1000 {
		var wg sync.WaitGroup
		for range writers {
			name := fmt.Sprint("crowd ", commits)
			commits++
			wg.Go(func() {
				if err := h.do(put(name)); err != nil {
					h.Error(err)
				}
			})
		}
		wg.Wait()
		h.log.mu.Lock()
		left := h.log.mu.left
		h.log.mu.Unlock()
		if left {
			return commits
		}
	}
	h.Fatalf("%d writers came back together 1000 times, and the log still waits for them", writers)
	return 0
}

// The last of a crowd becomes the owner, and nothing is written before it comes.
func TestLastOfACrowdIsTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const writers = 10
		h := start(t, 0, large)
		commits := h.crowd(writers)
		for range 100 {
			begun := time.Now()
			h.did()
			var waiting []*Commit
			for range writers {
				synctest.Wait()
				require.Empty(t, h.did())
				c := put(fmt.Sprint(commits))
				commits++
				waiting = append(waiting, c)
				require.Equal(t, len(waiting) == writers, h.log.Submit(c, AnyEpoch))
				if len(waiting) < writers {
					time.Sleep(gatherMax / writers) // so that late looks in between
				}
			}
			h.log.Lead()
			for _, c := range waiting {
				require.NoError(t, wait(c))
			}
			require.Equal(t, 1, h.count("fdatasync 1"))
			require.Equal(t, (writers-1)*(gatherMax/writers), time.Since(begun))
		}
		h.noTail(1, commits)
		require.NoError(t, h.close())
	})
}

// One that does not come back holds up the others once, not for long.
func TestCrowdGoesOnWithoutTheMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		commits := h.crowd(10)
		begun := time.Now()
		var waiting []*Commit
		for i := range 9 {
			c := put(fmt.Sprint(i))
			waiting = append(waiting, c)
			require.False(t, h.log.Submit(c, AnyEpoch))
		}
		for _, c := range waiting {
			require.NoError(t, wait(c))
		}
		require.LessOrEqual(t, time.Since(begun), 2*gatherWatch)
		h.settle()
		begun = time.Now()
		require.NoError(t, h.do(put("alone")))
		require.Zero(t, time.Since(begun), "a lone writer waits for nobody")

		// The same when nobody comes back; the watch ends too, and the log goes to rest.
		commits += len(waiting) + 1 + h.crowd(10)
		sleep(10 * gatherWatch)
		h.log.mu.Lock()
		require.False(t, h.log.mu.left || h.log.mu.watched || h.log.mu.owned)
		h.log.mu.Unlock()
		h.did()
		sleep(2 * idleMark)
		require.Equal(t, []string{"write 1", "fdatasync 1"}, h.did(), "the mark of a log at rest")
		h.noTail(1, commits)
		require.NoError(t, h.close())
	})
}

// notLeft has rounds of writers come back together, and requires that the log is left to
// none of them.
func notLeft(t *testing.T, writers func(round int) int) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		for i := range 100 {
			var wg sync.WaitGroup
			for g := range writers(i) {
				wg.Go(func() {
					if err := h.do(put(fmt.Sprint(i, g))); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			h.log.mu.Lock()
			require.False(t, h.log.mu.left)
			h.log.mu.Unlock()
		}
		require.NoError(t, h.close())
	})
}

// Where some come back and some don't, the log does not rely on it.
func TestWritersThatComeAndGoAreNotReliedOn(t *testing.T) {
	notLeft(t, func(round int) int { return 10 + round%2 })
}

// Few writers do not make a crowd: waking a processor takes longer than their commits.
func TestFewWritersAreNoCrowd(t *testing.T) {
	notLeft(t, func(int) int { return crowd - 1 })
}

// Whoever has something else to do with the log does not wait for a crowd.
func TestCrowdIsNotWaitedFor(t *testing.T) {
	for name, act := range map[string]func(h *host) error{
		"Close":  func(h *host) error { return h.log.Close() },
		"Rotate": func(h *host) error { return h.log.Rotate(h.Context()) },
		"Sync": func(h *host) error {
			_, err := h.log.Sync(h.Context())
			return err
		},
		"much is queued": func(h *host) error { return h.do(put(strings.Repeat("x", maxBatch))) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, 0, large)
				h.crowd(10)
				begun := time.Now()
				c := put("a")
				require.False(t, h.log.Submit(c, AnyEpoch))
				require.NoError(t, act(h))
				require.NoError(t, wait(c))
				require.Zero(t, time.Since(begun))
				if name != "Close" {
					require.NoError(t, h.close())
				}
			})
		})
	}
}

// underWay has the last of a crowd of ten lead a batch whose sync is held until release
// is called, and queues another commit behind it.
func (h *host) underWay() (batch []*Commit, behind *Commit, release func()) {
	h.Helper()
	h.crowd(10)
	sync := h.hold("fdatasync")
	for i := range 10 {
		c := put(fmt.Sprint(i))
		batch = append(batch, c)
		if h.log.Submit(c, AnyEpoch) {
			go h.log.Lead()
		}
	}
	<-sync.reached
	return batch, h.submit(put("behind")), func() { close(sync.hold) }
}

// Nobody comes back to a log that is being closed, or has failed.
func TestCrowdIsNotWaitedForAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		batch, behind, release := h.underWay()
		closed := make(chan error)
		go func() { closed <- h.log.Close() }()
		synctest.Wait()
		begun := time.Now()
		release()
		require.NoError(t, <-closed)
		for _, c := range append(batch, behind) {
			require.NoError(t, wait(c))
		}
		require.Zero(t, time.Since(begun))
	})
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		batch, behind, release := h.underWay()
		h.log.Fail(errDisk)
		begun := time.Now()
		release()
		for _, c := range batch {
			require.NoError(t, wait(c), "its own sync has been done")
		}
		require.ErrorIs(t, wait(behind), errDisk)
		require.Zero(t, time.Since(begun))
		h.over(errDisk)
	})
}

// A failure from elsewhere is told to those of a crowd who have come.
func TestCrowdIsToldOfAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		h.crowd(10)
		c := put("a")
		require.False(t, h.log.Submit(c, AnyEpoch))
		h.log.Fail(errDisk)
		require.ErrorIs(t, wait(c), errDisk)
		require.Equal(t, []*Commit{c}, h.dropped)
		h.over(errDisk)
	})
}
