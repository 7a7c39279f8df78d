package annals

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
)

// summed is a bucket in plain fields, which a naive computation can give as well.
type summed struct {
	Start                    int64
	Count, Skipped           uint64
	First, Last, Min, Max    float64
	FirstAt, LastAt          int64
	Sum, Mean                float64
	Stddev                   float64
	P0, P7, P50, P99, P999   float64
	quantilesAreApproximated bool
}

// naive sums up samples by sorting them and by exact arithmetic.
func naive(samples []Sample, every time.Duration, number func(Sample) (float64, bool)) (list []summed) {
	groups := map[int64][]Sample{}
	for _, s := range samples {
		start := int64(math.Floor(float64(s.At.UnixMicro())/float64(every.Microseconds()))) * every.Microseconds()
		groups[start] = append(groups[start], s)
	}
	for start, group := range groups {
		slices.SortFunc(group, func(a, b Sample) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Seq, b.Seq)) })
		b := summed{Start: start}
		var values []float64
		var points []Sample
		for _, s := range group {
			if x, ok := number(s); ok {
				values, points = append(values, x), append(points, s)
			} else {
				b.Skipped++
			}
		}
		if b.Count = uint64(len(values)); b.Count > 0 {
			b.First, b.Last = values[0], values[len(values)-1]
			b.FirstAt, b.LastAt = points[0].At.UnixMicro(), points[len(points)-1].At.UnixMicro()
			b.exact(values)
		}
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b summed) int { return cmp.Compare(a.Start, b.Start) })
	return list
}

func (b *summed) exact(values []float64) {
	sum, squares := new(big.Rat), new(big.Rat)
	for _, x := range values {
		sum.Add(sum, new(big.Rat).SetFloat64(x))
	}
	n := new(big.Rat).SetInt64(int64(len(values)))
	mean := new(big.Rat).Quo(sum, n)
	for _, x := range values {
		d := new(big.Rat).Sub(new(big.Rat).SetFloat64(x), mean)
		squares.Add(squares, d.Mul(d, d))
	}
	b.Sum, _ = sum.Float64()
	b.Mean, _ = mean.Float64()
	b.Stddev = math.NaN()
	if len(values) > 1 {
		variance, _ := squares.Quo(squares, new(big.Rat).SetInt64(int64(len(values)-1))).Float64()
		b.Stddev = math.Sqrt(variance)
	}
	slices.Sort(values)
	b.Min, b.Max = values[0], values[len(values)-1]
	rank := func(permille int) float64 { return values[max((permille*len(values)+999)/1000, 1)-1] }
	b.P0, b.P7, b.P50, b.P99, b.P999 = values[0], rank(70), rank(500), rank(990), rank(999)
	b.quantilesAreApproximated = len(values) > exactNumbers
}

func sum(b Bucket) summed {
	s := summed{Start: b.Start.UnixMicro(), Count: b.Count, Skipped: b.Skipped}
	if b.Count > 0 {
		s.First, s.Last, s.Min, s.Max = b.First.Value, b.Last.Value, b.Min.Value, b.Max.Value
		s.FirstAt, s.LastAt = b.First.At.UnixMicro(), b.Last.At.UnixMicro()
		s.Sum, s.Mean, s.Stddev = b.Sum(), b.Mean(), b.Stddev()
		s.P0, s.P7, s.P50, s.P99, s.P999 = b.Quantile(0), b.Quantile(0.07), b.Quantile(0.5), b.Quantile(0.99), b.Quantile(0.999)
	}
	return s
}

// same compares what was yielded with the naive computation: everything exactly, but
// sums to some last digits and quantiles of many numbers to 0.4 %.
func same(t *testing.T, want, got []summed) {
	t.Helper()
	require.Equal(t, len(want), len(got))
	near := func(w, g, tolerance float64) float64 {
		if math.IsNaN(w) && math.IsNaN(g) || math.Abs(w-g) <= tolerance {
			return w
		}
		return g
	}
	for i, w := range want {
		g := got[i]
		size := max(math.Abs(w.Min), math.Abs(w.Max))
		g.Sum = near(w.Sum, g.Sum, 1e-15*math.Abs(w.Sum))
		g.Mean = near(w.Mean, g.Mean, 1e-15*math.Abs(w.Mean))
		if g.Stddev = near(w.Stddev, g.Stddev, 1e-12*size); math.IsNaN(w.Stddev) && math.IsNaN(g.Stddev) {
			w.Stddev, g.Stddev = 0, 0 // which are equal
		}
		if w.quantilesAreApproximated {
			for _, q := range [][2]*float64{{&w.P7, &g.P7}, {&w.P50, &g.P50}, {&w.P99, &g.P99}, {&w.P999, &g.P999}} {
				*q[1] = near(*q[0], *q[1], 0.004*math.Abs(*q[0]))
			}
			w.quantilesAreApproximated = false
		}
		require.Equal(t, w, g, "bucket %d", i)
	}
}

