package index

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// anyEntry has numbers of any length, and now and then a long key or an expiry.
func anyEntry(rnd *rand.Rand, key string) Entry {
	e := Entry{Key: key, Seq: 1 + rnd.Uint64N(1<<(1+rnd.IntN(52))), Pos: Pos{
		Segment: 1 + rnd.Uint64N(300), Offset: uint32(rnd.Uint64N(1 << (1 + rnd.IntN(31)))), Len: uint32(rnd.Uint64N(1 << (1 + rnd.IntN(30))))}}
	if rnd.IntN(9) == 0 {
		e.Expires = int64(rnd.Uint64()) >> rnd.IntN(60)
	}
	return e
}

func anyKey(rnd *rand.Rand) string {
	return strings.Repeat("x", []int{0, 3, 3, 3, 16, 16, 127, 128, 900}[rnd.IntN(9)]) + fmt.Sprint(rnd.IntN(1000))
}

// All that reads entries of a page says the same of them.
func TestEntriesAreTakenApartAlike(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	short := 0
	for range 100_000 {
		e := anyEntry(rnd, anyKey(rnd))
		ordinal := rnd.Uint64N(1 << rnd.IntN(20))
		b := appendEntry(nil, &e, ordinal)
		size := len(b)
		b = append(b, make([]byte, rnd.IntN(30))...)

		got := Entry{Pos: Pos{Segment: e.Segment}}
		key, o, rest, ok := parseEntry(string(b), &got)
		require.True(t, ok)
		got.Key = key
		require.Equal(t, e, got)
		require.Equal(t, ordinal, o)
		require.Len(t, rest, len(b)-size)

		if s := shapeOf(b); s.room > 0 {
			short++
			require.Equal(t, e.Key, string(b[1:1+s.key]))
			require.Equal(t, size, s.size)
		}
		for range 3 {
			cut := rnd.IntN(size)
			_, _, _, ok := parseEntry(b[:cut], &got)
			require.False(t, ok, "%d of %d bytes", cut, size)
		}
	}
	require.Greater(t, short, 20_000)
}

// The way to a key leads over entries of one shape and of another, and to the same place
// as taking each of them apart.
func TestWayToAKeyIsThatOfEachEntry(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 20_000 {
		var b []byte
		var starts []int
		var keys []string
		e, ordinal := Entry{}, uint64(0)
		for n := 1 + rnd.IntN(30); len(keys) < n; {
			if len(keys) == 0 || rnd.IntN(3) == 0 { // else the numbers of the one before
				e, ordinal = anyEntry(rnd, ""), rnd.Uint64N(1<<rnd.IntN(20))
			} else if rnd.IntN(3) == 0 {
				e.Expires = rnd.Int64N(1 << rnd.IntN(50))
			}
			e.Key = fmt.Sprintf("%04d%s", len(keys), strings.Repeat("x", rnd.IntN(2)*rnd.IntN(200)))
			starts, keys = append(starts, len(b)), append(keys, e.Key)
			b = appendEntry(b, &e, ordinal)
		}
		want := rnd.IntN(len(keys) + 1)
		from := "1"
		start := len(b)
		if want < len(keys) {
			from, start = keys[want], starts[want]
		}
		rest, left, err := skipTo(append(b, make([]byte, rnd.IntN(30))...), len(keys), from)
		require.NoError(t, err)
		require.Equal(t, len(keys)-want, left)
		require.Equal(t, string(b[start:]), string(rest[:len(b)-start]))
	}
}

// However many entries are asked for at a time, and whatever lies in which level, a walk
// gives all of them once.
func TestWalksTakeAnyNumberAtATime(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	for round := range 30 {
		want := map[string]Entry{}
		for range 1 + rnd.IntN(3000) {
			key := anyKey(rnd)
			want[key] = anyEntry(rnd, key)
		}
		list := sorted(want)
		tab, err := OpenTable(writeTable(t, list, ""))
		require.NoError(t, err)
		x := newIndex(tab)
		for seq := uint64(1 << 53); round%3 > 0 && seq < 1<<53+200; seq++ {
			e := anyEntry(rnd, anyKey(rnd))
			e.Seq = seq
			if rnd.IntN(3) == 0 {
				delete(want, e.Key)
				x.levels.Load().top.put(&e, true)
			} else {
				want[e.Key] = e
				x.levels.Load().top.put(&e, false)
			}
			if round%3 == 2 && rnd.IntN(50) == 0 {
				x.mu.Lock()
				x.freezeLocked()
				x.mu.Unlock()
			}
		}
		list = sorted(want)
		s := x.Snapshot()
		for range 40 {
			from, to, reverse := bound(rnd, list), bound(rnd, list), rnd.IntN(2) == 0
			expected, got := inRange(list, from, to, reverse), []Entry(nil)
			w := s.Walk(from, to, reverse)
			for n, before := 1+rnd.IntN(5), -1; before < len(got); n = 1 + rnd.IntN(1<<rnd.IntN(10)) {
				before = len(got)
				got, err = w.Next(got, n)
				require.NoError(t, err)
				require.LessOrEqual(t, len(got)-before, n)
			}
			w.Close()
			require.True(t, slices.Equal(expected, got), "%q to %q, %v", from, to, reverse)
		}
	}
}

func sorted(m map[string]Entry) (list []Entry) {
	for _, e := range m {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return list
}

func TestRunsGiveFewEntriesToShortWalks(t *testing.T) {
	o := newOverlay()
	for i := range 1000 {
		o.put(&Entry{Key: fmt.Sprintf("%04d", i), Seq: uint64(i + 1), Pos: Pos{Segment: 1}}, false)
	}
	r := o.sortedLocked(o.end)[0]
	require.Equal(t, 1, o.cursor(r, "0500", "", false, math.MaxInt).some)
	require.Equal(t, 1+fewTaken, o.cursor(r, "0500", "", false, 1000).some)
	require.Equal(t, 1+fewTaken, o.cursor(r, "", "", false, 0).some)
}
