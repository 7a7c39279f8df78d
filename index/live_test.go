package index

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// tableOf makes a table of n keys, whose lines lie in segment 1 one behind the other.
func tableOf(t *testing.T, n int) []byte {
	var list []Entry
	for i := range n {
		list = append(list, Entry{Key: fmt.Sprintf("k%06d", i), Seq: uint64(i + 1), Pos: Pos{Segment: 1, Offset: uint32(100 * i), Len: 100}})
	}
	return writeTable(t, list, "")
}

// liveOf is what is alive in segment 1, of n lines.
func liveOf(data []byte, n int, parallel bool) (*Live, error) {
	table, err := OpenTable(data)
	if err != nil {
		return nil, err
	}
	return newIndex(table).Live(map[uint64]int64{1: int64(100 * n)}, parallel)
}

func TestLiveOfAManyPagedTable(t *testing.T) {
	const n = 50_000
	data := tableOf(t, n)
	for _, parallel := range []bool{false, true} {
		live, err := liveOf(data, n, parallel)
		require.NoError(t, err)
		for i := range n {
			require.True(t, live.Has(1, int64(100*i)))
		}
		require.False(t, live.Has(1, 50))
		require.False(t, live.Has(1, 100*n+1<<20), "behind the end")
		require.False(t, live.Has(2, 0), "in a segment that nobody asked about")
	}
}

// A page that is bad, or whose entries are, is an error, on whichever core.
func TestLiveOfADamagedTable(t *testing.T) {
	const n = 50_000
	good := tableOf(t, n)
	table, err := OpenTable(good)
	require.NoError(t, err)
	for _, page := range []uint32{0, 70, table.t.dataPages - 1} {
		for what, edit := range map[string]func(p []byte){
			"a page's checksum":           func(p []byte) { p[100] ^= 1 },
			"an entry that can't be read": func(p []byte) { binary.LittleEndian.PutUint16(p[1:], 60000); reseal(p, page, table) },
			"an entry in no segment": func(p []byte) {
				p[pageHead+1+len("k000000")+sequenceBytes(p)] = 9
				reseal(p, page, table)
			},
		} {
			bad := slices.Clone(good)
			edit(bad[int(page)*PageSize:][:PageSize])
			for _, parallel := range []bool{false, true} {
				live, err := liveOf(bad, n, parallel)
				var damage *TableError
				require.ErrorAs(t, err, &damage, what)
				require.ErrorContains(t, err, what)
				require.EqualValues(t, int(page)*PageSize, damage.Offset)
				require.Nil(t, live)
			}
		}
	}
}

func reseal(p []byte, page uint32, t *Table) { sealPage(p, dataPage, pageCount(p), page, t.t.mark) }

// sequenceBytes is how long the number of a page's first entry is.
func sequenceBytes(p []byte) int {
	_, n := binary.Uvarint(p[pageHead+1+len("k000000"):])
	return n
}

// What many changes, or a damaged or long index, would make slow goes by Move.
func TestNoMovesWhereTheyCost(t *testing.T) {
	x := New()
	require.Nil(t, x.NewMoves(maxMoves+1))
	for range maxFrozen {
		m := x.NewMoves(1)
		require.NotNil(t, m)
		m.End()
		x.Freeze()
	}
	require.Nil(t, x.NewMoves(1))
}

// More keys than were told, and so many that a slice is full.
func TestMovesOfManyKeys(t *testing.T) {
	const n = 3*movesSlice + 10
	x := New()
	var list []Change
	for i := range n {
		list = append(list, Change{Op: Put, Name: fmt.Sprintf("k%06d", i), Seq: uint64(i + 1), Pos: Pos{Segment: 1, Offset: uint32(100 * i), Len: 100}})
	}
	x.Apply(list)
	m := x.NewMoves(0)
	for out := range uint64(2) {
		to := m.Output(2 + out)
		for _, c := range list[int(out)*n/2:][:n/2] {
			to.Add([]byte(c.Name), false, Entry{Seq: c.Seq, Pos: Pos{Offset: c.Offset + 7, Len: c.Len}})
		}
		to.Done()
	}
	m.Adopt([]uint64{2, 3})
	x.Replace([]uint64{1}, nil)
	for i, c := range list {
		e, ok, err := x.Get(c.Name)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, Entry{Key: c.Name, Seq: c.Seq, Pos: Pos{Segment: 2 + uint64(2*i/n), Offset: c.Offset + 7, Len: 100}}, e)
	}
	require.Equal(t, n, x.Len())
	require.Equal(t, Usage{Keys: n / 2, Entries: 100 * n / 2}, x.Usage(3))
	require.Zero(t, x.Usage(1))
}
