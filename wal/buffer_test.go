package wal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/segment"
)

// lazily runs a test under SyncEvery and SyncNever, in a bubble.
func lazily(t *testing.T, test func(t *testing.T, policy time.Duration)) {
	for name, policy := range map[string]time.Duration{"every": 300 * time.Millisecond, "never": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, policy) })
		})
	}
}

// flushed waits until what is buffered was written, or the writing is stuck.
func flushed() {
	time.Sleep(2 * writeGap)
	synctest.Wait()
}

// Records are there at once, at the place where they will lie, though nothing of
// them, and not even the segment, is on the disk.
func TestBufferedRecordsAreVisibleAtOnce(t *testing.T) {
	lazily(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, small)
		create := h.hold("create 1")
		var names []string
		var commits []*Commit
		for i := range 20 {
			c := h.submit(put(fmt.Sprint(i), fmt.Sprint(i, "b")))
			names = append(names, c.Records[0].Name, c.Records[1].Name)
			commits = append(commits, c)
			require.NoError(t, wait(c))
			require.Same(t, c, h.visible[i])
			h.readable(commits...)
		}
		require.EqualValues(t, 20, commits[19].Records[0].Segment)
		flushed()
		require.Equal(t, []string{"create 1"}, h.did())
		require.Zero(t, h.log.Durable())
		require.Zero(t, h.published)
		for _, s := range h.segments {
			require.Zero(t, s.Size())
		}
		close(create.hold)
		for range 20 {
			h.readable(commits...)
		}
		flushed()
		h.readable(commits...)
		require.Equal(t, names[:38], nameList(h, false)[:38], "all is written, without anybody asking")
		h.clean(names...)
	})
}

// nameList returns the names of the records that are on the disk, in order.
func nameList(h *host, afterCut bool) (names []string) {
	found := h.records(afterCut)
	for seq := uint64(1); found[seq] != ""; seq++ {
		names = append(names, found[seq])
	}
	return names
}

// A reader of part of a line, or of several, gets what a file would give.
func TestReadAtOverBuffers(t *testing.T) {
	lazily(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		require.NoError(t, h.do(put("filed")))
		synctest.Wait()
		write := h.hold("write")
		require.NoError(t, h.do(put("taken")))
		<-write.reached
		require.NoError(t, h.do(put("buffered")))
		s := h.segments[1]
		r := h.visible[2].Records[0]
		all := make([]byte, int(r.Offset)+r.Len)
		n, err := s.ReadAt(all, 0)
		require.NoError(t, err)
		require.Equal(t, len(all), n)
		require.Equal(t, 4, strings.Count(string(all), "\n"))
		for from := 0; from < len(all); from += 7 {
			for to := from; to <= len(all); to += 11 {
				part := make([]byte, to-from)
				_, err := s.ReadAt(part, int64(from))
				require.NoError(t, err)
				require.Equal(t, string(all[from:to]), string(part))
			}
		}
		n, err = s.ReadAt(make([]byte, r.Len+1), r.Offset)
		require.Error(t, err, "there is nothing behind the last line")
		require.Equal(t, r.Len, n)
		close(write.hold)
		synctest.Wait()
		h.clean("filed", "taken", "buffered")
	})
}

func TestSyncEverySyncsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 300*time.Millisecond, large)
		require.NoError(t, h.do(put("a")))
		synctest.Wait()
		require.Equal(t, []string{"a"}, nameList(h, false))
		require.Empty(t, nameList(h, true))
		require.Zero(t, h.count("fdatasync"))
		require.Zero(t, h.published, "others see what is durable only")
		sleep(200 * time.Millisecond)
		require.NoError(t, h.do(put("b")))
		sleep(99 * time.Millisecond)
		require.Zero(t, h.count("fdatasync"))
		sleep(time.Millisecond)
		require.Equal(t, []string{"a", "b"}, nameList(h, true))
		require.EqualValues(t, 2, h.log.Durable())
		require.EqualValues(t, 2, h.published)
		require.NoError(t, h.do(put("c")))
		sleep(300 * time.Millisecond)
		require.EqualValues(t, 3, h.log.Durable())
		require.Equal(t, 2, h.count("fdatasync"), "one for each 300 ms in which something was written")
		h.clean("a", "b", "c")
	})
}

