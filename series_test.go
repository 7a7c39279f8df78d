package annals

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
)

// window is what Samples, or AllSamples if series is "", should yield of all samples in
// the order of their numbers.
func window(all []Sample, series string, w Window) (list []Sample) {
	for _, s := range all {
		switch {
		case series != "" && s.Series != series:
		case s.Seq < w.FromSeq || w.ToSeq != 0 && s.Seq > w.ToSeq:
		case !w.Since.IsZero() && s.At.Before(w.Since):
		case !w.Until.IsZero() && !s.At.Before(w.Until):
		default:
			list = append(list, s)
		}
	}
	if w.Reverse {
		slices.Reverse(list)
	}
	if w.Limit > 0 && len(list) > w.Limit {
		list = list[:w.Limit]
	}
	return list
}

// plain makes samples comparable.
func plain(list []Sample) (lines []string) {
	for _, s := range list {
		lines = append(lines, fmt.Sprintf("%d %s %d %s", s.Seq, s.Series, s.At.UnixMicro(), s.Value))
	}
	return lines
}

// recordSeries appends samples to three series, some late, some from the future,
// between puts.
func recordSeries(t *testing.T, rng *rand.Rand, db *Store, all []Sample, n int) []Sample {
	t.Helper()
	begin := time.UnixMicro(1_000_000)
	for range n {
		if rng.IntN(5) == 0 {
			put(t, db, fmt.Sprint("key", rng.IntN(20)), "between")
		}
		s := Sample{
			Series: fmt.Sprint("s", rng.IntN(3)),
			At:     begin.Add(time.Duration(len(all)*1000+rng.IntN(200_000)-100_000) * time.Microsecond),
			Value:  fmt.Appendf(nil, `{"n":%d}`, len(all)),
		}
		var err error
		s.Seq, err = db.Append(s.Series, s.Value, At(s.At))
		require.NoError(t, err)
		all = append(all, s)
	}
	return all
}

func randomWindow(rng *rand.Rand, all []Sample) Window {
	w := Window{Reverse: rng.IntN(2) == 0}
	pick := func() Sample { return all[rng.IntN(len(all))] }
	if rng.IntN(2) == 0 {
		w.Since = pick().At.Add(time.Duration(rng.IntN(3)-1) * 500 * time.Nanosecond)
	}
	if rng.IntN(2) == 0 {
		w.Until = pick().At.Add(time.Duration(rng.IntN(3)-1) * 500 * time.Nanosecond)
	}
	if rng.IntN(2) == 0 {
		w.FromSeq = pick().Seq
	}
	if rng.IntN(2) == 0 {
		w.ToSeq = pick().Seq + uint64(rng.IntN(2))
	}
	if rng.IntN(3) == 0 {
		w.Limit = 1 + rng.IntN(10)
	}
	return w
}

func TestSamplesOfAWindowAreExact(t *testing.T) {
	rng := seed.Rand(t)
	opts := &Options{SegmentSize: 8 << 10, Sync: SyncEvery(time.Millisecond)}
	db := open(t, opts)
	var all []Sample
	check := func(s sampler) {
		for i := range 3 {
			name := fmt.Sprint("s", i)
			require.Equal(t, plain(window(all, name, Window{})), plain(samples(t, s, name, Window{})))
		}
		for range 100 {
			name, w := fmt.Sprint("s", rng.IntN(3)), randomWindow(rng, all)
			require.Equal(t, plain(window(all, name, w)), plain(samples(t, s, name, w)), "%s %+v", name, w)
		}
		for _, info := range series(t, s) {
			own := window(all, info.Name, Window{})
			require.EqualValues(t, len(own), info.Samples)
			require.Equal(t, own[0].Seq, info.FirstSeq)
			require.Equal(t, own[len(own)-1].Seq, info.LastSeq)
			byTime := func(a, b Sample) int { return a.At.Compare(b.At) }
			require.True(t, slices.MinFunc(own, byTime).At.Equal(info.First))
			require.True(t, slices.MaxFunc(own, byTime).At.Equal(info.Last))
		}
	}
	for round := range 8 {
		all = recordSeries(t, rng, db, all, 150)
		check(db)
		switch round % 4 {
		case 0:
			compactAll(t, db)
		case 1:
			db = reopen(t, db, opts)
		case 2:
			_, err := db.Sync(t.Context())
			require.NoError(t, err)
			db = openAt(t, killed(t, db), opts)
		}
		check(db)
		require.NoError(t, db.View(func(s *Snapshot) error {
			check(s)
			for range 50 {
				w := randomWindow(rng, all)
				var list []Sample
				for sample, err := range s.AllSamples(w) {
					require.NoError(t, err)
					list = append(list, sample)
				}
				require.Equal(t, plain(window(all, "", w)), plain(list), "all series %+v", w)
			}
			require.Empty(t, samples(t, s, "", Window{}), "there is no series without a name")
			return nil
		}))
		require.NoError(t, db.Update(func(tx *Tx) error {
			check(tx)
			return nil
		}))
	}
	require.NoError(t, db.Close())
	r, err := OpenReader(db.dir, nil)
	require.NoError(t, err)
	defer r.Close()
	check(r)
}

