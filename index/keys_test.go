package index

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// keysBy returns what NextKeys says of the keys of a range, some at a time, and the rest
// as Next has it.
func keysBy(t *testing.T, x *Index, from, to string, some func() int) (list []Entry, err error) {
	w := x.Snapshot().Walk(from, to, false)
	defer w.Close()
	var k Keys
	for {
		n := some()
		ok, err := w.NextKeys(&k, n)
		if err != nil {
			return list, err
		}
		if !ok {
			rest, err := w.Next(nil, n)
			if len(rest) == 0 || err != nil {
				return append(list, rest...), err
			}
			list = append(list, rest...)
			continue
		}
		require.LessOrEqual(t, len(k.List), n)
		begin := 0
		for _, key := range k.List {
			list = append(list, Entry{Key: k.Text[begin:key.End], Seq: key.Seq, Expires: key.Expires})
			begin = key.End
		}
		require.Len(t, k.Text, begin)
		if len(k.List) == 0 {
			return list, nil
		}
	}
}

func bare(list []Entry) (keys []Entry) {
	for _, e := range list {
		keys = append(keys, Entry{Key: e.Key, Seq: e.Seq, Expires: e.Expires})
	}
	return keys
}

// Keys alone are those of the walk over entries: of one shape, of two in turns, of any.
func TestKeysAreThoseOfTheWalk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for round := range 60 {
		list := randomEntries(rnd, rnd.IntN(3000))
		for i := range list {
			if round%3 > 0 {
				list[i].Key = fmt.Sprintf("%016d", i)
				list[i].Seq, list[i].Expires, list[i].Pos = uint64(1000+i*i), 0, Pos{Segment: 3, Offset: rnd.Uint32() >> (8 + 7*rnd.IntN(round%3)), Len: 150}
			}
		}
		tab, err := OpenTable(writeTable(t, list, ""))
		require.NoError(t, err)
		x := newIndex(tab)
		for range 10 {
			from, to := bound(rnd, list), bound(rnd, list)
			most := []int{1, 20, 300, math.MaxInt}[rnd.IntN(4)]
			got, err := keysBy(t, x, from, to, func() int { return 1 + rnd.IntN(most) })
			require.NoError(t, err)
			require.Equal(t, bare(inRange(list, from, to, false)), bare(got), "%q to %q", from, to)
		}
		if len(list) == 0 {
			continue
		}
		// With changes above the table the walk begins with both, and goes on with the table.
		changed := list[rnd.IntN(len(list))].Key
		x.Apply([]Change{{Op: Delete, Name: changed, Seq: 1 << 60}})
		got, err := keysBy(t, x, "", "", func() int { return 100 })
		require.NoError(t, err)
		want := bare(list)
		for i := range want {
			if want[i].Key == changed {
				want = append(want[:i:i], want[i+1:]...)
				break
			}
		}
		require.Equal(t, want, append([]Entry{}, bare(got)...))
	}
}

// Of a page whose bytes make no sense keys alone are an error too, or some keys.
func TestKeysOfNonsenseEndNobody(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	list := randomEntries(rnd, 1000)
	for i := range list {
		list[i].Expires = 0
	}
	whole := writeTable(t, list, "")
	failed := 0
	for range 2000 {
		b := append([]byte{}, whole...)
		p := b[:PageSize]
		for range 1 + rnd.IntN(20) {
			p[1+rnd.IntN(pageBytes-1)] = byte(rnd.Uint32())
		}
		if rnd.IntN(2) == 0 {
			sealPage(p, dataPage, pageCount(p), 0, 42)
		}
		tab, err := OpenTable(b)
		require.NoError(t, err)
		if _, err := keysBy(t, newIndex(tab), "", "", func() int { return 1 + rnd.IntN(300) }); err != nil {
			require.ErrorAs(t, err, new(*TableError))
			require.Contains(t, err.Error(), "offset 0")
			failed++
		}
	}
	require.Greater(t, failed, 1000)
}
