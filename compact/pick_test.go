package compact

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/segment"
)

const mib = 1 << 20

const storeID = "0123456789abcdef0123456789abcdef"

// log makes stats of segments that follow each other, 100 records each.
func log(stats ...Stat) []Stat {
	for i := range stats {
		s := &stats[i]
		s.Segment, s.First, s.Last = uint64(i+1), uint64(100*i+1), uint64(100*i+100)
	}
	return stats
}

// full is a segment of 16 MiB with so many of them alive, and held.
func full(live, held int64) Stat { return Stat{Bytes: 16 * mib, Live: live * mib, Held: held * mib} }

// tiny is a small segment in which all is alive.
func tiny() Stat { return Stat{Bytes: mib, Live: mib} }

func repeat(n int, s Stat) (stats []Stat) {
	for range n {
		stats = append(stats, s)
	}
	return stats
}

func upTo(n uint64) (numbers []uint64) {
	for i := range n {
		numbers = append(numbers, i+1)
	}
	return numbers
}

func TestPick(t *testing.T) {
	for name, test := range map[string]struct {
		stats    []Stat
		keepFrom uint64
		want     []uint64
	}{
		"nothing":                       {nil, 0, nil},
		"all alive":                     {log(full(16, 0), full(16, 0)), 0, nil},
		"half alive":                    {log(full(9, 0), full(9, 0)), 0, nil},
		"mostly dead":                   {log(full(9, 0), full(7, 0), full(9, 0)), 0, []uint64{2}},
		"several, in order":             {log(full(7, 0), full(9, 0), full(1, 0), full(0, 0)), 0, []uint64{1, 3, 4}},
		"kept for history":              {log(full(7, 0), full(7, 0), full(7, 0)), 200, []uint64{1}},
		"tombstones need the oldest":    {log(full(16, 0), full(0, 16)), 0, nil},
		"tombstones in the oldest":      {log(full(0, 16), full(16, 0)), 0, []uint64{1}},
		"run of oldest":                 {log(full(16, 0), full(2, 14), full(3, 13), full(16, 0)), 0, []uint64{1, 2, 3}},
		"oldest without tombstones":     {log(full(9, 0), full(9, 0)), 0, nil},
		"an older one is kept":          {append(log(full(0, 0), full(0, 16))[1:], Stat{Segment: 9, First: 1, Last: 900, Bytes: 16 * mib, Live: 16 * mib}), 900, nil},
		"an older one overlaps":         {[]Stat{{Segment: 3, First: 1, Last: 300, Bytes: 16 * mib, Held: 15 * mib}, {Segment: 2, First: 101, Last: 200, Bytes: 16 * mib, Live: 16 * mib}}, 0, nil},
		"seven small ones":              {log(repeat(7, tiny())...), 0, nil},
		"eight small ones":              {log(repeat(8, tiny())...), 0, upTo(8)},
		"small ones apart":              {log(slices.Concat(repeat(7, tiny()), repeat(1, full(16, 0)), repeat(7, tiny()))...), 0, nil},
		"the longest run":               {log(slices.Concat(repeat(1, full(16, 0)), repeat(9, tiny()))...), 0, []uint64{2, 3, 4, 5, 6, 7, 8, 9, 10}},
		"three small ones among many":   {log(slices.Concat(repeat(3, tiny()), repeat(62, full(16, 0)))...), 0, []uint64{1, 2, 3}},
		"two small ones among many":     {log(slices.Concat(repeat(2, tiny()), repeat(63, full(16, 0)))...), 0, nil},
		"no job copies too much, dead":  {log(repeat(40, full(7, 0))...), 0, upTo(36)},
		"no job copies too much, small": {log(repeat(200, Stat{Bytes: 4*mib - 1, Live: 4*mib - 1})...), 0, upTo(64)},
		"one record":                    {log(Stat{Bytes: 60, Live: 60}), 0, nil},
		"one dead record":               {log(Stat{Bytes: 60}), 0, []uint64{1}},
		"no job reads too many":         {log(repeat(300, Stat{Bytes: 60})...), 0, upTo(256)},
	} {
		t.Run(name, func(t *testing.T) {
			p := Policy{MinLive: 0.5, SegmentSize: 16 * mib, KeepFrom: cmp.Or(test.keepFrom, math.MaxUint64)}
			before := slices.Clone(test.stats)
			require.Equal(t, test.want, Pick(test.stats, p))
			require.Equal(t, before, test.stats, "Pick must not change what it is given")
			slices.Reverse(test.stats)
			require.Equal(t, test.want, Pick(test.stats, p), "whatever the order of stats")
		})
	}
}

// rec is a record of a simulated store.
type rec struct {
	seq    uint64
	key    int // -1 for a sample
	size   int64
	dead   bool
	held   bool // a tombstone, or expired
	doomed bool // a tombstone whose key has a newer record: it goes as soon as it is copied
}

// sim is a store without bytes, in which what Run does is only counted.
type sim struct {
	segments map[uint64][]rec
	number   uint64
	policy   Policy
}

func (s *sim) add(recs []rec) {
	s.number++
	s.segments[s.number] = recs
}

