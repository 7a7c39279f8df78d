package wal

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/segment"
)

const large = 1 << 30 // a segment that is never full

// goroutine names the goroutine that calls it.
func goroutine() string {
	stack := make([]byte, 64)
	name, _, _ := bytes.Cut(stack[:runtime.Stack(stack, false)], []byte("["))
	return string(name)
}

// A lone writer does its own write and its own sync, in its own goroutine, and
// nothing else happens. In the bubble no time passes unless it waits for some.
func TestLoneWriterIsAloneAndNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		require.NoError(t, h.do(put("first")))
		h.did()
		me, begun := goroutine(), time.Now()
		for _, op := range []string{"write", "fdatasync"} {
			h.on(rule{op: op, count: always, before: func() {
				if who := goroutine(); who != me {
					t.Errorf("%s by %s instead of %s", op, who, me)
				}
			}})
		}
		for i := range 100 {
			require.NoError(t, h.do(put(fmt.Sprint(i))))
			require.Equal(t, []string{"write 1", "fdatasync 1"}, h.did())
		}
		require.Zero(t, time.Since(begun))
		require.NoError(t, h.close())
	})
}

// Many writers share syncs. Those who were just told come back in time for the
// next batch: without the owner's wait for them, half of the 64 would miss it. A
// machine that is busy with other things gets some more tries.
func TestManyWritersShareSyncs(t *testing.T) {
	best := 0.0
	for try := 0; try < 8 && best < 36; try++ {
		best = max(best, manyWriters(t))
	}
	require.GreaterOrEqual(t, best, 36.0, "records for each sync")
}

// manyWriters returns the records that each sync carried. The disk takes its time,
// as a real one does.
func manyWriters(t *testing.T) (share float64) {
	const writers, each = 64, 40
	h := start(t, 0, large)
	h.on(rule{op: "fdatasync", count: always, before: func() { time.Sleep(200 * time.Microsecond) }})
	var wg sync.WaitGroup
	var submit sync.Mutex
	next := uint64(1)
	for g := range writers {
		wg.Go(func() {
			for i := range each {
				c := put(fmt.Sprint(g, i))
				submit.Lock()
				owner := h.log.Submit(c, AnyEpoch)
				if c.first() != next {
					t.Errorf("number %d for the commit that was submitted as number %d", c.first(), next)
				}
				next++
				submit.Unlock()
				if owner {
					h.log.Lead()
				}
				seq, err := c.Wait(context.Background())
				if err != nil || seq != c.last() {
					t.Error(seq, err)
				}
				h.mu.Lock()
				if last := h.visible[len(h.visible)-1].last(); last < seq {
					t.Errorf("writer of %d was told when only %d was visible", seq, last)
				}
				h.mu.Unlock()
				if h.log.Durable() < seq {
					t.Errorf("writer of %d was told when %d was durable", seq, h.log.Durable())
				}
			}
		})
	}
	wg.Wait()
	st := h.log.Stats()
	require.EqualValues(t, writers*each, st.Records)
	require.EqualValues(t, writers*each, st.Commits)
	require.Len(t, h.visible, writers*each)
	require.Len(t, h.queued, writers*each)
	require.EqualValues(t, st.Batches, h.count("fdatasync 1"), "one sync for each batch")
	require.Greater(t, float64(st.Records)/float64(st.Syncs), 16.0, "records for each sync: %+v", st)
	h.noTail(1, writers*each)
	require.NoError(t, h.close())
	return float64(st.Records) / float64(st.Syncs)
}

// While a sync is in flight nobody is told anything, and what comes meanwhile
// shares the next batch.
func TestNothingIsVisibleBeforeItsSyncReturns(t *testing.T) {
	h := start(t, 0, large)
	require.NoError(t, h.do(put("a")))
	h.did()
	sync := h.hold("fdatasync")
	b := h.submit(put("b"))
	<-sync.reached
	others := []*Commit{h.submit(put("c")), h.submit(put("d", "e")), h.submit(put("f"))}
	require.Len(t, h.visible, 1)
	require.EqualValues(t, 1, h.log.Durable())
	require.EqualValues(t, 1, h.published)
	next, last, _ := h.log.Next()
	require.EqualValues(t, 7, next)
	require.Same(t, others[2], last)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Wait(ctx)
	require.ErrorIs(t, err, context.Canceled, "waiting can be cancelled")
	require.Equal(t, []string{"write 1", "fdatasync 1"}, h.did())

	close(sync.hold)
	require.NoError(t, wait(b), "the commit can't")
	for _, c := range others {
		require.NoError(t, wait(c))
	}
	require.Equal(t, []string{"write 1", "fdatasync 1"}, h.did())
	require.EqualValues(t, 6, h.log.Durable())
	require.EqualValues(t, 6, h.published)
	h.clean("a", "b", "c", "d", "e", "f")
}

