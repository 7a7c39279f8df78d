package wal

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Everybody at once, until Close comes in between, on a disk that is full now and
// then. What was acknowledged is there, in the order of the numbers; nothing of
// the log is left running.
func TestEverybodyAtOnce(t *testing.T) {
	for _, policy := range []time.Duration{0, 2 * time.Millisecond, -1} {
		t.Run(policy.String(), func(t *testing.T) {
			h := start(t, policy, 5000)
			h.on(rule{op: "fdatasync", count: always, before: func() { time.Sleep(20 * time.Microsecond) }})
			var wg, writers sync.WaitGroup
			var mu sync.Mutex
			acknowledged := map[string]bool{}
			ended := func(c *Commit, err error) (over bool) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					acknowledged[c.Records[0].Name] = true
				} else if !errors.Is(err, ErrClosed) && !errors.Is(err, syscall.ENOSPC) {
					t.Error(err)
				}
				return errors.Is(err, ErrClosed)
			}
			number := 0
			const enough = 100 // commits of each writer before Close
			write := func(submit func(*Commit) error) {
				writers.Add(1)
				number++
				id := number
				wg.Go(func() {
					for i := 0; ; i++ {
						if i == enough {
							writers.Done()
						}
						c := put(fmt.Sprint(id, "-", i))
						if ended(c, submit(c)) {
							if i < enough {
								t.Error("closed too early")
							}
							return
						}
					}
				})
			}
			for range 4 {
				write(h.do)
				write(func(c *Commit) error { return wait(h.submit(c)) })
			}
			closed := make(chan struct{})
			others := func(act func() error) {
				wg.Go(func() {
					for {
						select {
						case <-closed:
							return
						default:
						}
						if err := act(); err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, syscall.ENOSPC) {
							t.Error(err)
						}
						runtime.Gosched()
					}
				})
			}
			others(func() error { return h.log.Rotate(t.Context()) })
			others(func() error {
				_, err := h.log.Sync(t.Context())
				return err
			})
			others(func() error {
				h.fail("write", syscall.ENOSPC)
				time.Sleep(time.Millisecond)
				h.log.Stats()
				h.log.Next()
				return h.log.Failure()
			})
			others(func() error {
				h.mu.Lock()
				cs := h.visible[max(0, len(h.visible)-10):]
				h.mu.Unlock()
				h.readable(cs...)
				return nil
			})
			writers.Wait()
			err := h.log.Close()
			if err != nil { // for want of room: as after a crash
				require.ErrorIs(t, err, syscall.ENOSPC)
			}
			close(closed)
			wg.Wait()
			for _, s := range h.segments {
				require.NoError(t, s.Close())
			}
			left := nameList(h, true)
			for name := range acknowledged {
				if (err == nil || policy == 0) && !slices.Contains(left, name) {
					t.Errorf("%s was acknowledged and is lost", name)
				}
			}
			require.GreaterOrEqual(t, len(acknowledged), 100)
			for begun := time.Now(); atWork(); runtime.Gosched() {
				require.Less(t, time.Since(begun), 10*time.Second, "goroutines are left")
			}
		})
	}
}

// atWork tells whether any goroutine is in a method of a log.
func atWork() bool {
	stacks := make([]byte, 1<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*Log)."))
}