// The buffer is never empty if writers are faster than the disk. Syncs came only
// when it was, so there were none.
func TestSyncEverySyncsInTimeUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 20 * time.Millisecond
		h := start(t, every, 1000)
		var mu sync.Mutex
		busy := true
		var written []time.Time // by sequence number
		write := func() {
			mu.Lock()
			defer mu.Unlock()
			if busy {
				written = append(written, time.Now())
				h.submit(put(fmt.Sprint(len(written))))
			}
		}
		h.on(rule{op: "write", count: always, before: func() {
			time.Sleep(time.Millisecond)
			write()
		}})
		write()
		for range 100 {
			sleep(7 * time.Millisecond)
			mu.Lock()
			if late := h.log.Durable(); late < uint64(len(written)) && time.Since(written[late]) > every+10*time.Millisecond {
				t.Fatalf("record %d is not durable after %v", late+1, time.Since(written[late]))
			}
			mu.Unlock()
		}
		seq, err := h.log.Sync(t.Context())
		require.NoError(t, err, "Sync, too, ends under load")
		require.Greater(t, seq, uint64(100))
		require.NoError(t, h.log.Rotate(t.Context()), "and so does Rotate")
		mu.Lock()
		busy = false
		mu.Unlock()
		synctest.Wait()
		require.NoError(t, h.close())
		require.Greater(t, len(written), 100)
		require.Len(t, nameList(h, true), len(written))
	})
}

// A lazy log's lines claim only what is durable, not what is visible: a claim too
// much would make Open take a crash for corruption.
func TestBufferedLinesClaimOnlyWhatIsDurable(t *testing.T) {
	lazily(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		h.now.Store(7e6)
		require.NoError(t, h.do(put("a")))
		flushed()
		require.NoError(t, h.do(put("b", "c")))
		flushed()
		_, err := h.log.Sync(t.Context())
		require.NoError(t, err)
		require.NoError(t, h.do(put("d")))
		flushed()
		require.True(t, h.log.Submit(expiring("e"), AnyEpoch))
		require.False(t, h.log.Submit(put("f"), AnyEpoch), "it joins the batch")
		go h.log.Run()
		flushed()
		h.lines(1,
			`{"seq":1,"key":"a","val":{"v":1}}`,
			`{"seq":2,"more":true,"key":"b","val":{"v":1}}`,
			`{"seq":3,"key":"c","val":{"v":1}}`,
			`{"seq":4,"dur":3,"key":"d","val":{"v":1}}`,
			`{"dur":3,"now":7.000000}`,
			`{"seq":5,"key":"e","exp":0.000001,"val":{"v":1}}`,
			`{"seq":6,"key":"f","val":{"v":1}}`,
		)
		h.clean("a", "b", "c", "d", "e", "f")
	})
}

func TestSyncNeverSyncsWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, -1, large)
		for i := range 5 {
			require.NoError(t, h.do(put(fmt.Sprint(i))))
			flushed()
			require.EqualValues(t, i+1, h.published, "others see what is written")
		}
		h.fail("write", syscall.ENOSPC) // which is tried again, without a sync too
		require.NoError(t, h.do(put("5")))
		sleep(time.Hour)
		require.Equal(t, 6, len(nameList(h, false)))
		require.Zero(t, h.count("fdatasync"))
		require.Zero(t, h.log.Durable())
		require.Equal(t, 8, h.count("write"), "header, 6 batches, one of them twice, and no mark")
		seq, err := h.log.Sync(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 6, seq)
		require.EqualValues(t, 6, h.log.Durable())
		require.Len(t, nameList(h, true), 6)
		h.clean("0", "1", "2", "3", "4", "5")
	})
}

