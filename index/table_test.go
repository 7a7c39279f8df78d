package index

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
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
		e := Entry{Key: key, Seq: rnd.Uint64N(1 << 53), Pos: Pos{Segment: 1 + rnd.Uint64N(50), Offset: rnd.Uint32(), Len: rnd.Uint32N(256 << 20)}}
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
				want, got := inRange(list, from, to, reverse), []Entry(nil)
				for e, err := range rangeOf(tab, from, to, reverse) {
					require.NoError(t, err)
					got = append(got, e)
				}
				require.Equal(t, want, got, "%q to %q, %v", from, to, reverse)
			}
		}
	}
}

// inRange returns the entries of a sorted list that a range has, in its order.
func inRange(list []Entry, from, to string, reverse bool) (in []Entry) {
	for _, e := range list {
		if e.Key >= from && (to == "" || e.Key < to) {
			in = append(in, e)
		}
	}
	if reverse {
		slices.Reverse(in)
	}
	return in
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
				if err != nil {
					b.Fatal(err)
				}
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

// keysFor returns n keys whose hash leads to the given part of the hash pages.
func keysFor(n int, from, to float64) (list []Entry) {
	for i := 0; len(list) < n; i++ {
		key := fmt.Sprintf("%08d", i)
		if at := float64(hash(key)) / (1 << 64); at >= from && at < to {
			list = append(list, Entry{Key: key, Seq: uint64(i + 1), Pos: Pos{Segment: 1, Len: 1}})
		}
	}
	return list
}

// Somebody may choose keys that all lead to the same hash pages.
func TestKeysThatCrowdTheHashPages(t *testing.T) {
	for _, where := range [][2]float64{{0, 0.05}, {0.45, 0.5}, {0.97, 1}} {
		list := keysFor(3000, where[0], where[1])
		for _, partition := range []uint32{1, 2, hashPartition} {
			var m memory
			w := NewTableWriter(&m, 42)
			w.partition = partition
			for i := range list {
				require.NoError(t, w.Add(&list[i]))
			}
			_, err := w.Finish(nil)
			require.NoError(t, err)
			tab, err := OpenTable(m.b)
			require.NoError(t, err)
			require.NoError(t, tab.Check())
			for i := range list {
				e, ok, err := tab.Get(list[i].Key)
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, list[i], e)
			}
			_, ok, err := tab.Get("absent")
			require.NoError(t, err)
			require.False(t, ok)
		}
	}
}

// A page whose checksum is right may hold anything, if somebody has made it so: what
// is read is an error, or an entry, and nobody is ended by it.
func TestPagesOfNonsenseEndNobody(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	list := randomEntries(rnd, 3000)
	whole := writeTable(t, list, "state")
	failed := 0
	for range 600 {
		b := slices.Clone(whole)
		n := rnd.IntN(len(b)/PageSize - 2)
		p := b[n*PageSize:][:PageSize]
		for range 1 + rnd.IntN(20) {
			p[1+rnd.IntN(pageBytes-1)] = byte(rnd.Uint32())
			if rnd.IntN(4) == 0 {
				p[1+rnd.IntN(min(60, pageBytes-1))] = 0xFF
			}
		}
		sealPage(p, p[0], pageCount(p), uint32(n), 42)
		tab, err := OpenTable(b)
		if err != nil {
			failed++
			continue
		}
		for i := 0; i < len(list); i += 5 {
			if _, _, err := tab.Get(list[i].Key); err != nil {
				require.ErrorAs(t, err, new(*TableError))
				require.Contains(t, err.Error(), "offset")
				failed++
			}
		}
		for _, reverse := range []bool{false, true} {
			from := list[rnd.IntN(len(list))].Key
			for _, err := range rangeOf(tab, from, "", reverse) {
				if err != nil {
					failed++
				}
			}
		}
	}
	require.Greater(t, failed, 500)
}

// failing is a file that fails at its n-th write or read.
type failing struct {
	memory
	n int
}

var errFailing = errors.New("as was to be shown")

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if f.n--; f.n == 0 {
		return 0, errFailing
	}
	return f.memory.WriteAt(p, off)
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.n--; f.n == 0 {
		return 0, errFailing
	}
	return f.memory.ReadAt(p, off)
}

func TestATableThatCantBeWrittenIsAnError(t *testing.T) {
	list := randomEntries(rand.New(rand.NewPCG(4, 4)), 60_000)
	for n := 1; ; n++ {
		w := NewTableWriter(&failing{n: n}, 42)
		var err error
		for i := 0; i < len(list) && err == nil; i++ {
			err = w.Add(&list[i])
		}
		if err == nil {
			_, err = w.Finish([]byte("state"))
		}
		if err == nil {
			require.Greater(t, n, 8)
			break
		}
		require.ErrorIs(t, err, errFailing)
	}
	w := NewTableWriter(&memory{}, 42)
	require.NoError(t, w.Add(&list[1]))
	require.Error(t, w.Add(&list[0]), "not in order")
	require.Error(t, w.Add(&list[1]), "twice")
	require.Error(t, w.Add(&Entry{Key: "~" + strings.Repeat("k", maxTableKey)}))
}

// Its state is checked as a whole, but may still be nonsense.
func TestAStateOfNonsenseIsRefused(t *testing.T) {
	x := New()
	for i := range 500 {
		x.Apply([]Change{{Op: Put, Name: fmt.Sprintf("k%0*d", 1+i*4, i), Seq: uint64(2*i + 1), Pos: Pos{Segment: 1, Offset: uint32(i * 1000), Len: 1000}},
			{Op: Sample, Name: fmt.Sprintf("s%d", i%7), Seq: uint64(2*i + 2), At: int64(i), Pos: Pos{Segment: 1, Offset: uint32(i*1000 + 500), Len: 500}}})
	}
	c := x.Freeze()
	var m memory
	_, err := c.Write(&m, 42, []byte("head"), func(int) error { return nil })
	require.NoError(t, err)
	tab, err := OpenTable(m.b)
	require.NoError(t, err)
	whole := tab.State()
	rnd := rand.New(rand.NewPCG(5, 5))
	refused := 0
	for n := range 1500 {
		state := slices.Clone(whole)
		if n < 500 {
			state = state[:rnd.IntN(len(state))]
		} else {
			state[rnd.IntN(len(state))] ^= byte(1 + rnd.IntN(255))
		}
		damaged := *tab
		damaged.state, damaged.gone = state, nil
		_, headErr := Head(&damaged)
		_, err := Restore(&damaged, 1000, func(uint64) bool { return true })
		if err != nil {
			require.ErrorAs(t, err, new(*TableError))
			refused++
		}
		require.True(t, headErr == nil || err != nil)
	}
	require.Greater(t, refused, 500)
}