// collect runs Aggregate with room for few buckets and numbers; 0 is as always.
func collect(t testing.TB, from Sampler, series string, a Aggregation, room, numbers int) (list []Bucket) {
	t.Helper()
	g, err := newAggregator(series, a)
	require.NoError(t, err)
	if room > 0 {
		g.room, g.numbers = room, numbers
	}
	g.yield = func(b Bucket, err error) bool {
		require.NoError(t, err)
		require.LessOrEqual(t, len(g.buckets), g.room)
		require.True(t, g.weight <= g.numbers || len(g.buckets) == 1)
		list = append(list, b)
		return true
	}
	g.run(from)
	return list
}

func plainSums(list []Bucket) (s []summed) {
	for _, b := range list {
		s = append(s, sum(b))
	}
	return s
}

// numberOf reads the field t as anybody would who has encoding/json.
func numberOf(s Sample) (float64, bool) {
	var v struct{ T *float64 }
	if json.Unmarshal(s.Value, &v) != nil || v.T == nil {
		return 0, false
	}
	return *v.T, true
}

// measure appends samples to the series "s", between those of others: mostly one after
// the other, some late, some far too late, some without a number.
func measure(t *testing.T, rng *rand.Rand, db *Store, n int, step time.Duration) (all []Sample) {
	t.Helper()
	at := time.UnixMicro(rng.Int64N(4e12) - 2e12)
	for len(all) < n {
		var b Batch
		var samples []Sample
		for range 1 + rng.IntN(200) {
			at = at.Add(time.Duration(rng.Int64N(int64(2 * step))))
			if rng.IntN(1000) == 0 {
				at = at.Add(step * time.Duration(rng.IntN(1_000_000))) // a silence
			}
			s := Sample{Series: "s", At: at.Truncate(time.Microsecond)}
			switch rng.IntN(20) {
			case 0:
				s.At = s.At.Add(-time.Duration(rng.Int64N(int64(100 * step)))).Truncate(time.Microsecond)
			case 1:
				if len(all) > 0 {
					s.At = all[rng.IntN(len(all))].At
				}
			}
			s.Value = randomValue(rng)
			samples = append(samples, s)
			b.Append("s", s.Value, At(s.At))
			b.Append("other", []byte(`{"t":1e9}`), At(s.At))
		}
		last, err := db.Apply(&b)
		require.NoError(t, err)
		for i := range samples {
			samples[i].Seq = last - uint64(2*(len(samples)-i)-1)
		}
		all = append(all, samples...)
	}
	return all
}

func randomValue(rng *rand.Rand) []byte {
	number := rng.NormFloat64()
	switch rng.IntN(10) {
	case 0:
		number = math.Round(number)
	case 1:
		number *= math.Pow(10, float64(rng.IntN(80)-40)) // huge, tiny
	case 2:
		return []byte([]string{`{"t":null}`, `{"t":"1"}`, `{}`, `7`, `text`, `{"t":1e999}`, `{"u":{"t":3}}`, `[1,2]`}[rng.IntN(8)])
	}
	return fmt.Appendf(nil, `{"a":"t\"}","t":%s,"b":[1,{"t":9}]}`, strconv.FormatFloat(number, 'g', -1, 64))
}

func TestAggregateIsTheNaiveComputation(t *testing.T) {
	rounds, most := 6, 8000
	if raceDetector {
		rounds, most = 2, 1500
	}
	for range rounds {
		rng := seed.Rand(t)
		db := open(t, &Options{Sync: SyncNever, SegmentSize: 256 << 10})
		all := measure(t, rng, db, most/4+rng.IntN(most*3/4), time.Second)
		if rng.IntN(2) == 0 {
			db = reopen(t, db, nil)
		}
		zone := time.FixedZone("", rng.IntN(24*3600)-12*3600)
		for range 6 {
			a := Aggregation{Field: "val.t", Quantiles: true}
			a.Every = []time.Duration{time.Microsecond, 700 * time.Microsecond, time.Second, time.Minute, time.Hour, 24 * time.Hour, 1e6 * time.Hour}[rng.IntN(7)]
			a.Window = randomWindow(rng, all)
			a.Window.Reverse, a.Window.Limit = false, 0
			if !a.Window.Since.IsZero() {
				a.Window.Since = a.Window.Since.In(zone)
			}
			if !a.Window.Until.IsZero() {
				a.Window.Until = a.Window.Until.In(zone)
			}
			want := naive(window(all, "s", a.Window), a.Every, numberOf)
			same(t, want, plainSums(collect(t, db, "s", a, 0, 0)))
			same(t, want, plainSums(collect(t, db, "s", a, 20+rng.IntN(200), 200+rng.IntN(5000))))
		}
	}
}

func TestAggregateOfManyNumbers(t *testing.T) {
	rng := seed.Rand(t)
	db := open(t, &Options{Sync: SyncNever})
	var all []Sample
	runs := 20
	if raceDetector {
		runs = 3
	}
	for range runs {
		all = append(all, measure(t, rng, db, 3000, time.Millisecond)...)
	}
	a := Aggregation{Every: 24 * time.Hour, Field: "val.t", Quantiles: true}
	want := naive(all, a.Every, numberOf)
	require.True(t, slices.ContainsFunc(want, func(s summed) bool { return s.quantilesAreApproximated }))
	same(t, want, plainSums(collect(t, db, "s", a, 0, 0)))
	same(t, want, plainSums(collect(t, db, "s", a, 3, 2000)))
}