// A write that finds no room keeps its lines, visible, and everybody hears of it.
// They are written before anything else.
func TestBufferIsKeptWithoutRoom(t *testing.T) {
	lazily(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		require.NoError(t, h.do(put("a")))
		_, err := h.log.Sync(t.Context())
		require.NoError(t, err)
		fault := h.on(rule{op: "write", count: always, err: syscall.ENOSPC, short: 20})
		require.NoError(t, h.do(put("b")), "the buffer takes it before anybody knows")
		flushed()
		for range 3 {
			err := h.do(put("refused"))
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NotErrorIs(t, err, ErrFailed)
			_, err = h.log.Sync(t.Context())
			require.ErrorIs(t, err, syscall.ENOSPC)
			h.noTail(1, 1)
		}
		h.readable(h.visible...)
		require.Len(t, h.visible, 2)
		hits := h.hits(fault)
		sleep(time.Second)
		require.GreaterOrEqual(t, h.hits(fault), hits+3, "it is tried again by itself")
		h.heal()
		require.NoError(t, h.do(put("c")), "the first write after there is room")
		h.readable(h.visible...)
		seq, err := h.log.Sync(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 3, seq)
		require.Equal(t, []string{"a", "b", "c"}, nameList(h, true))

		fault = h.fail("write", syscall.ENOSPC)
		require.NoError(t, h.do(put("d")))
		sleep(time.Second)
		require.Equal(t, 1, h.hits(fault))
		require.Equal(t, []string{"a", "b", "c", "d"}, nameList(h, false), "without another write")
		h.clean("a", "b", "c", "d")
	})
}

// While the buffer is being tried again, nobody may slip in behind it.
func TestNoWriteIsTakenDuringARetry(t *testing.T) {
	lazily(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		require.NoError(t, h.do(put("a")))
		flushed()
		h.fail("write", syscall.ENOSPC)
		require.NoError(t, h.do(put("b")))
		flushed()
		retry := h.on(rule{op: "write", count: 2, err: syscall.ENOSPC, hold: make(chan struct{})}) // with padding, and without
		<-retry.reached
		c := put("c")
		submitted, yes := blocked(func() { h.submit(c) })
		require.True(t, yes)
		close(retry.hold)
		<-submitted
		require.ErrorIs(t, wait(c), syscall.ENOSPC)
		sleep(time.Second)
		h.clean("a", "b")
	})
}

// The writer that retries for all must not stay with the work for ever.
func TestWriterThatRetriesIsLetGo(t *testing.T) {
	lazily(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		h.fail("create", syscall.ENOSPC)
		require.NoError(t, h.do(put("a")))
		synctest.Wait()
		var count atomic.Int64
		h.on(rule{op: "write", count: always, before: func() {
			time.Sleep(time.Millisecond)
			if count.Add(1) < 1000 {
				go h.submit(put("x"))
			}
		}})
		require.NoError(t, h.do(put("b")))
		require.Less(t, count.Swap(1000), int64(10))
		synctest.Wait()
		require.NoError(t, h.close())
	})
}

// blocked tells whether submit, which runs in a goroutine, does not return.
func blocked(submit func()) (returned chan struct{}, yes bool) {
	returned = make(chan struct{})
	go func() {
		submit()
		close(returned)
	}()
	synctest.Wait()
	select {
	case <-returned:
		return returned, false
	default:
		return returned, true
	}
}

// big is a commit of about n bytes.
func big(name string, n int) *Commit {
	r := segment.Record{Kind: segment.Put, Name: name, Value: []byte(strings.Repeat("v", n))}
	return NewCommit([]Record{{Kind: r.Kind, Name: name, Body: segment.AppendBody(nil, &r)}})
}

func TestWritersWaitForTheBuffer(t *testing.T) {
	lazily(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		create := h.hold("create")
		var names []string
		for i := range 8 {
			names = append(names, fmt.Sprint(i))
			require.NoError(t, h.do(big(names[i], 1<<20-200)), "8 MiB fit")
		}
		returned, yes := blocked(func() { h.submit(big("late", 2000)) })
		require.True(t, yes, "the buffer is full")
		close(create.hold)
		<-returned
		require.NoError(t, h.do(big("huge", maxBuffer+1)), "one that is larger than the buffer is taken alone")
		synctest.Wait()
		require.Equal(t, append(names, "late", "huge"), nameList(h, false))
		h.lax = true
		require.NoError(t, h.close())
	})
}

