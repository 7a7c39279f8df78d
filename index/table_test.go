package index

import (
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// memory is a TableFile.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(m.b) {
		m.b = append(m.b, make([]byte, n-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if n := copy(p, m.b[off:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func writeTable(t testing.TB, list []Entry, state string) []byte {
	var m memory
	w := NewTableWriter(&m, 42)
	for i := range list {
		require.NoError(t, w.Add(&list[i]))
	}
	size, err := w.Finish([]byte(state))
	require.NoError(t, err)
	require.Equal(t, len(m.b), int(size))
	return m.b
}

func randomEntries(rnd *rand.Rand, n int) []Entry {
	list := make([]Entry, 0, n)
	seen := map[string]bool{}
	for len(list) < n {
		key := fmt.Sprintf("%x", rnd.Uint64()>>uint(rnd.IntN(40)))
		if rnd.IntN(50) == 0 {
			key = string(make([]byte, rnd.IntN(maxTableKey+1))) + key
			key = key[max(0, len(key)-maxTableKey):]
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		e := Entry{Key: key, Seq: rnd.Uint64N(1 << 53), Pos: Pos{Segment: rnd.Uint64N(50), Offset: rnd.Uint32(), Len: rnd.Uint32N(256 << 20)}}
		if rnd.IntN(4) == 0 {
			e.Expires = rnd.Int64()
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return list
}

func TestTableHoldsWhatWasWritten(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 2, 100, 1000, 5000, 100_000} {
		list := randomEntries(rnd, n)
		tab, err := OpenTable(writeTable(t, list, "state"))
		require.NoError(t, err)
		require.Equal(t, n, tab.Len())
		require.Equal(t, "state", string(tab.State()))
		for i := range list {
			e, ok, err := tab.Get(list[i].Key)
			require.NoError(t, err)
			require.True(t, ok, list[i].Key)
			require.Equal(t, list[i], e)
			_, ok, err = tab.Get(list[i].Key + "x")
			require.NoError(t, err)
			require.False(t, ok)
		}
		for range 50 {
			from, to := bound(rnd, list), bound(rnd, list)
			for _, reverse := range []bool{false, true} {
				var want, got []Entry
				for _, e := range list {
					if e.Key >= from && (to == "" || e.Key < to) {
						want = append(want, e)
					}
				}
				if reverse {
					slices.Reverse(want)
				}
				for e, err := range rangeOf(tab, from, to, reverse) {
					require.NoError(t, err)
					got = append(got, e)
				}
				require.Equal(t, want, got, "%q to %q, %v", from, to, reverse)
			}
		}
	}
}

// rangeOf walks over a table alone.
func rangeOf(tab *Table, from, to string, reverse bool) iter.Seq2[Entry, error] {
	return newIndex(tab).Snapshot().Range(from, to, reverse)
}

func bound(rnd *rand.Rand, list []Entry) string {
	switch rnd.IntN(4) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%x", rnd.Uint64())
	}
	if len(list) == 0 {
		return "a"
	}
	return list[rnd.IntN(len(list))].Key
}

// Whatever byte of a table is wrong: what is read is what was written, or an error.
func TestDamagedTableNeverAnswersWrongly(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	list := randomEntries(rnd, 600)
	whole := writeTable(t, list, "state")
	noticed := 0
	for range 3000 {
		b := slices.Clone(whole)
		b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
		tab, err := OpenTable(b)
		if err != nil {
			require.ErrorAs(t, err, new(*TableError))
			noticed++
			continue
		}
		for i := 0; i < len(list); i += 7 {
			e, ok, err := tab.Get(list[i].Key)
			if err != nil {
				require.ErrorAs(t, err, new(*TableError))
				noticed++
				break
			}
			require.True(t, ok)
			require.Equal(t, list[i], e)
		}
		i := 0
		for e, err := range rangeOf(tab, "", "", false) {
			if err != nil {
				require.ErrorAs(t, err, new(*TableError))
				noticed++
				break
			}
			require.Equal(t, list[i], e)
			i++
		}
	}
	require.Greater(t, noticed, 2500)
	for n := range len(whole) / 64 {
		_, err := OpenTable(whole[:n*64])
		require.ErrorAs(t, err, new(*TableError))
	}
}

func TestTableWithCrowdedHashPages(t *testing.T) {
	var list []Entry
	for i := range 3000 {
		list = append(list, Entry{Key: fmt.Sprintf("%08d", i), Seq: uint64(i + 1), Pos: Pos{Segment: 1, Len: 1}})
	}
	tab, err := OpenTable(writeTable(t, list, ""))
	require.NoError(t, err)
	for i := range list {
		_, ok, err := tab.Get(list[i].Key)
		require.NoError(t, err)
		require.True(t, ok)
	}
}

func BenchmarkTable(b *testing.B) {
	const n = 1_000_000
	list := make([]Entry, n)
	for i := range list {
		list[i] = Entry{Key: fmt.Sprintf("%016x", i*7919), Seq: uint64(i + 1), Pos: Pos{Segment: uint64(i / 100_000), Offset: uint32(i%100_000) * 150, Len: 150}}
	}
	file := writeTable(b, list, "")
	b.Logf("%d bytes a key", len(file)/n)
	tab, err := OpenTable(file)
	require.NoError(b, err)
	b.Run("get", func(b *testing.B) {
		rnd := rand.New(rand.NewPCG(1, 1))
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := tab.Get(list[rnd.IntN(n)].Key); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("scan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			count := 0
			for _, err := range rangeOf(tab, "", "", false) {
				require.NoError(b, err)
				count++
			}
			require.Equal(b, n, count)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			writeTable(b, list, "")
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
	})
}
