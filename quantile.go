package annals

import (
	"math"
	"slices"
)

// exactNumbers is up to how many numbers quantiles keeps every one.
const exactNumbers = 1024

// quantiles knows which number is the n-th smallest of many. Up to exactNumbers it
// keeps them; beyond that it counts how many fall into which bin. The bins are those
// of HdrHistogram (Gil Tene), taken from the bits of a float64 instead of an integer:
// each power of two is cut into 128 equal parts, which are the upper bits of the
// number as they stand, so a bin is found without a logarithm, the bins of all
// numbers of a sign are in their order, and the middle of a bin is within 1/256 of
// everything in it. Only bins that were met take memory, 128 at the most for each
// power of two that the numbers span. (DDSketch has bins of equal relative width, by
// logarithms: 30 % fewer, for more work a number.)
type quantiles struct {
	exact []float64      // nil once there are bins
	bins  map[bin]uint64 // how many numbers
	order []bin          // of bins, once all numbers are there
}

// bin is the number of a bin: rising with the numbers, negative for negative ones.
type bin int32

// binShift is how many bits of a float64 do not matter: 52 without the 7 that tell the
// 128 parts of a power of two apart.
const binShift = 52 - 7

func binOf(x float64) bin {
	n := bin(math.Float64bits(math.Abs(x)) >> binShift)
	if x < 0 {
		return -n
	}
	return n
}

// middle of a bin. The bin around zero counts as zero.
func (n bin) middle() float64 {
	switch {
	case n == 0:
		return 0
	case n < 0:
		return -(-n).middle()
	}
	return math.Float64frombits(uint64(n)<<binShift | 1<<(binShift-1))
}

// binWeight is what a bin takes in the map, in numbers of 8 bytes.
const binWeight = 5

// add takes in a number, and returns by how much weight grew.
func (q *quantiles) add(x float64) int {
	before := q.weight()
	switch {
	case q.bins != nil:
		q.bins[binOf(x)]++
	case len(q.exact) < exactNumbers:
		q.exact = append(q.exact, x)
	default:
		q.bins = map[bin]uint64{}
		for _, y := range append(q.exact, x) {
			q.bins[binOf(y)]++
		}
		q.exact = nil
	}
	return q.weight() - before
}

func (q *quantiles) weight() int { return len(q.exact) + binWeight*len(q.bins) }

// finish makes at possible; nothing is added afterwards.
func (q *quantiles) finish() {
	slices.Sort(q.exact)
	q.order = make([]bin, 0, len(q.bins))
	for n := range q.bins {
		q.order = append(q.order, n)
	}
	slices.Sort(q.order)
}

// at is the rank-th smallest number, from 1, or the middle of its bin.
func (q *quantiles) at(rank uint64) float64 {
	if q.bins == nil {
		return q.exact[rank-1]
	}
	for _, n := range q.order {
		if count := q.bins[n]; rank > count {
			rank -= count
			continue
		}
		return n.middle()
	}
	return math.NaN() // there are not as many
}