func TestTxSamplesIncludeItsOwn(t *testing.T) {
	rng := seed.Rand(t)
	db := open(t, nil)
	all := recordSeries(t, rng, db, nil, 100)
	require.NoError(t, db.Update(func(tx *Tx) error {
		for i := range 50 {
			s := Sample{Series: fmt.Sprint("s", i%3), At: all[rng.IntN(100)].At, Value: []byte("own")}
			var err error
			s.Seq, err = tx.Append(s.Series, s.Value, At(s.At))
			require.NoError(t, err)
			all = append(all, s)
		}
		for range 200 {
			name, w := fmt.Sprint("s", rng.IntN(3)), randomWindow(rng, all)
			require.Equal(t, plain(window(all, name, w)), plain(samples(t, tx, name, w)), "%s %+v", name, w)
		}
		return nil
	}))
	require.Equal(t, plain(window(all, "s1", Window{})), plain(samples(t, db, "s1", Window{})))
}

func TestSampleHasAnyTimeThatFits(t *testing.T) {
	db := open(t, nil)
	times := []int64{0, 1, -1, -1_000_000, 1_500_000, -8_999_999_999_999_999, 8_999_999_999_999_999}
	for _, at := range times {
		_, err := db.Append("s", nil, At(time.UnixMicro(at)))
		require.NoError(t, err)
	}
	_, err := db.Append("s", nil, At(time.Unix(0, -1)))
	require.NoError(t, err)
	want := append(times, -1) // rounded down
	check := func() {
		var got []int64
		for _, s := range samples(t, db, "s", Window{}) {
			got = append(got, s.At.UnixMicro())
		}
		require.Equal(t, want, got)
		require.Len(t, samples(t, db, "s", Window{Since: time.UnixMicro(0), Until: time.UnixMicro(1)}), 1)
		require.Len(t, samples(t, db, "s", Window{Until: time.UnixMicro(0)}), 4)
	}
	check()
	compactAll(t, db)
	check()
	db = reopen(t, db, nil)
	check()
}

// Far bounds are a usual way to say "for ever".
func TestWindowMayReachBeyondAllTimes(t *testing.T) {
	db := open(t, nil)
	_, err := db.Append("s", nil)
	require.NoError(t, err)
	far := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	old := time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)
	require.Len(t, samples(t, db, "s", Window{Since: old}), 1)
	require.Len(t, samples(t, db, "s", Window{Until: far}), 1)
	require.Empty(t, samples(t, db, "s", Window{Since: far}))
	require.Empty(t, samples(t, db, "s", Window{Until: old}))
}

func TestSampleWithoutATimeIsOfNow(t *testing.T) {
	db := open(t, nil)
	before := time.Now().Truncate(time.Microsecond)
	_, err := db.Append("s", nil)
	require.NoError(t, err)
	at := samples(t, db, "s", Window{})[0].At
	require.False(t, at.Before(before) || at.After(time.Now()), "%v", at)
}

func TestSampleWithoutATimeTakesItFromTheStoresClock(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{Now: clock.Now})
	_, err := db.Append("s", nil)
	require.NoError(t, err)
	require.WithinDuration(t, clock.Now(), samples(t, db, "s", Window{})[0].At, time.Second)
}
