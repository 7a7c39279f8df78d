package annals

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
)

// strangeValues are values that a careless format would change.
func strangeValues() map[string][]byte {
	size := 15 << 20
	if raceDetector {
		size = 3 << 20
	}
	random := make([]byte, size)
	source := rand.NewChaCha8([32]byte{1})
	source.Read(random)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return map[string][]byte{
		"nothing":           {},
		"object":            []byte(`{"name":"Ann","age":41}`),
		"spaced":            []byte(` { "a" : [ 1 , 2 ] } `),
		"duplicate names":   []byte(`{"a":1,"a":2}`),
		"big numbers":       []byte(`[1e400,9007199254740993,-0,0.10]`),
		"escapes":           []byte(`"\u0041\ud800\/\n"`),
		"not escaped":       []byte("\"<>&\u2028\u2029\x7f\""),
		"null":              []byte(`null`),
		"pretty":            []byte("{\n\t\"a\": 1\r\n}"),
		"raw newline":       []byte("[1,\n2]"),
		"newline behind":    []byte("1\n"),
		"text":              []byte("two\nlines \"quoted\" \\ and a tab\t"),
		"replacement rune":  []byte("\uFFFD"),
		"byte order mark":   []byte("\uFEFF{}"),
		"NUL":               []byte("a\x00b"),
		"only NULs":         make([]byte, 1000),
		"invalid UTF-8":     []byte("\xff\xfe{}"),
		"UTF-8 surrogate":   []byte("\xed\xa0\x80"),
		"invalid in JSON":   []byte("\"\xff\""),
		"every byte":        all,
		"like a line":       []byte(`{"seq":1,"key":"a","val":1} 00000000` + "\n"),
		"like a footer":     []byte(`{"sealed":1,"first":1,"last":1,"records":1,"bytes":1,"crc":"00000000"}`),
		"closes the record": []byte(`1},{"x":2`),
		"depth 128":         nested(128),
		"depth 129":         nested(129),
		"depth a million":   nested(1_000_000),
		"open a million":    bytes.Repeat([]byte("["), 1_000_000),
		"megabytes":         random,
	}
}

// A value that is not copied before its line is made is the caller's again once Put and
// Append have returned.
func TestLongValuesAreTheCallersAgain(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour), SyncNever} {
		db := open(t, &Options{Sync: policy})
		buf := make([]byte, 3*borrowFrom)
		for i := range 20 {
			value := append(append(append(buf[:0], '"'), strings.Repeat(string(rune('a'+i)), borrowFrom-3+i%3)...), '"')
			if i%5 == 4 {
				value[0] = '?' // no JSON
			}
			want := string(value)
			require.NoError(t, db.Put(string(rune('A'+i)), value, TTL(time.Hour)))
			require.NoError(t, db.Put(string(rune('a'+i)), value))
			_, err := db.Append("series", value)
			require.NoError(t, err)
			clear(buf)
			for _, key := range []string{string(rune('A' + i)), string(rune('a' + i))} {
				got, err := db.Get(key)
				require.NoError(t, err)
				require.Equal(t, want, string(got))
			}
			var last string
			for s, err := range db.Samples("series", Window{Reverse: true, Limit: 1}) {
				require.NoError(t, err)
				last = string(s.Value)
			}
			require.Equal(t, want, last)
		}
		require.NoError(t, db.Close())
	}
}

func nested(depth int) []byte {
	return []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))
}