// Users test their programs in bubbles, where time stands still while anybody runs.
// A log that waited for time to pass would wait for ever.
func TestLogWorksInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		sync := h.hold("fdatasync")
		first, second, third := h.held(sync)
		close(sync.hold)
		for _, c := range []*Commit{first, second, third} {
			require.NoError(t, wait(c))
		}
		synctest.Wait()
		h.clean("first", "second", "third")
	})
}

func TestNextTellsWhatIsNotYetVisible(t *testing.T) {
	h := start(t, 0, large)
	next, last, epoch := h.log.Next()
	require.EqualValues(t, 1, next)
	require.Nil(t, last)
	require.Zero(t, epoch)
	require.NoError(t, h.do(put("a")))
	next, last, _ = h.log.Next()
	require.EqualValues(t, 2, next)
	require.Nil(t, last, "all is visible")
	h.clean("a")
}

// The bytes of a batch: its first line, and no other, says what had been durable;
// all but the last line of a commit say that it goes on.
func TestFirstLineOfABatchSaysWhatIsDurable(t *testing.T) {
	h := start(t, 0, large)
	require.NoError(t, h.do(put("a")))
	require.NoError(t, h.do(put("b")))
	sync := h.hold("fdatasync")
	c := h.submit(put("c", "d"))
	<-sync.reached
	h.submit(put("e"))
	f := h.submit(put("f"))
	close(sync.hold)
	require.NoError(t, wait(c))
	require.NoError(t, wait(f))
	h.lines(1,
		`{"seq":1,"key":"a","val":{"v":1}}`,
		`{"seq":2,"dur":1,"key":"b","val":{"v":1}}`,
		`{"seq":3,"dur":2,"more":true,"key":"c","val":{"v":1}}`,
		`{"seq":4,"key":"d","val":{"v":1}}`,
		`{"seq":5,"dur":4,"key":"e","val":{"v":1}}`,
		`{"seq":6,"key":"f","val":{"v":1}}`,
	)
	h.clean("a", "b", "c", "d", "e", "f")
}

// lines checks the objects of the lines behind a segment's header.
func (h *host) lines(number uint64, want ...string) {
	h.Helper()
	data, _ := h.contents(number)
	var got []string
	for s := segment.NewScanner(bytes.NewReader(data), 0, int64(len(data))); s.Scan(); {
		switch l := s.Line(); l.Kind {
		case segment.HeaderLine, segment.FooterLine, segment.BlankLine:
		case segment.BadLine:
			h.Fatalf("%v: %q", l.Reason, l.Bytes)
		default:
			got = append(got, string(l.Bytes[:l.Size-10]))
		}
	}
	require.Equal(h, want, got)
}

// A batch with an expiry begins with a mark, unless there was one a second ago.
func TestBatchWithAnExpiryRecordsTheTime(t *testing.T) {
	h := start(t, 0, large)
	at := func(second float64) { h.now.Store(int64(second * 1e6)) }
	at(1000)
	require.NoError(t, h.do(put("a")))
	require.NoError(t, h.do(expiring("b")))
	at(1000.999999)
	require.NoError(t, h.do(expiring("c")))
	at(1001)
	require.NoError(t, h.do(put("d")))
	sync := h.hold("fdatasync")
	e := h.submit(put("e"))
	<-sync.reached
	h.submit(put("f"))
	h.submit(expiring("g"))
	i := h.submit(expiring("h", "i"))
	close(sync.hold)
	require.NoError(t, wait(e))
	require.NoError(t, wait(i))
	h.lines(1,
		`{"seq":1,"key":"a","val":{"v":1}}`,
		`{"dur":1,"now":1000.000000}`,
		`{"seq":2,"key":"b","exp":0.000001,"val":{"v":1}}`,
		`{"seq":3,"dur":2,"key":"c","exp":0.000001,"val":{"v":1}}`,
		`{"seq":4,"dur":3,"key":"d","val":{"v":1}}`,
		`{"seq":5,"dur":4,"key":"e","val":{"v":1}}`,
		`{"dur":5,"now":1001.000000}`,
		`{"seq":6,"key":"f","val":{"v":1}}`,
		`{"seq":7,"key":"g","exp":0.000001,"val":{"v":1}}`,
		`{"seq":8,"more":true,"key":"h","exp":0.000001,"val":{"v":1}}`,
		`{"seq":9,"key":"i","exp":0.000001,"val":{"v":1}}`,
	)
	h.clean("a", "b", "c", "d", "e", "f", "g", "h", "i")
}