func (s *sim) stat(n uint64) Stat {
	st := Stat{Segment: n, First: math.MaxUint64}
	for _, r := range s.segments[n] {
		st.First, st.Last = min(st.First, r.seq), max(st.Last, r.seq)
		st.Bytes += r.size
		switch {
		case r.held:
			st.Held += r.size
		case !r.dead:
			st.Live += r.size
		}
	}
	return st
}

func (s *sim) stats() (stats []Stat) {
	for n := range s.segments {
		stats = append(stats, s.stat(n))
	}
	slices.SortFunc(stats, func(a, b Stat) int { return cmp.Compare(a.First, b.First) })
	return stats
}

// run does to the picked segments what Run and the store's judge do.
func (s *sim) run(picked []uint64) {
	outside, apart := uint64(math.MaxUint64), false
	var keys, samples []rec
	flush := func(recs []rec, order segment.Order) {
		header := segment.Header{Store: storeID, Segment: s.number, Order: order, From: picked}
		var out []rec
		size := len(header.AppendLine(nil))
		for _, r := range recs {
			if len(out) > 0 && size+int(r.size) > int(s.policy.SegmentSize) {
				s.add(out)
				out, size = nil, len(header.AppendLine(nil))
			}
			out, size = append(out, r), size+int(r.size)
		}
		if len(out) > 0 {
			s.add(out)
		}
	}
	stats := s.stats()
	for _, st := range stats {
		if !slices.Contains(picked, st.Segment) {
			outside = min(outside, st.First)
		}
	}
	for _, st := range stats {
		recs := s.segments[st.Segment]
		if !slices.Contains(picked, st.Segment) {
			apart = apart || slices.ContainsFunc(recs, func(r rec) bool { return r.key < 0 })
			continue
		}
		if apart {
			flush(samples, segment.BySeq)
			samples, apart = nil, false
		}
		for _, r := range recs {
			switch {
			case r.held && (r.doomed || r.seq <= outside), r.dead:
			case r.key < 0:
				samples = append(samples, r)
			default:
				keys = append(keys, r)
			}
		}
		delete(s.segments, st.Segment)
	}
	flush(samples, segment.BySeq)
	slices.SortFunc(keys, func(a, b rec) int { return cmp.Compare(a.key, b.key) })
	flush(keys, segment.ByKey)
}

// A store at rest is left at rest: whatever lies in it, Pick ends, since each of
// its jobs gains something. A job that gained nothing would be done again at
// once, for ever.
func TestPickEnds(t *testing.T) {
	rng := seed.Rand(t)
	for range 400 {
		size := []int64{4 << 10, 64 << 10}[rng.IntN(2)]
		s := &sim{segments: map[uint64][]rec{}}
		seq := uint64(0)
		live, tombs, sampled := rng.Float64(), rng.Float64()*rng.Float64(), rng.Float64()*rng.Float64()
		records, largest := 1+rng.IntN(30), 1+rng.Int64N(6000)
		for range 1 + rng.IntN(120) {
			var recs []rec
			mine := sampled
			if rng.IntN(3) == 0 {
				mine = float64(rng.IntN(2)) // samples only, or none
			}
			for range 1 + rng.IntN(records) {
				seq++
				r := rec{seq: seq, key: rng.IntN(1000), size: 45 + rng.Int64N(largest), dead: rng.Float64() > live}
				if rng.Float64() < mine {
					r.key, r.dead = -1, false
				} else if rng.Float64() < tombs {
					r.held, r.dead, r.doomed = true, false, rng.IntN(5) == 0
				}
				recs = append(recs, r)
			}
			s.add(recs)
		}
		for _, keep := range []uint64{math.MaxUint64, seq/2 + 1, seq/3 + 1, math.MaxUint64} {
			s.policy = Policy{MinLive: 0.3 + 0.7*rng.Float64(), SegmentSize: size, KeepFrom: keep}
			s.rest(t)
			for _, recs := range s.segments { // life goes on
				for i := range recs {
					if r := &recs[i]; !r.held && r.key >= 0 && rng.IntN(4) == 0 {
						r.dead = true
					}
				}
			}
		}
		if t.Failed() {
			return
		}
	}
}

// rest does jobs until there is nothing worth doing.
func (s *sim) rest(t *testing.T) {
	t.Helper()
	limit := 3*len(s.segments) + 20
	for jobs := 0; ; jobs++ {
		stats := s.stats()
		picked := Pick(stats, s.policy)
		if picked == nil {
			for _, st := range stats {
				if st.Live == 0 && st.Held == 0 && st.Last < s.policy.KeepFrom {
					t.Errorf("a segment with nothing in it is left: %+v", st)
				}
			}
			return
		}
		if jobs == limit {
			t.Fatalf("Pick does not end: %v of %+v", picked, stats)
		}
		first, copied := uint64(0), int64(0)
		for _, n := range picked {
			i := slices.IndexFunc(stats, func(st Stat) bool { return st.Segment == n })
			require.GreaterOrEqual(t, i, 0)
			require.Greater(t, stats[i].First, first, "in order, and none twice")
			require.Less(t, stats[i].Last, s.policy.KeepFrom)
			first, copied = stats[i].First, copied+stats[i].Live
		}
		if len(picked) > 1 {
			require.LessOrEqual(t, copied, MaxJobSegments*s.policy.SegmentSize)
		}
		s.run(picked)
	}
}