// The memory of a batch is used again, unless it was a monster or the log is at rest.
func TestMemoryOfBatchesIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, time.Minute, large)
		h.lax = true
		spares := func() [][]byte {
			h.log.mu.Lock()
			defer h.log.mu.Unlock()
			return slices.Clone(h.log.mu.spares)
		}
		require.NoError(t, h.do(big("huge", 2*maxBatch)))
		synctest.Wait()
		require.Empty(t, spares())
		for i := range 20 {
			require.NoError(t, h.do(big(fmt.Sprint(i), 1<<20)))
		}
		_, err := h.log.Sync(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, spares())
		require.LessOrEqual(t, len(spares()), maxSpares)
		for _, spare := range spares() {
			require.LessOrEqual(t, cap(spare), maxBatch/4)
		}
		sleep(2 * idleMark)
		require.Empty(t, spares(), "nothing is kept for a log at rest")
		require.NoError(t, h.close())
	})
}

// Where syncs are rare the disk is asked to begin early, with each byte once; a sync
// comes nevertheless. That it can't is as bad as a sync that fails.
func TestDiskIsAskedToBeginEarly(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		h.lax = true
		names := strings.Fields("a b c d e")
		for _, name := range names {
			require.NoError(t, h.do(big(name, hastenBytes*6/10)))
			h.settle()
		}
		if policy == 0 {
			require.Empty(t, h.hastened)
		} else {
			require.Len(t, h.hastened, 2)
			require.Zero(t, h.hastened[0][0])
			for _, asked := range h.hastened { // the next batch changes what is behind
				require.Zero(t, asked[1]%padUnit)
			}
			require.Equal(t, h.hastened[0][1], h.hastened[1][0])
			_, kept := h.contents(1)
			require.Less(t, len(kept), 1000, "it makes nothing durable")
		}
		h.clean(names...)
	})
	h := start(t, time.Hour, large)
	h.lax = true
	fault := h.fail("hasten", errDisk)
	require.NoError(t, h.do(big("a", 2*hastenBytes)))
	h.settle()
	require.Equal(t, 1, h.hits(fault))
	_, err := h.log.Sync(t.Context())
	require.ErrorIs(t, failure(t, err), errDisk)
	require.ErrorIs(t, h.do(put("b")), ErrFailed)
	require.ErrorIs(t, h.close(), ErrFailed)
}

// The same under SyncAlways, for 64 MiB that are queued.
func TestWritersWaitForTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		sync := h.hold("fdatasync")
		weigh := func(name string, bytes int64) *Commit {
			c := put(name)
			c.bytes = bytes
			return c
		}
		a := h.submit(weigh("a", maxQueued/2))
		<-sync.reached
		b := h.submit(weigh("b", maxQueued/2))
		c, d := weigh("c", 1), weigh("d", 2*maxQueued)
		returned, yes := blocked(func() { h.submit(c); h.submit(d) })
		require.True(t, yes)
		close(sync.hold)
		<-returned
		for _, c := range []*Commit{a, b, c, d} {
			require.NoError(t, wait(c))
		}
		h.clean("a", "b", "c", "d")
	})
}

// Those who wait for room hear of Close and of a failure.
func TestWaitingWritersAreTurnedAway(t *testing.T) {
	for _, policy := range []time.Duration{0, -1} {
		for _, close := range []bool{true, false} {
			t.Run(fmt.Sprint(policy, close), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := start(t, policy, large)
					held := h.on(rule{op: "write", from: 2, hold: make(chan struct{})}) // behind the header
					a := put("a")
					a.bytes = maxQueued
					h.submit(a)
					<-held.reached
					h.log.mu.Lock()
					h.log.mu.buffered += maxBuffer
					h.log.mu.Unlock()
					b := put("b")
					submitted, yes := blocked(func() { h.submit(b) })
					require.True(t, yes)
					end := func() { h.log.Fail(errDisk) }
					want := ErrFailed
					if close {
						end, want = func() { h.close() }, ErrClosed
					}
					_, closing := blocked(end)
					require.Equal(t, close, closing, "Close finishes what it has")
					letGo(held)
					<-submitted
					require.ErrorIs(t, wait(b), want)
					synctest.Wait()
					if !close {
						require.ErrorIs(t, h.close(), ErrFailed)
					}
				})
			})
		}
	}
}