// The mark was taken back with the batch that it began, so the time is still to
// be recorded.
func TestMarkIsRepeatedAfterItsBatchWasTakenBack(t *testing.T) {
	h := start(t, 0, large)
	require.NoError(t, h.do(put("a")))
	h.now.Store(1000e6)
	h.fail("write", syscall.ENOSPC)
	require.ErrorIs(t, h.do(expiring("b")), syscall.ENOSPC)
	h.now.Add(1)
	require.NoError(t, h.do(expiring("c")))
	h.lines(1,
		`{"seq":1,"key":"a","val":{"v":1}}`,
		`{"dur":1,"now":1000.000001}`,
		`{"seq":2,"key":"c","exp":0.000001,"val":{"v":1}}`,
	)
	h.clean("a", "c")
}

// One second after the last batch a mark says that it, too, is durable: once, and
// synced itself.
func TestLogAtRestWritesOneMark(t *testing.T) {
	for _, policy := range []time.Duration{0, 300 * time.Millisecond} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, policy, large)
				h.now.Store(5e6)
				require.NoError(t, h.do(put("a")))
				sleep(900 * time.Millisecond)
				require.NoError(t, h.do(put("b")))
				sleep(999 * time.Millisecond)
				require.Equal(t, 3, h.count("write"), "header, a, b")
				h.did()
				sleep(time.Hour)
				require.Equal(t, []string{"write 1", "fdatasync 1"}, h.did())
				v, _ := h.examine(1)
				require.EqualValues(t, 5e6, v.Clock)

				h.now.Store(9e6)
				require.NoError(t, h.do(put("c")))
				sleep(time.Hour)
				require.Equal(t, []string{"write 1", "fdatasync 1", "write 1", "fdatasync 1"}, h.did(), "again behind the next batch")
				second := `{"seq":2,"dur":1,"key":"b","val":{"v":1}}`
				h.lines(1,
					`{"seq":1,"key":"a","val":{"v":1}}`, second,
					`{"dur":2,"now":5.000000}`,
					`{"seq":3,"dur":2,"key":"c","val":{"v":1}}`,
					`{"dur":3,"now":9.000000}`,
				)
				h.noTail(1, 3)
				h.clean("a", "b", "c")
				h.did()
				sleep(time.Hour)
				require.Empty(t, h.did(), "no timer is left")
			})
		})
	}
}

// sleep lets time pass, and then all that is due happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A mark that finds no room is left out, and no writer hears of it.
func TestMarkThatFindsNoRoomDoesNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, 0, large)
		require.NoError(t, h.do(put("a")))
		h.on(rule{op: "write", err: syscall.ENOSPC, short: 10})
		sleep(2 * time.Second)
		require.Equal(t, []string{"write 1", "truncate 1", "fsync 1"}, h.did()[7:])
		h.noTail(1, 1)
		require.NoError(t, h.do(put("b")))
		h.clean("a", "b")
	})
}

// Newlines fill the file up to the next 64 KiB, and further where batches are larger, so
// that most syncs find its size as it was.
func TestPadding(t *testing.T) {
	h := start(t, 0, large)
	rng := seed.Rand(t)
	var names []string
	ends, before := int64(0), 0
	wished := func(batch int64) int64 { // for as many as were written before this one
		return min(min(int64(h.log.Stats().Batches)-1, growOnce)*batch, maxPad)
	}
	for len(names) < 600 {
		batch := []string{fmt.Sprint(len(names), strings.Repeat("x", rng.IntN(300)))}
		for rng.IntN(3) == 0 {
			batch = append(batch, fmt.Sprint(len(names)+len(batch), strings.Repeat("y", rng.IntN(3000))))
		}
		c := put(batch...)
		require.NoError(t, h.do(c))
		names = append(names, batch...)
		r := &c.Records[len(batch)-1]
		ends = r.Offset + int64(r.Len)
		data, kept := h.contents(1)
		require.Zero(t, len(data)%padUnit)
		if len(data) != before {
			wish := wished(ends - c.Records[0].Offset)
			require.Greater(t, int64(len(data))-ends, wish-padUnit)
			require.Less(t, int64(len(data))-ends, max(wish+1, padUnit))
			before = len(data)
		}
		require.Len(t, kept, len(data))
		require.Empty(t, bytes.Trim(data[ends:], "\n"))
	}
	grown := 0
	for i, size := range h.sizes {
		if i == 0 || size != h.sizes[i-1] {
			grown++
		}
	}
	require.Greater(t, len(h.sizes), 30*grown, "most syncs")
	for size := padUnit / 2; len(names) < 640; size += padUnit / 4 {
		c := put(strings.Repeat("z", min(size, 3*padUnit)))
		require.NoError(t, h.do(c))
		names = append(names, c.Records[0].Name)
		ends = c.Records[0].Offset + int64(c.Records[0].Len)
		data, _ := h.contents(1)
		if len(data) != before {
			require.Greater(t, int64(len(data))-ends, wished(ends-c.Records[0].Offset)-padUnit)
			before = len(data)
		}
	}
	for range 12 {
		c := put(strings.Repeat("z", 2*padBatch))
		require.NoError(t, h.do(c))
		names = append(names, c.Records[0].Name)
		ends = c.Records[0].Offset + int64(c.Records[0].Len)
		if data, _ := h.contents(1); len(data) != before {
			before = len(data)
			require.Less(t, int64(len(data))-ends, int64(padUnit), "a large batch pads no further")
		}
	}
	h.clean(names...)
}