func TestEveryValueComesBackByteForByte(t *testing.T) {
	db := open(t, nil)
	values := strangeValues()
	for name, value := range values {
		require.NoError(t, db.Put(name, value))
		_, err := db.Append("series "+name, value)
		require.NoError(t, err)
	}
	check := func(when string) {
		for name, value := range values {
			have, err := db.Get(name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(value, have), "%s: %s: %d bytes for %d", when, name, len(have), len(value))
			list := samples(t, db, "series "+name, Window{})
			require.Len(t, list, 1)
			require.True(t, bytes.Equal(value, list[0].Value), "%s: sample %s", when, name)
		}
		n := 0
		for e, err := range db.Scan(Range{}) {
			require.NoError(t, err)
			require.True(t, bytes.Equal(values[e.Key], e.Value), "%s: scan %s", when, e.Key)
			n++
		}
		require.Equal(t, len(values), n)
	}
	check("at once")
	db = reopen(t, db, nil)
	check("reopened")
	_, err := db.Compact(t.Context(), nil)
	require.NoError(t, err)
	check("compacted")
	db = reopen(t, db, nil)
	check("compacted and reopened")
}

func TestEveryKeyIsAKey(t *testing.T) {
	db := open(t, nil)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	want := model{}
	for _, key := range []string{
		"", " ", "\n", "\r\n", "\x00", "a\x00b", `"`, `\`, `\u0061`, "a", "ä", "\uFFFD", "\xff", "\xff\xff", "\xed\xa0\x80", "é",
		"e\u0301", "../../etc/passwd", "MANIFEST", `{"key":1}`, string(all), strings.Repeat("k", maxKey), strings.Repeat("\xfe", maxKey),
	} {
		want[key] = "value of " + key
		put(t, db, key, want[key])
	}
	check := func() {
		want.holds(t, db)
		for key, value := range want {
			present(t, db, key, value)
		}
	}
	check()
	db = reopen(t, db, nil)
	check()
	_, err := db.Compact(t.Context(), nil)
	require.NoError(t, err)
	check()
	for key := range want {
		del(t, db, key)
		absent(t, db, key)
		delete(want, key)
	}
	check()
	db = reopen(t, db, nil)
	check()
}

func TestRandomBytesComeBack(t *testing.T) {
	rng := seed.Rand(t)
	db := open(t, &Options{SegmentSize: minSegment})
	want := model{}
	var b Batch
	for range 2000 {
		value := make([]byte, rng.IntN(40))
		alphabet := []string{"{}[]\",:0123456789.eE+- truefalsn\\", "ab\n\x00\xff\xc3\xa4\"\\", "abcdefgh"}[rng.IntN(3)]
		for i := range value {
			value[i] = alphabet[rng.IntN(len(alphabet))]
		}
		key := randomKey(rng) + string(value[:min(len(value), 3)])
		want[key] = string(value)
		b.Put(key, value)
	}
	_, err := db.Apply(&b)
	require.NoError(t, err)
	want.holds(t, db)
	db = reopen(t, db, nil)
	want.holds(t, db)
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	db := open(t, nil)
	absent(t, db, "never")
	put(t, db, "gone", "1")
	del(t, db, "gone")
	absent(t, db, "gone")
	require.NoError(t, db.Delete("never"), "deleting what is absent is no error")
	_, err := db.Lookup("gone")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, `"gone"`, "the error names the key")
	require.Empty(t, samples(t, db, "no such series", Window{}))
	db = reopen(t, db, nil)
	absent(t, db, "gone")
}

func TestTooLargeLeavesNothing(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{MaxValue: 1000, Now: clock.Now})
	put(t, db, "before", "1")
	appendSample := func(series string, value string, opts ...AppendOption) func() error {
		return func() error {
			_, err := db.Append(series, []byte(value), opts...)
			return err
		}
	}
	for name, write := range map[string]func() error{
		"key":              func() error { return db.Put(strings.Repeat("k", maxKey+1), nil) },
		"key of a delete":  func() error { return db.Delete(strings.Repeat("k", maxKey+1)) },
		"value":            func() error { return db.Put("k", make([]byte, 1001)) },
		"value with TTL":   func() error { return db.Put("k", make([]byte, 1001), TTL(time.Hour)) },
		"sample":           appendSample("s", strings.Repeat("v", 1001)),
		"series name":      appendSample(strings.Repeat("s", maxSeries+1), ""),
		"no series name":   appendSample("", ""),
		"bad series name":  appendSample("\xff", ""),
		"TTL":              func() error { return db.Put("k", nil, TTL(290*365*24*time.Hour)) },
		"expiry 2260":      func() error { return db.Put("k", nil, ExpiresAt(time.Date(2260, 1, 1, 0, 0, 0, 0, time.UTC))) },
		"expiry 3000":      func() error { return db.Put("k", nil, ExpiresAt(time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC))) },
		"time in future":   appendSample("s", "", At(time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC))),
		"time in the past": appendSample("s", "", At(time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC))),
		"last of a batch": func() error {
			var b Batch
			b.Put("k1", []byte("fine"))
			b.Put("k2", make([]byte, 1001))
			_, err := db.Apply(&b)
			return err
		},
		"in a transaction": func() error {
			return db.Update(func(tx *Tx) error {
				if err := tx.Put("k1", []byte("fine")); err != nil {
					return err
				}
				return tx.Put("k2", make([]byte, 1001))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			last := db.Stats().LastSeq
			require.ErrorIs(t, write(), ErrTooLarge)
			require.Equal(t, last, db.Stats().LastSeq)
			require.Equal(t, []string{"before=1"}, scan(t, db, Range{}))
			require.Empty(t, series(t, db))
		})
	}
	put(t, db, "after", "2")
	e, err := db.Lookup("after")
	require.NoError(t, err)
	require.EqualValues(t, 2, e.Seq, "no number was spent")
}

func TestLimitsAreInclusive(t *testing.T) {
	db := open(t, &Options{MaxValue: 1000})
	key, name := strings.Repeat("k", maxKey), strings.Repeat("ä", maxSeries/2)+"."
	require.Len(t, name, maxSeries)
	require.NoError(t, db.Put(key, make([]byte, 1000)))
	_, err := db.Append(name, make([]byte, 1000))
	require.NoError(t, err)
	db = reopen(t, db, &Options{MaxValue: 10}) // reading takes what was written
	v, err := db.Get(key)
	require.NoError(t, err)
	require.Len(t, v, 1000)
	require.Len(t, samples(t, db, name, Window{}), 1)
}

func TestCommitAboveItsLimitIsRefused(t *testing.T) {
	db := open(t, nil)
	value := bytes.Repeat([]byte{'"'}, 8<<20) // 10.7 MiB in the log
	var b Batch
	for range 25 {
		b.Put("k", value)
	}
	_, err := db.Apply(&b)
	require.ErrorIs(t, err, ErrTooLarge)
	absent(t, db, "k")
	require.Zero(t, db.Stats().LastSeq)
}

func TestSlicesAreTheCallers(t *testing.T) {
	db := open(t, nil)
	value := []byte("original")
	require.NoError(t, db.Put("k", value))
	copy(value, "scratch!")
	got, err := db.Get("k")
	require.NoError(t, err)
	require.Equal(t, "original", string(got))
	copy(got, "scratch!")
	present(t, db, "k", "original")
	for e := range db.Scan(Range{}) {
		copy(e.Value, "scratch!")
	}
	present(t, db, "k", "original")
}

func TestSequenceNumbersOnlyGrow(t *testing.T) {
	db := open(t, nil)
	last := uint64(0)
	for i := range 5 {
		put(t, db, "k", "v")
		e, err := db.Lookup("k")
		require.NoError(t, err)
		require.Equal(t, last+1, e.Seq)
		last = e.Seq
		if i == 2 {
			db = reopen(t, db, nil)
		}
	}
	seq, err := db.Append("s", nil)
	require.NoError(t, err)
	require.Equal(t, last+1, seq)
	_, err = db.Compact(t.Context(), nil)
	require.NoError(t, err)
	del(t, db, "k")
	_, err = db.Compact(t.Context(), nil)
	require.NoError(t, err)
	db = reopen(t, db, nil)
	seq, err = db.Append("s", nil)
	require.NoError(t, err)
	require.Equal(t, last+3, seq, "not even the number of a record that is gone comes again")
}