func letGo(r *rule) { close(r.hold) }

func TestSync(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			h := start(t, policy, large)
			seq, err := h.log.Sync(t.Context())
			require.NoError(t, err)
			require.Zero(t, seq)
			require.Empty(t, h.did())
			sync := h.hold("fdatasync")
			h.submit(put("a", "b"))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := h.log.Sync(ctx)
				done <- err
			}()
			<-sync.reached
			h.submit(put("c"))
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
			go func() {
				seq, err := h.log.Sync(t.Context())
				if seq != 3 {
					err = fmt.Errorf("synced up to %d: %w", seq, err)
				}
				done <- err
			}()
			synctest.Wait()
			require.Empty(t, done, "it waits")
			close(sync.hold)
			require.NoError(t, <-done)
			require.Equal(t, []string{"a", "b", "c"}, nameList(h, true))
			h.did()
			seq, err = h.log.Sync(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 3, seq)
			synctest.Wait()
			require.Empty(t, h.did(), "there is nothing to sync")
			h.clean("a", "b", "c")
		})
	})
}

// Close writes and syncs what is buffered, or says which records may be lost.
func TestCloseFlushes(t *testing.T) {
	lazily(t, func(t *testing.T, policy time.Duration) {
		for _, op := range []string{"", "write", "fdatasync", "install"} {
			h := start(t, policy, large)
			require.NoError(t, h.do(put("a")))
			_, err := h.log.Sync(t.Context())
			require.NoError(t, err)
			synctest.Wait()
			h.did()
			// The lines lie in the buffer, and somebody is about to write them.
			first, second := put("b"), put("c")
			require.True(t, h.log.Submit(first, AnyEpoch))
			require.False(t, h.log.Submit(second, AnyEpoch))
			if op != "" {
				h.on(rule{op: op, count: always, err: syscall.ENOSPC})
			}
			go h.log.Run()
			err = h.close()
			switch op {
			case "":
				require.NoError(t, err)
			case "install":
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.NotContains(t, err.Error(), "lost")
			case "write":
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.Contains(t, err.Error(), "records 2 to 3 were not made durable")
			case "fdatasync":
				require.Contains(t, failure(t, err).Error(), "ailed")
			}
			left := 3
			if op == "write" || op == "fdatasync" {
				left = 1
			}
			require.Len(t, nameList(h, true), left, op)
			sleep(time.Hour)
		}
	})
}

// Whatever happens, a line lies where it was said to lie before it was written.
func TestPlannedPlacesHold(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		rng := seed.Rand(t)
		for range 20 {
			synctest.Test(t, func(t *testing.T) {
				if policy > 0 {
					policy = 50 * time.Millisecond
				}
				h := start(t, policy, 1500)
				var names []string
				for i := range 150 {
					h.now.Add(rng.Int64N(400_000))
					batch := []string{fmt.Sprint(i, strings.Repeat("x", rng.IntN(200)))}
					for rng.IntN(3) == 0 {
						batch = append(batch, fmt.Sprint(i, "-", len(batch)))
					}
					c := put(batch...)
					if rng.IntN(2) == 0 {
						c = expiring(batch...)
					}
					switch rng.IntN(20) {
					case 0:
						sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
					case 1:
						_ = h.log.Rotate(t.Context())
					case 2:
						_, _ = h.log.Sync(t.Context())
					case 3:
						op := []string{"write", "create", "install"}[rng.IntN(3)]
						h.on(rule{op: op, count: 1 + rng.IntN(3), err: syscall.ENOSPC, short: rng.IntN(100)})
					}
					// Not waited for: what is buffered is read while it is written.
					if err := wait(h.submit(c)); err == nil {
						names = append(names, batch...)
						h.readable(c)
					} else {
						require.ErrorIs(t, err, syscall.ENOSPC)
					}
				}
				h.heal()
				h.readable(h.visible...)
				_, err := h.log.Sync(t.Context())
				require.NoError(t, err)
				h.readable(h.visible...)
				h.clean(names...)
			})
			if t.Failed() {
				return
			}
		}
	})
}
