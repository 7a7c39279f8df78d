package annals

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sort"
	"time"
)

// Sampler is what Aggregate reads from: a Store, Reader, Snapshot or Tx.
type Sampler interface {
	Samples(series string, w Window) iter.Seq2[Sample, error]
	Series() iter.Seq2[SeriesInfo, error]
}

// Aggregation says how Aggregate sums up samples.
type Aggregation struct {
	// Every is how long a bucket is: whole microseconds. Buckets begin at multiples
	// of it since 1970-01-01T00:00:00Z, so those of a day begin at midnight UTC. 0
	// means one bucket for all samples.
	Every time.Duration

	// Field is where the number stands in a value: "val" for the value itself,
	// "val.t" for a field of it, "val.disk.0.free" and so on; a backslash before a
	// dot that is part of a name. Default: "val".
	Field string

	// Window selects samples as it does for Samples, but its Limit counts buckets.
	// Reverse is refused: buckets come in the order of time.
	Window Window

	// Quantiles is whether the buckets answer Quantile, which takes memory.
	Quantiles bool
}

// How much may be open at a time: so many buckets, and in all of them so much for
// quantiles, in numbers of 8 bytes. What does not fit is read again later.
const (
	maxOpenBuckets = 4096
	maxOpenNumbers = 1 << 20
)

// Aggregate yields the buckets of a series in the order of time. Each stands for all
// samples of the series whose At lies in it, however late they came. A bucket
// without samples is left out. Samples without a number at the field are counted in
// Bucket.Skipped; a bucket that has no other samples is yielded with Count 0. A
// Store or a Reader is read as of the moment when the loop begins. Damage is yielded
// as an error, and the loop may go on behind it: buckets that come later may then
// lack samples.
//
// The memory it takes is bounded (some 20 MiB at the most), whatever the number of
// samples and buckets: samples come in the order of their sequence numbers, not of
// time, so it asks for one stretch of time after the other, as many buckets as it may
// keep, and the index of the store knows which parts of the log can hold an answer.
// The part in which one stretch meets the next is read twice.
func Aggregate(from Sampler, series string, a Aggregation) iter.Seq2[Bucket, error] {
	return func(yield func(Bucket, error) bool) {
		g, err := newAggregator(series, a)
		if err != nil {
			yield(Bucket{}, err)
			return
		}
		g.yield = yield
		if s, ok := from.(interface{ Snapshot() *Snapshot }); ok {
			snapshot := s.Snapshot()
			defer snapshot.Close()
			from = snapshot
		}
		g.run(from)
	}
}

// aggregator is one loop of Aggregate. Times are in microseconds.
type aggregator struct {
	series    string
	every     int64 // 0: one bucket
	field     fieldPath
	window    Window
	quantiles bool
	room      int // buckets, and
	numbers   int // how much for quantiles, that may be open at a time
	yield     func(Bucket, error) bool
	told      map[string]bool // damage that several stretches meet

	// Of the stretch that is being read.
	buckets []*Bucket // in the order of time
	recent  *Bucket   // of the last sample: mostly also of the next
	weight  int       // of all buckets
	cut     int64     // samples from here on are for a later stretch
	cutOff  bool      // because there was no room for them
}

func newAggregator(series string, a Aggregation) (*aggregator, error) {
	field := a.Field
	if field == "" {
		field = "val"
	}
	path, err := parseField(field)
	switch {
	case err != nil:
		return nil, err
	case a.Every < 0 || a.Every%time.Microsecond != 0:
		return nil, fmt.Errorf("annals: Aggregation.Every is %s: must be whole microseconds, and 0 is one bucket for all", a.Every)
	case a.Window.Reverse:
		return nil, errors.New("annals: Aggregation.Window.Reverse is set: buckets come in the order of time")
	case a.Window.Limit < 0:
		return nil, fmt.Errorf("annals: Aggregation.Window.Limit is %d", a.Window.Limit)
	}
	return &aggregator{
		series: series, every: a.Every.Microseconds(), field: path, window: a.Window,
		quantiles: a.Quantiles, room: maxOpenBuckets, numbers: maxOpenNumbers, told: map[string]bool{},
	}, nil
}

// run reads stretch after stretch. The first and the last time of the series only
// say how long a stretch should be: what is read does not depend on them.
func (g *aggregator) run(from Sampler) {
	span := g.window.span(math.MaxUint64)
	lo, until := span.since, span.until
	first, last := extent(from, g.series)
	full := mulAdd(int64(g.room), g.every, 0)
	length := full
	for {
		hi := until
		if g.every > 0 {
			hi = min(until, mulAdd(1, length, g.start(max(lo, first))))
		}
		if hi > last {
			hi = until
		}
		if !g.read(from, lo, hi) || !g.emit() || g.cut >= until {
			return
		}
		switch n := len(g.buckets); {
		case g.cutOff: // as much as there was room for
			length = g.cut - g.buckets[0].begin
		case n < g.room/2: // hardly anything is there: further next time
			length = mulAdd(2, length, 0)
		default:
			length = full
		}
		lo = g.cut
	}
}

