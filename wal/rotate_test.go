package wal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const small = 200 // a segment that holds one small commit

// policies runs a test under SyncAlways, SyncEvery and SyncNever.
func policies(t *testing.T, test func(t *testing.T, policy time.Duration)) {
	for name, policy := range map[string]time.Duration{"always": 0, "every": time.Hour, "never": -1} {
		t.Run(name, func(t *testing.T) { test(t, policy) })
	}
}

// The steps of the package comment, in their order, with nothing between them.
func TestRotationTakesItsStepsInOrder(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, small)
		// expect takes the operations as one string. A lazy log syncs when it must: before a footer.
		expect := func(always, lazy string) {
			t.Helper()
			h.settle()
			if policy != 0 {
				always = lazy
			}
			require.Equal(t, always, strings.Join(h.did(), ", "))
		}
		const first = "create 1, write 1, fsync 1, syncdir data, install open 1, write 1"
		require.NoError(t, h.do(put("a")))
		expect(first+", fdatasync 1", first)

		const next = "truncate 1, write 1, fsync 1, create 2, write 2, fsync 2, syncdir data, install sealed 1 open 2, write 2"
		require.NoError(t, h.do(put("b")))
		expect(next+", fdatasync 2", "fdatasync 1, "+next)

		const last = "truncate 2, write 2, fsync 2, install sealed 2 "
		h.clean("a", "b")
		expect(strings.TrimSpace(last), "fdatasync 2, "+strings.TrimSpace(last))
	})
}

// Segments follow each other without a gap, and none is longer than it should be.
func TestSegmentsAreSealedWhenFull(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		const size = 2000
		h := start(t, policy, size)
		var names []string
		for i := range 150 {
			c := put(fmt.Sprint(i), strings.Repeat("x", i))
			require.NoError(t, h.do(c))
			names = append(names, c.Records[0].Name, c.Records[1].Name)
		}
		h.clean(names...)
		next := uint64(1)
		for _, n := range slices.Sorted(maps.Keys(h.listed)) {
			f := h.listed[n]
			require.Equal(t, next, f.First)
			require.LessOrEqual(t, f.Bytes, int64(size))
			if f.Last < 300 {
				require.Greater(t, f.Bytes, int64(size-600))
			}
			next = f.Last + 1
		}
		require.EqualValues(t, 301, next)
		require.Greater(t, len(h.listed), 10)
	})
}

// A commit lies in one segment, even if that is longer for it, and has it to
// itself.
func TestCommitLargerThanASegment(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, small)
		names := strings.Fields(strings.Repeat("x ", 50))
		a, b, c := put("a"), put(names...), put("c")
		require.NoError(t, h.do(a))
		require.NoError(t, h.do(b))
		require.NoError(t, h.do(c))
		h.readable(a, b, c)
		for i := range b.Records {
			require.EqualValues(t, 2, b.Records[i].Segment)
		}
		require.EqualValues(t, 1, a.Records[0].Segment)
		require.EqualValues(t, 3, c.Records[0].Segment)
		h.clean(append(append([]string{"a"}, names...), "c")...)

		h = start(t, policy, small)
		require.NoError(t, h.do(put(names...)), "as the first one, too")
		h.clean(names...)

		h = start(t, policy, small)
		require.NoError(t, h.do(put("a")))
		require.NoError(t, h.log.Rotate(t.Context()))
		b = put(names...)
		require.NoError(t, h.do(b))
		require.EqualValues(t, 2, b.Records[0].Segment, "a segment with nothing in it takes any commit")
		h.clean(append([]string{"a"}, names...)...)
	})
}

// The end of the context ends the waiting, not the rotation.
func TestRotateObeysItsContext(t *testing.T) {
	h := start(t, 0, large)
	require.NoError(t, h.do(put("a")))
	sync := h.hold("fdatasync")
	b := h.submit(put("b"))
	<-sync.reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, h.log.Rotate(ctx), context.Canceled)
	close(sync.hold)
	require.NoError(t, wait(b))
	h.settle()
	require.NotNil(t, h.listed[1])
	h.clean("a", "b")
}

func TestRotate(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		rotate := func() {
			t.Helper()
			require.NoError(t, h.log.Rotate(t.Context()))
			h.settle()
		}
		rotate()
		require.Empty(t, h.did(), "there is nothing to seal")
		a := put("a")
		require.NoError(t, h.do(a))
		rotate()
		require.NotNil(t, h.listed[1])
		require.Contains(t, h.listed, uint64(2))
		h.did()
		rotate()
		require.Empty(t, h.did(), "there is nothing in the new one")
		b := put("b")
		require.NoError(t, h.do(b))
		require.EqualValues(t, 2, b.Records[0].Segment)
		rotate()
		h.readable(a, b)
		h.clean("a", "b")
		require.Len(t, h.files, 2, "the empty segment is gone")
	})
}

func TestCloseWithoutRecordsTouchesNothing(t *testing.T) {
	policies(t, func(t *testing.T, policy time.Duration) {
		h := start(t, policy, large)
		require.NoError(t, h.close())
		require.Empty(t, h.did())
		require.ErrorIs(t, h.do(put("a")), ErrClosed)
		require.ErrorIs(t, h.log.Rotate(t.Context()), ErrClosed)
		require.ErrorIs(t, h.log.Close(), ErrClosed)
		seq, err := h.log.Sync(t.Context())
		require.NoError(t, err)
		require.Zero(t, seq)
		require.Empty(t, h.did())
	})
}
