package index

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// overwritten is an index over a table of n keys in segment 1, of which the first
// have been put again, into segment 2.
func overwritten(t *testing.T, n, again int) *Index {
	x := New()
	for i := range n {
		x.Apply([]Change{{Op: Put, Name: fmt.Sprint("key", i), Seq: uint64(i + 1), Pos: Pos{Segment: 1, Offset: uint32(i), Len: 10}}})
	}
	c := x.Freeze()
	var file memory
	_, err := c.Write(&file, 1, nil, func(int) error { return nil })
	require.NoError(t, err)
	table, err := OpenTable(file.b)
	require.NoError(t, err)
	c.Adopt(table)
	for i := range again {
		x.Apply([]Change{{Op: Put, Name: fmt.Sprint("key", i), Seq: uint64(n + i + 1), Pos: Pos{Segment: 2, Offset: uint32(i), Len: 10}}})
	}
	return x
}

// Whoever asks first, for whatever, is told as if each put had counted out at once what
// it replaced.
func TestWhatAPutReplacesIsCountedOutWhenSomebodyAsks(t *testing.T) {
	const n = 200
	for _, again := range []int{1, owedKeys - 1, owedKeys, owedKeys + 1, n} {
		require.Equal(t, n, overwritten(t, n, again).Len())
		require.Equal(t, n, overwritten(t, n, again).Snapshot().Len())
		require.EqualValues(t, n-again, overwritten(t, n, again).Usage(1).Keys)
		require.EqualValues(t, 10*(n-again), overwritten(t, n, again).Freeze().state.usage[1].Entries)

		x := overwritten(t, n, again)
		require.NoError(t, x.Move([]Change{{Op: Put, Name: "key199", Seq: n, Pos: Pos{Segment: 3, Len: 10}}}))
		x.Replace([]uint64{1}, nil)
		require.Equal(t, n, x.Len())
		require.Zero(t, x.Usage(1), "it is gone")
	}
}

// A Builder tells of damage in the table that it meets behind its last record.
func TestBuilderTellsOfDamageThatItOwes(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		x := overwritten(t, 200, 0)
		c := x.Freeze()
		var file memory
		_, err := c.Write(&file, 1, nil, func(int) error { return nil })
		require.NoError(t, err)
		if damaged {
			file.b[100] ^= 1 // in the first data page
		}
		table, err := OpenTable(file.b)
		require.NoError(t, err)
		b, err := Restore(table, x.Last(), func(uint64) bool { return true })
		require.NoError(t, err)
		b.Add([]Change{{Op: Put, Name: "key0", Seq: 201, Pos: Pos{Segment: 2, Len: 10}}}, true)
		require.Equal(t, damaged, b.Err() != nil)
	}
}
