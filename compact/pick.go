package compact

import (
	"cmp"
	"math"
	"slices"
)

// Stat describes a sealed segment to Pick, in bytes.
type Stat struct {
	Segment uint64
	First   uint64 // least seq
	Last    uint64 // greatest seq
	Bytes   int64  // of its lines, header and footer not counted
	Live    int64  // of those that must be kept whatever happens to other segments
	Held    int64  // of tombstones and expired records: dead, but they must be copied while an older segment may hold their key
}

// Policy says what Pick looks for.
type Policy struct {
	MinLive     float64 // a segment is worth rewriting if less than this share of it is alive
	SegmentSize int64   // of outputs
	KeepFrom    uint64  // segments with a record from here on are left alone
	JobBytes    int64   // live bytes that a job of segments that are mostly dead copies at the most; 0: 16 segments
}

// MaxJobSegments is how many segment sizes of live bytes one job copies at the most.
const MaxJobSegments = 16

const (
	maxJobInputs  = 256 // segments that one job reads at the most
	manySegments  = 64  // from here on every run of small segments is joined
	shortestRun   = 3   // joining fewer gains nothing: keys and samples go to an output each
	usualRun      = 8   // small neighbours that are worth joining otherwise
	smallFraction = 4   // a segment is small if it is below 1/4 of the segment size
)

// Pick returns the segments to rewrite next, in the order of First, or nil if
// there is nothing worth doing. What it returns always shrinks: in bytes, or in the
// number of segments. So it comes to rest.
//
// It looks, in this order, for: the longest run of oldest segments that is mostly
// dead, counting what must be copied only while an older segment may hold its key;
// single segments that are mostly dead; neighbours that are small.
func Pick(stats []Stat, p Policy) []uint64 {
	stats = slices.Clone(stats)
	slices.SortFunc(stats, func(a, b Stat) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Segment, b.Segment)) })
	if n := oldest(stats, p); n > 0 {
		return numbers(stats[:n])
	}
	if dead := mostlyDead(stats, p); len(dead) > 0 {
		return numbers(dead)
	}
	return numbers(smallRun(stats, p))
}

func numbers(stats []Stat) (segments []uint64) {
	for _, s := range stats {
		segments = append(segments, s.Segment)
	}
	return segments
}

// free tells whether a segment may be rewritten at all.
func (p *Policy) free(s *Stat) bool { return s.Last < p.KeepFrom && s.Bytes > 0 }

// oldest returns how many of the oldest segments together are mostly dead, once
// what can be let go in them is gone.
func oldest(stats []Stat, p Policy) (n int) {
	var bytes, live int64
	for i := range min(len(stats), maxJobInputs) {
		if !p.free(&stats[i]) {
			break
		}
		bytes, live = bytes+stats[i].Bytes, live+stats[i].Live
		if live > MaxJobSegments*p.SegmentSize {
			break
		}
		kept, gone := held(stats, i+1)
		if gone > 0 && float64(live+kept) < p.MinLive*float64(bytes) {
			n = i + 1
		}
	}
	return n
}

// held splits the held bytes of the first n segments: a tombstone must be copied
// if a segment behind them begins below its number.
func held(stats []Stat, n int) (kept, gone int64) {
	outside := uint64(math.MaxUint64)
	if n < len(stats) {
		outside = stats[n].First
	}
	for i := range n {
		if stats[i].Last <= outside {
			gone += stats[i].Held
		} else {
			kept += stats[i].Held
		}
	}
	return kept, gone
}

// mostlyDead returns the segments that are mostly dead, the deadest first to go
// into the job, as many as one job may copy.
func mostlyDead(stats []Stat, p Policy) []Stat {
	ratio := func(s *Stat) float64 { return float64(s.Live+s.Held) / float64(s.Bytes) }
	dead := slices.DeleteFunc(slices.Clone(stats), func(s Stat) bool { return !p.free(&s) || ratio(&s) >= p.MinLive })
	slices.SortStableFunc(dead, func(a, b Stat) int { return cmp.Compare(ratio(&a), ratio(&b)) })
	dead = dead[:min(len(dead), maxJobInputs)]
	most := cmp.Or(p.JobBytes, MaxJobSegments*p.SegmentSize)
	var live int64
	for i, s := range dead {
		if live += s.Live + s.Held; live > most {
			dead = dead[:max(i, 1)]
			break
		}
	}
	slices.SortFunc(dead, func(a, b Stat) int { return cmp.Compare(a.First, b.First) })
	return dead
}

// smallRun returns the longest run of small neighbours that is worth joining.
func smallRun(stats []Stat, p Policy) []Stat {
	need := usualRun
	if len(stats) > manySegments {
		need = shortestRun
	}
	var best []Stat
	for i := 0; i < len(stats); i++ {
		n := 0
		for i+n < len(stats) && n < MaxJobSegments*smallFraction && p.free(&stats[i+n]) && stats[i+n].Bytes*smallFraction < p.SegmentSize {
			n++
		}
		if n > len(best) {
			best = stats[i : i+n]
		}
		i += n
	}
	if len(best) < need {
		return nil
	}
	return best
}
