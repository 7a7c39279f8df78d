package annals

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// appendAt appends samples at whole seconds.
func appendAt(t testing.TB, db *Store, series string, values map[int64]string, order ...int64) {
	t.Helper()
	for _, second := range order {
		_, err := db.Append(series, []byte(values[second]), At(time.Unix(second, 0)))
		require.NoError(t, err)
	}
}

func TestFieldLeadsToANumber(t *testing.T) {
	for _, test := range []struct {
		field, value string
		want         float64 // NaN: none
	}{
		{"val", `21.5`, 21.5},
		{"val", ` -1e3 `, -1000},
		{"val", `"21.5"`, math.NaN()},
		{"val", `true`, math.NaN()},
		{"val", `null`, math.NaN()},
		{"val", ``, math.NaN()},
		{"val", `21,5`, math.NaN()},
		{"val", `NaN`, math.NaN()},
		{"val", `1e999`, math.NaN()},
		{"val", `-1e999`, math.NaN()},
		{"val", `1e-999`, 0},
		{"val", `9007199254740993`, 9007199254740992},
		{"val.t", `{"t":1}`, 1},
		{"val.t", `{ "t" : 1 }`, 1},
		{"val.t", `{"t":1,"t":2}`, 2},
		{"val.t", `{"t":1,"t":"x"}`, math.NaN()},
		{"val.t", `{"s":"\"t\":5,{","t":1}`, 1},
		{"val.t", `{"s":{"t":5},"t":1}`, 1},
		{"val.t", `{"s":[{"t":5},[]],"o":{},"t":1}`, 1},
		{"val.t", `{"\u0074":1}`, 1},
		{"val.t", `{"T":1}`, math.NaN()},
		{"val.t", `{"t":1`, math.NaN()},
		{"val.t", `{"t":1} x`, math.NaN()},
		{"val.t", `{}`, math.NaN()},
		{"val.t", `[]`, math.NaN()},
		{"val.t", `7`, math.NaN()},
		{"val.a.b", `{"a":{"b":-0.5}}`, -0.5},
		{"val.a.b", `{"a":7}`, math.NaN()},
		{"val.a.b", `{"a.b":7}`, math.NaN()},
		{`val.a\.b`, `{"a.b":7}`, 7},
		{`val.a\\b`, `{"a\\b":7}`, 7},
		{"val.0", `[4,5,6]`, 4},
		{"val.2", `[4,"]",6]`, 6},
		{"val.3", `[4,5,6]`, math.NaN()},
		{"val.-1", `[4,5,6]`, math.NaN()},
		{"val.01", `[4,5,6]`, math.NaN()},
		{"val.0", `{"0":7}`, 7},
		{"val.1.t.0", `[{},{"t":[[],3]}]`, math.NaN()},
		{"val.1.t.1", `[{},{"t":[[],3]}]`, 3},
		{"val.größe", `{"größe":3}`, 3},
	} {
		path, err := parseField(test.field)
		require.NoError(t, err, test.field)
		got, ok := path.number([]byte(test.value))
		if math.IsNaN(test.want) {
			require.False(t, ok, "%s of %s is %v", test.field, test.value, got)
			continue
		}
		require.True(t, ok, "%s of %s", test.field, test.value)
		require.Equal(t, test.want, got, "%s of %s", test.field, test.value)
	}
}

