package index

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
)

// seriesOfBlocks makes lists of series as blocks have them: of each kind, how many
// series there are and in which part of the blocks each is.
func seriesOfBlocks(rng *rand.Rand, blocks int, kinds map[int]float64) (lists [][]uint32) {
	lists = make([][]uint32, blocks)
	id := uint32(rng.IntN(1000))
	for n, share := range kinds {
		for range n {
			id += uint32(1 + rng.IntN(3))
			for i := range lists {
				if share == 1 || rng.Float64() < share {
					lists[i] = append(lists[i], id)
				}
			}
		}
	}
	for i := range lists {
		slices.Sort(lists[i])
	}
	return lists
}

func has(list []uint32, id uint32) bool {
	_, found := slices.BinarySearch(list, id)
	return found
}

// Whatever there is room for, no series is ever missing from a block that holds it,
// and a where that was written and read again says the same.
func TestWhereMissesNoSeries(t *testing.T) {
	rng := seed.Rand(t)
	for range 40 {
		blocks := 1 + rng.IntN(partBlocks)
		lists := seriesOfBlocks(rng, blocks, map[int]float64{
			rng.IntN(4): 1, 10 + rng.IntN(30): rng.Float64(), 50 + rng.IntN(1+rng.IntN(4000)): rng.Float64() / 4, 5000 + rng.IntN(1+rng.IntN(5000)): rng.Float64() / 100,
		})
		w := packWhere(lists)
		require.LessOrEqual(t, w.bytes(), max(whereBlock*blocks, leastWhere)*5/4)
		d := &decoder{b: w.append(nil)}
		again := readWhere(d, blocks)
		require.False(t, d.bad)
		require.Empty(t, d.b)
		require.Equal(t, w.skips, again.skips)
		for range 300 {
			list := lists[rng.IntN(blocks)]
			id := uint32(rng.IntN(40_000))
			if len(list) > 0 && rng.IntN(2) == 0 {
				id = list[rng.IntN(len(list))]
			}
			found, refound := w.find(id, blocks), again.find(id, blocks)
			for i := range lists {
				require.True(t, found.has(i) || !has(lists[i], id), "series %d, block %d", id, i)
				require.Equal(t, found.has(i), refound.has(i))
			}
		}
	}
}

// A rare series is found where it is, and nowhere else, beside thousands that are
// nearly everywhere; and so is one that is in every block.
func TestWhereIsExactForRareSeries(t *testing.T) {
	rng := seed.Rand(t)
	lists := make([][]uint32, partBlocks)
	rare := map[uint32][]int{}
	for i := range lists {
		for id := range uint32(10_000) {
			if id%10 == 0 || rng.IntN(3) == 0 {
				lists[i] = append(lists[i], id)
			}
		}
		for range 2 {
			id := uint32(20_000 + rng.IntN(400))
			if !has(lists[i], id) {
				lists[i] = append(lists[i], id)
				slices.Sort(lists[i])
				rare[id] = append(rare[id], i)
			}
		}
	}
	w := packWhere(lists)
	require.LessOrEqual(t, w.bytes(), whereBlock*partBlocks*9/8)
	for id, blocks := range rare {
		found := w.find(id, partBlocks)
		for i := range lists {
			require.Equal(t, slices.Contains(blocks, i), found.has(i), "series %d, block %d", id, i)
		}
	}
	require.True(t, w.find(10, partBlocks).all)
	require.Equal(t, blockSet{}, w.find(30_000, partBlocks))
}

// More series than there is room to list leave a part in which all may be everywhere.
func TestWhereOfTooManySeriesSaysNothing(t *testing.T) {
	list := make([]uint32, 100_000)
	for i := range list {
		list[i] = uint32(3 * i)
	}
	w := packWhere([][]uint32{list, nil})
	require.Zero(t, w.bytes())
	require.True(t, w.find(7, 2).has(1))
}