// extent is the first and the last time of a series, or all times if they are not
// known.
func extent(from Sampler, series string) (first, last int64) {
	for info, err := range from.Series() {
		if err != nil {
			break
		}
		if info.Name == series {
			return info.First.UnixMicro(), info.Last.UnixMicro()
		}
	}
	return math.MinInt64, math.MaxInt64
}

// mulAdd is n*a+b, or the greatest number if that is greater; n and a are not
// negative.
func mulAdd(n, a, b int64) int64 {
	if a > 0 && n > math.MaxInt64/a {
		return math.MaxInt64
	}
	if c := n * a; b <= 0 || c <= math.MaxInt64-b {
		return c + b
	}
	return math.MaxInt64
}

// start is when the bucket of a moment begins.
func (g *aggregator) start(at int64) int64 {
	if g.every == 0 || at == math.MinInt64 {
		return at
	}
	rest := at % g.every
	if rest < 0 {
		rest += g.every
	}
	return at - rest
}

// read takes in the samples from lo up to hi. As many buckets as there is room for,
// the earliest ones, are whole afterwards: all before cut. It returns false if the
// loop is to end.
func (g *aggregator) read(from Sampler, lo, hi int64) bool {
	g.buckets, g.recent, g.weight, g.cut, g.cutOff = g.buckets[:0], nil, 0, hi, false
	w := Window{FromSeq: g.window.FromSeq, ToSeq: g.window.ToSeq}
	if lo != math.MinInt64 {
		w.Since = time.UnixMicro(lo)
	}
	if hi != math.MaxInt64 {
		w.Until = time.UnixMicro(hi)
	}
	for sample, err := range from.Samples(g.series, w) {
		if err == nil {
			g.add(&sample)
			continue
		}
		if text := err.Error(); !g.told[text] {
			if len(g.told) < 1000 {
				g.told[text] = true
			}
			if !g.yield(Bucket{}, err) {
				return false
			}
		}
		if errors.Is(err, ErrClosed) {
			return false
		}
	}
	return true
}

// add takes in one sample, unless it is for a later stretch.
func (g *aggregator) add(s *Sample) {
	at := s.At.UnixMicro()
	if at >= g.cut {
		return
	}
	b := g.bucket(at)
	if b == nil {
		return
	}
	value, ok := g.field.number(s.Value)
	if !ok {
		b.Skipped++
		return
	}
	g.weight += b.add(s.At, value)
	for g.weight > g.numbers && len(g.buckets) > 1 {
		g.drop()
	}
}

// bucket finds or makes the bucket of a moment; nil if there is no room for it.
func (g *aggregator) bucket(at int64) *Bucket {
	if b := g.recent; b != nil && at >= b.begin && (g.every == 0 || at-b.begin < g.every) {
		return b
	}
	start := g.start(at)
	if g.every == 0 {
		start = 0
	}
	n := len(g.buckets)
	i := n
	if n > 0 && start <= g.buckets[n-1].begin {
		i = sort.Search(n, func(i int) bool { return g.buckets[i].begin >= start })
	}
	if i < n && g.buckets[i].begin == start {
		g.recent = g.buckets[i]
		return g.recent
	}
	if n == g.room {
		if i == n {
			g.cut, g.cutOff = start, true
			return nil
		}
		g.drop()
	}
	g.recent = newBucket(start, g.quantiles)
	g.buckets = slices.Insert(g.buckets, i, g.recent)
	return g.recent
}

// drop makes room: the latest bucket is for the next stretch.
func (g *aggregator) drop() {
	last := g.buckets[len(g.buckets)-1]
	g.buckets = g.buckets[:len(g.buckets)-1]
	g.weight -= last.weight()
	g.cut, g.cutOff = last.begin, true
	g.recent = nil
}

// emit yields the buckets of a stretch. It returns false if the loop is to end.
func (g *aggregator) emit() bool {
	for _, b := range g.buckets {
		b.finish()
		if g.every == 0 && b.Count > 0 {
			b.Start = b.First.At
		}
		if !g.yield(*b, nil) {
			return false
		}
		if b.Count > 0 && g.window.Limit > 0 {
			if g.window.Limit--; g.window.Limit == 0 {
				return false
			}
		}
	}
	return true
}
