package compact

import (
	"cmp"
	"slices"
)

// Stat describes a sealed segment to Pick, in bytes.
type Stat struct {
	Segment uint64
	First   uint64 // least seq
	Last    uint64 // greatest seq
	Bytes   int64
	Live    int64 // lines that must be kept whatever happens to other segments
	Held    int64 // tombstones and expired records: dead, but they must be copied while an older segment may hold their key
}

// Policy says what Pick looks for.
type Policy struct {
	MinLive     float64 // a segment is worth rewriting if less than this share of it is alive
	SegmentSize int64   // of outputs
	KeepFrom    uint64  // segments with a record from here on are left alone
}

const (
	maxJobBytes   = 16 // segment sizes of live bytes that one job copies at the most
	manySegments  = 64 // from here on every run of small segments is joined
	shortestRun   = 3  // joining fewer gains nothing: keys and samples go to an output each
	usualRun      = 8  // small neighbours that are worth joining otherwise
	smallFraction = 4  // a segment is small if it is below 1/4 of the segment size
)

// Pick returns the segments to rewrite next, in the order of First, or nil if
// there is nothing worth doing.
//
// It looks, in this order, for: the longest run of oldest segments that is mostly
// dead even though records must be copied while an older segment may hold their
// key (in the oldest none need be); single segments that are mostly dead;
// neighbours that are small.
func Pick(stats []Stat, p Policy) []uint64 {
	stats = slices.DeleteFunc(slices.Clone(stats), func(s Stat) bool { return s.Last >= p.KeepFrom })
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

// oldest returns how many of the oldest segments together are mostly dead.
func oldest(stats []Stat, p Policy) (n int) {
	var bytes, live, held int64
	for i, s := range stats {
		bytes, live, held = bytes+s.Bytes, live+s.Live, held+s.Held
		if live > maxJobBytes*p.SegmentSize {
			break
		}
		if held > 0 && float64(live) < p.MinLive*float64(bytes) {
			n = i + 1
		}
	}
	return n
}

// mostlyDead returns the segments that are mostly dead, the deadest first to go
// into the job, as many as one job may copy.
func mostlyDead(stats []Stat, p Policy) []Stat {
	ratio := func(s Stat) float64 { return float64(s.Live+s.Held) / float64(s.Bytes) }
	dead := slices.DeleteFunc(slices.Clone(stats), func(s Stat) bool { return ratio(s) >= p.MinLive })
	slices.SortStableFunc(dead, func(a, b Stat) int { return cmp.Compare(ratio(a), ratio(b)) })
	var live int64
	for i, s := range dead {
		if live += s.Live + s.Held; live > maxJobBytes*p.SegmentSize {
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
	var best, run []Stat
	for i, s := range stats {
		if s.Bytes*smallFraction >= p.SegmentSize {
			run = nil
			continue
		}
		if run == nil {
			run = stats[i:i]
		}
		run = run[:len(run)+1]
		if len(run) > len(best) {
			best = run
		}
	}
	if len(best) < need {
		return nil
	}
	return best
}
