package index

import (
	"fmt"
	"sync"
	"testing"
	"time"

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
	const n = 2 * owedAhead
	for _, again := range []int{1, owedKeys - 1, owedKeys, owedAhead - 1, owedAhead, n} {
		require.Equal(t, n, overwritten(t, n, again).Len())
		require.Equal(t, n, overwritten(t, n, again).Snapshot().Len())
		require.EqualValues(t, n-again, overwritten(t, n, again).Usage(1).Keys)
		require.EqualValues(t, 10*(n-again), overwritten(t, n, again).Freeze().state.usage[1].Entries)

		x := overwritten(t, n, again)
		require.NoError(t, x.Move([]Change{{Op: Put, Name: fmt.Sprint("key", n-1), Seq: n, Pos: Pos{Segment: 3, Len: 10}}}))
		x.Replace([]uint64{1}, nil)
		require.Equal(t, n, x.Len())
		require.Zero(t, x.Usage(1), "it is gone")
	}
}

// Somebody else counts out ahead, and whoever asks meanwhile is told all the same, each
// entry once: also where what he does changes where entries lie.
func TestWhatIsOwedIsCountedOutAheadAndOnce(t *testing.T) {
	const n = 3 * owedMost
	seq := uint64(n)
	x := overwritten(t, n, 0)
	for round := uint64(2); round < 6; round++ {
		var asking sync.WaitGroup
		done := make(chan struct{})
		asking.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				switch i % 4 {
				case 0:
					x.Usage(round)
				case 1:
					require.Equal(t, n, x.Len())
				case 2:
					if i < 40 { // each is one more overlay to look into
						x.Freeze()
					}
				default:
					time.Sleep(time.Duration(round) * 100 * time.Microsecond) // for those who look ahead
				}
			}
		})
		for i := range n {
			seq++
			x.Apply([]Change{{Op: Put, Name: fmt.Sprint("key", i), Seq: seq, Pos: Pos{Segment: round, Offset: uint32(i), Len: 10}}})
		}
		close(done)
		asking.Wait()
		require.Equal(t, n, x.Len())
		require.Equal(t, Usage{}, x.Usage(round-1))
		require.EqualValues(t, n, x.Usage(round).Keys)
		x.mu.Lock()
		require.LessOrEqual(t, len(x.mu.owed)+len(x.mu.taken), 2*owedMost)
		x.mu.Unlock()
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