func TestAggregateRefusesNonsense(t *testing.T) {
	db := open(t, nil)
	for want, a := range map[string]Aggregation{
		`field "t" must begin with val`:     {Field: "t"},
		`field "value.t" must begin`:        {Field: "value.t"},
		`field "val." has an empty name`:    {Field: "val."},
		`field "val..t" has an empty name`:  {Field: "val..t"},
		`field "val\\" ends with`:           {Field: `val\`},
		"Every is -1s: must be whole":       {Every: -time.Second},
		"Every is 1.5µs: must be whole":     {Every: 1500},
		"Reverse is set":                    {Window: Window{Reverse: true}},
		"annals: Aggregation.Window.Limit ": {Window: Window{Limit: -1}},
	} {
		var errs []error
		for b, err := range Aggregate(db, "s", a) {
			require.Zero(t, b)
			errs = append(errs, err)
		}
		require.Len(t, errs, 1)
		require.ErrorContains(t, errs[0], want)
	}
	for range Aggregate(db, "nowhere", Aggregation{}) {
		t.Fatal("a series that is not there has no bucket")
	}
	require.NoError(t, db.Close())
	for _, err := range Aggregate(db, "s", Aggregation{}) {
		require.ErrorIs(t, err, ErrClosed)
	}
}

func TestNumbersAtTheEdges(t *testing.T) {
	bucket := func(values ...float64) Bucket {
		b := newBucket(0, true)
		for i, x := range values {
			b.add(time.UnixMicro(int64(i)), x)
		}
		b.finish()
		return *b
	}
	most := math.MaxFloat64
	b := bucket(most, most, most)
	require.Equal(t, most, b.Mean())
	require.True(t, math.IsInf(b.Sum(), 1))
	b = bucket(most, most, -most, -most, 3)
	require.InDelta(t, 0.6, b.Mean(), most*1e-15) // beside such numbers
	b = bucket(1e16, 1, 1, 1, 1, -1e16)
	require.Equal(t, 4.0, b.Sum())
	require.Equal(t, 4.0/6, b.Mean())
	small := math.SmallestNonzeroFloat64
	b = bucket(small, small)
	require.Equal(t, small, b.Mean())
	require.Equal(t, 0.0, b.Stddev())
	b = bucket(1e9+4, 1e9+7, 1e9+13, 1e9+16)
	require.InDelta(t, math.Sqrt(30), b.Stddev(), 1e-9)
	b = bucket(7)
	require.True(t, math.IsNaN(b.Stddev()))
	require.Equal(t, 7.0, b.Quantile(0.99))
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64(100-i))
	}
	require.Equal(t, 7.0, bucket(hundred...).Quantile(0.07), "though 0.07*100 is more than 7 in float64")
	for _, q := range []float64{-0.01, 1.01, math.NaN()} {
		require.True(t, math.IsNaN(b.Quantile(q)))
	}
	require.True(t, math.IsNaN(Bucket{Count: 1}.Quantile(0.5)))
}

// TestBinsAreInOrderAndNarrow tries numbers of every size at the edges of bins.
func TestBinsAreInOrderAndNarrow(t *testing.T) {
	last := bin(math.MinInt32)
	var numbers []float64
	for bits := uint64(0); bits < math.Float64bits(math.Inf(1)); bits += 1 << binShift {
		x := math.Float64frombits(bits)
		numbers = append(numbers, x, -x, math.Nextafter(x, 0), -math.Nextafter(x, 0))
	}
	slices.Sort(numbers)
	for _, x := range numbers {
		n := binOf(x)
		if n < last || math.Abs(x) >= 1e-300 && math.Abs(n.middle()-x)/math.Abs(x) > 1.0/256 {
			t.Fatalf("%v is in bin %d behind %d, the middle of which is %v", x, n, last, n.middle())
		}
		last = n
	}
	require.Zero(t, binOf(0).middle())
}

func TestBucketsAreOfUTCAndLateSamplesFindTheirs(t *testing.T) {
	db := open(t, nil)
	values := map[int64]string{-1: "1", 0: "2", 86399: "3", 86400: "4", 10 * 86400: "5", 5: `"no number"`, 20 * 86400: "null"}
	appendAt(t, db, "s", values, 10*86400, 86400, -1, 86399, 0, 5, 20*86400)
	day := Aggregation{Every: 24 * time.Hour}
	var got []string
	for b, err := range Aggregate(db, "s", day) {
		require.NoError(t, err)
		got = append(got, fmt.Sprintf("%s %d %d %v", b.Start.UTC().Format(time.RFC3339), b.Count, b.Skipped, b.Sum()))
	}
	require.Equal(t, []string{
		"1969-12-31T00:00:00Z 1 0 1", "1970-01-01T00:00:00Z 2 1 5", "1970-01-02T00:00:00Z 1 0 4",
		"1970-01-11T00:00:00Z 1 0 5", "1970-01-21T00:00:00Z 0 1 0",
	}, got)

	day.Window.Limit = 2
	require.Len(t, collect(t, db, "s", day, 0, 0), 2)
	day.Window = Window{Since: time.Unix(1, 0), Until: time.Unix(86400, 0)}
	list := collect(t, db, "s", day, 0, 0)
	require.Len(t, list, 1)
	require.Equal(t, Point{time.Unix(86399, 0), 3}, list[0].First)
	require.EqualValues(t, 0, list[0].Start.Unix(), "a bucket begins where it begins, also if the window cuts it")

	list = collect(t, db, "s", Aggregation{}, 0, 0)
	require.Len(t, list, 1)
	require.EqualValues(t, 5, list[0].Count)
	require.EqualValues(t, 2, list[0].Skipped)
	require.EqualValues(t, -1, list[0].Start.Unix())
	require.Equal(t, Point{time.Unix(10*86400, 0), 5}, list[0].Last)
}

// A bucket that there was no room for comes later, whole, also with what lies right
// at its beginning.
func TestABucketWithoutRoomComesLater(t *testing.T) {
	db := open(t, nil)
	for second := range int64(3) {
		for range 8 {
			appendAt(t, db, "s", map[int64]string{second: "1"}, second)
		}
	}
	list := collect(t, db, "s", Aggregation{Every: time.Second, Quantiles: true}, 10, 10)
	require.Len(t, list, 3)
	for i, b := range list {
		require.EqualValues(t, i, b.Start.Unix())
		require.EqualValues(t, 8, b.Count)
	}
}

// A loop sees the moment at which it began, also with many stretches.
func TestAggregateIsOfOneMoment(t *testing.T) {
	db := open(t, &Options{Sync: SyncNever})
	const n = 3 * maxOpenBuckets
	for i := range int64(n) {
		_, err := db.Append("s", []byte("1"), At(time.Unix(i, 0)))
		require.NoError(t, err)
	}
	seen := 0
	for b, err := range Aggregate(db, "s", Aggregation{Every: time.Second}) {
		require.NoError(t, err)
		require.EqualValues(t, 1, b.Count)
		if seen++; seen == 1 {
			for i := range int64(2 * n) {
				_, err := db.Append("s", []byte("1"), At(time.Unix(i, 0)))
				require.NoError(t, err)
			}
		}
	}
	require.Equal(t, n, seen)
}

func TestAggregateReadsFromAll(t *testing.T) {
	db := open(t, nil)
	appendAt(t, db, "s", map[int64]string{60: "1", 61: "2", 180: "3"}, 60, 61, 180)
	count := func(from Sampler) (n uint64) {
		for _, b := range collect(t, from, "s", Aggregation{Every: time.Minute}, 0, 0) {
			n += b.Count
		}
		return n
	}
	require.EqualValues(t, 3, count(db))
	snapshot := db.Snapshot()
	defer snapshot.Close()
	require.EqualValues(t, 3, count(snapshot))
	require.NoError(t, db.Update(func(tx *Tx) error {
		_, err := tx.Append("s", []byte("4"), At(time.Unix(1, 0)))
		require.NoError(t, err)
		require.EqualValues(t, 4, count(tx))
		return nil
	}))
	reader, err := OpenReader(db.dir, nil)
	require.NoError(t, err)
	defer reader.Close()
	require.EqualValues(t, 4, count(reader))
}

// Damage is told once, although many stretches read the block it is in, and the rest
// is summed up.
func TestAggregateTellsDamageOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	db := openDamaged(t, dir, &Options{Sync: SyncNever})
	for i := range int64(2000) {
		_, err := db.Append("s", []byte("1"), At(time.Unix(i, 0)))
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)

	db = openDamaged(t, dir, nil)
	flip(t, logs[0], `"at":100.000000`)
	g, err := newAggregator("s", Aggregation{Every: time.Second})
	require.NoError(t, err)
	g.room = 10
	count, errs := uint64(0), []error{}
	g.yield = func(b Bucket, err error) bool {
		if count += b.Count; err != nil {
			errs = append(errs, err)
		}
		return true
	}
	g.run(db)
	require.EqualValues(t, 1999, count)
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], ErrCorrupt)
}

// TestAggregateTakesBoundedMemory sums up many samples in many buckets with quantiles.
func TestAggregateTakesBoundedMemory(t *testing.T) {
	n := 400_000
	if raceDetector {
		n = 40_000
	}
	db := open(t, &Options{Sync: SyncNever})
	for i := 0; i < n; {
		var b Batch
		for range 1000 {
			b.Append("s", fmt.Appendf(nil, "%d.%d", i%7919, i%100), At(time.UnixMicro(int64(i))))
			i++
		}
		_, err := db.Apply(&b)
		require.NoError(t, err)
	}
	_, err := db.Sync(context.Background())
	require.NoError(t, err)
	for _, every := range []time.Duration{2 * time.Microsecond, time.Millisecond, time.Second} {
		before, most, count, seen := heap(), uint64(0), uint64(0), 0
		for b, err := range Aggregate(db, "s", Aggregation{Every: every, Quantiles: true}) {
			require.NoError(t, err)
			count += b.Count
			if seen++; seen%5000 == 1 {
				most = max(most, heap())
			}
		}
		require.EqualValues(t, n, count)
		t.Logf("%s: %d KiB more", every, int64(most-before)>>10)
		require.Less(t, int64(most)-int64(before), int64(24<<20))
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
