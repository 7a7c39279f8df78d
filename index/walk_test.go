package index

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The first chunk of an overlay grows, and need not grow to the length of the others:
// if it is full to its last byte when a long key finds no room in what a whole chunk
// has left, it stays so short. Sorting then walked beyond its end.
func TestWalkOverAFirstChunkThatStayedShort(t *testing.T) {
	x := New()
	seq := uint64(0)
	put := func(key string) {
		seq++
		x.Apply([]Change{{Op: Put, Name: key, Seq: seq, Pos: Pos{Segment: 1, Offset: uint32(seq), Len: 10}}})
	}
	top := x.levels.Load().top
	put(strings.Repeat("a", 61_992-changeHead-refUnit)) // the chunk begins as long as this, and grows by four
	full := 16 * 61_992 / refUnit
	for full-int(top.end) > 100 {
		put(fmt.Sprintf("key%09d", seq)) // 40 bytes each
	}
	put(strings.Repeat("b", (full-int(top.end))*refUnit-changeHead))
	require.EqualValues(t, full, top.end, "the chunk is full")
	require.Len(t, (*top.chunks.Load())[0], full*refUnit)
	put(strings.Repeat("c", 60_000))
	n := uint64(0)
	for _, err := range x.Snapshot().Range("", "", false) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, seq, n)
}
