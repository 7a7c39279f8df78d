package annals

import (
	"math"
	"time"
)

// Point is a number and the time of the sample that it was taken from.
type Point struct {
	At    time.Time
	Value float64
}

// Bucket sums up the samples of one stretch of time, from Start up to the next
// bucket's. First and Last are the first and the last number by time, and of several
// at the same moment by sequence number; Min and Max are the smallest and the
// greatest. All of them, and what the methods give, mean nothing while Count is 0.
// Numbers are float64: whole ones above 2^53 are rounded. It never changes once it
// was yielded, and is safe for concurrent use.
type Bucket struct {
	Start   time.Time // with Every 0: of the first sample
	Count   uint64    // samples with a number
	Skipped uint64    // samples without one

	First, Last, Min, Max Point

	begin      int64 // Start, in microseconds
	sum        total
	scaled     total   // of the numbers times 2^-64, for when sum is beyond float64
	mean, dist float64 // Welford's: the mean so far, and the sum of squared distances
	quantiles  *quantiles
}

func newBucket(start int64, withQuantiles bool) *Bucket {
	b := &Bucket{Start: time.UnixMicro(start), begin: start}
	if withQuantiles {
		b.quantiles = &quantiles{}
	}
	return b
}

// add takes in a number, and returns by how much weight grew.
func (b *Bucket) add(at time.Time, value float64) (weight int) {
	p := Point{at, value}
	if b.Count == 0 {
		b.First, b.Last, b.Min, b.Max = p, p, p, p
	}
	b.Count++
	if at.Before(b.First.At) {
		b.First = p
	}
	if !at.Before(b.Last.At) {
		b.Last = p
	}
	if value < b.Min.Value {
		b.Min = p
	}
	if value > b.Max.Value {
		b.Max = p
	}
	b.sum.add(value)
	b.scaled.add(math.Ldexp(value, -scale))
	delta := value - b.mean
	b.mean += delta / float64(b.Count)
	b.dist += delta * (value - b.mean)
	if b.quantiles == nil {
		return 0
	}
	return b.quantiles.add(value)
}

// weight is how many numbers of 8 bytes the bucket holds for quantiles.
func (b *Bucket) weight() int {
	if b.quantiles == nil {
		return 0
	}
	return b.quantiles.weight()
}

func (b *Bucket) finish() {
	if b.quantiles != nil {
		b.quantiles.finish()
	}
}

// Sum is the sum of all numbers, rounded once or twice, not at each of them. It is
// infinite if it is beyond float64.
func (b Bucket) Sum() float64 {
	if s := b.sum.value(); !math.IsInf(s, 0) && !math.IsNaN(s) {
		return s
	}
	return math.Ldexp(b.scaled.value(), scale)
}

// Mean is the arithmetic mean, also where Sum is beyond float64.
func (b Bucket) Mean() float64 {
	n := float64(b.Count)
	mean := b.sum.value() / n
	if math.IsInf(mean, 0) || math.IsNaN(mean) {
		mean = math.Ldexp(b.scaled.value()/n, scale)
	}
	return min(max(mean, b.Min.Value), b.Max.Value)
}

// Stddev is the standard deviation of a random sample (with Count-1 as the divisor),
// NaN for fewer than two numbers. Where the squares are beyond float64 it is infinite
// or NaN.
func (b Bucket) Stddev() float64 {
	if b.Count < 2 {
		return math.NaN()
	}
	return math.Sqrt(b.dist / float64(b.Count-1))
}

// Quantile is the number that a share q of all numbers, from 0 to 1, does not exceed:
// of n numbers in order the ceil(q*n)-th (the nearest rank), so it is one of them, not
// a mean of two. It is exact for up to 1,024 numbers and for q 0 and 1. Beyond that it
// is within 0.4 % of the right one, if that is not smaller than 1e-300. It is NaN
// without Aggregation.Quantiles.
func (b Bucket) Quantile(q float64) float64 {
	switch {
	case b.quantiles == nil || b.Count == 0 || !(q >= 0 && q <= 1):
		return math.NaN()
	case q == 0:
		return b.Min.Value
	case q == 1:
		return b.Max.Value
	}
	// 0.07 times 100 is a little more than 7 in float64, and must not be rank 8.
	rank := uint64(math.Ceil(q * float64(b.Count) * (1 - 1e-12)))
	return min(max(b.quantiles.at(rank), b.Min.Value), b.Max.Value)
}

// scale is by how many powers of two Bucket.scaled is smaller than the numbers: there
// can't be 2^64 of them, so it never overflows.
const scale = 64

// total is a sum that carries what rounding has cut off (Neumaier's variant of
// Kahan's summation), so that a million small numbers beside a great one are not lost.
type total struct{ sum, lost float64 }

func (t *total) add(x float64) {
	sum := t.sum + x
	if math.Abs(t.sum) >= math.Abs(x) {
		t.lost += (t.sum - sum) + x
	} else {
		t.lost += (x - sum) + t.sum
	}
	t.sum = sum
}

func (t *total) value() float64 { return t.sum + t.lost }