// Further padding is for those who wait for syncs, and for large segments.
func TestPaddingStaysSmall(t *testing.T) {
	for _, c := range []struct {
		policy      time.Duration
		segmentSize int64
	}{{time.Hour, large}, {-1, large}, {0, padFrom - 1}} {
		h := start(t, c.policy, c.segmentSize)
		h.log.batches.Store(growOnce) // as after so many
		require.NoError(t, h.do(put(strings.Repeat("x", 1000))))
		_, err := h.log.Sync(t.Context())
		require.NoError(t, err)
		data, _ := h.contents(1)
		require.Len(t, data, padUnit, "%v, segments of %d bytes", c.policy, c.segmentSize)
		require.NoError(t, h.close())
	}
	h := start(t, 0, 64*padUnit)
	h.log.batches.Store(growOnce)
	for _, size := range []int{62*padUnit - 1000, padUnit - 1000} {
		require.NoError(t, h.do(put(strings.Repeat("x", size))))
	}
	data, _ := h.contents(1)
	require.Len(t, data, 64*padUnit, "nothing behind the end of the segment")
	require.NoError(t, h.close())
}

func TestPaddingThatFindsNoRoomIsLeftOut(t *testing.T) {
	h := start(t, 0, large)
	c := put("a")
	require.NoError(t, h.do(c))
	end := c.Records[0].Offset + int64(c.Records[0].Len)
	for _, room := range []int64{end - 1, end, end + 1, padUnit - 1, padUnit} {
		h := start(t, 0, large)
		h.limit(room)
		err := h.do(put("a"))
		data, kept := h.contents(1)
		require.Equal(t, data, kept)
		switch {
		case room < end:
			require.ErrorIs(t, err, syscall.ENOSPC)
			h.noTail(1, 0)
		case room < padUnit:
			require.NoError(t, err)
			require.Len(t, data, int(end), "with room for %d", room)
			h.noTail(1, 1)
		default:
			require.NoError(t, err)
			require.Len(t, data, padUnit)
		}
		h.limit(0)
		require.NoError(t, h.do(put("b")))
		require.Equal(t, err == nil, h.log.Durable() == 2)
		require.NoError(t, h.close())
	}
	require.NoError(t, h.close())
}

// An outcome that a waiter has seen is known to the next one too, whatever its ctx, while
// the owner has yet to note that the commit is done.
func TestOutcomeComesBeforeTheEndOfTheWait(t *testing.T) {
	c := put("a")
	c.seq = 7
	c.token <- struct{}{} // as far as tell has come
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		seq, err := c.Wait(ctx)
		require.NoError(t, err)
		require.EqualValues(t, 7, seq)
	}
}

// Whoever was given a commit by Next may wait for it much later, so it is not used
// again; others are, and tell the outcome of their new records.
func TestCommitIsUsedAgainOnlyByItsMaker(t *testing.T) {
	h := start(t, 0, large)
	sync := h.hold("fdatasync")
	a := h.submit(put("a"))
	require.NotSame(t, a, Renew(a, puts(0, []string{"x"})), "it is under way")
	<-sync.reached
	b := h.submit(put("b"))
	_, latest, _ := h.log.Next()
	require.Same(t, b, latest)
	close(sync.hold)
	require.NoError(t, wait(a))
	require.NoError(t, wait(b))
	h.settle()

	again := Renew(b, puts(0, []string{"c"}))
	require.NotSame(t, b, again, "Next has given it to us")
	require.NoError(t, h.do(again))
	seq, err := latest.Wait(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, seq)

	h.settle()
	again = Renew(a, puts(0, []string{"d"}))
	require.Same(t, a, again)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Wait(ctx)
	require.ErrorIs(t, err, context.Canceled, "nothing is left of its first outcome")
	require.NoError(t, h.do(a))
	seq, err = a.Wait(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 4, seq)
	h.clean("a", "b", "c", "d")
}
