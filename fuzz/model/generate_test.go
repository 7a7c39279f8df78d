package model

import (
	"fmt"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// keys are few, so that they collide, and none of them is easy: the empty one, bytes
// that JSON escapes, bytes that are no text, beginnings of each other, and one as long
// as a key can be.
var keys = []string{
	"", "a", "ab", "abc", "a\x00", "a\x00b", "b", "user:1", "user:2", "ключ", "\x01\n\"\\/", "\x7f\u2028",
	"\xff", "\xff\xff", "a\xc3\x28", strings.Repeat("k", 64<<10),
}

var series = []string{"s", "hall-003", "\x01\"é", strings.Repeat("z", 255)}

// genKey leaves the long key to one write in a few dozen: it costs as much as all the
// others.
var genKey = rapid.Custom(func(t *rapid.T) string {
	if rapid.IntRange(0, 40).Draw(t, "long") == 40 {
		return keys[len(keys)-1]
	}
	return keys[rapid.IntRange(0, len(keys)-2).Draw(t, "key")]
})

// shapes are values of each kind that the log knows, with a number that makes them
// different.
var shapes = []func(n int) string{
	func(n int) string { return fmt.Sprint(n) },
	func(n int) string { return fmt.Sprintf(`{"n":%d,"text":"é\u0000"}`, n) },
	func(n int) string { return fmt.Sprintf(" {\"n\" : %d }\n", n) },           // JSON with spaces around it
	func(n int) string { return fmt.Sprintf("{\n\t\"n\": [%d, 1e400]\n}", n) }, // with line breaks inside
	func(n int) string { return strings.Repeat("[", 128) + fmt.Sprint(n) + strings.Repeat("]", 128) },
	func(n int) string { return strings.Repeat("[", 129) + fmt.Sprint(n) + strings.Repeat("]", 129) },
	func(n int) string { return fmt.Sprintf("text %d\r\n\t\"'\\", n) },
	func(n int) string { return fmt.Sprintf("\x00\xff\xfe%d", n) },
	func(n int) string { return fmt.Sprintf(`"%d \ud800"`, n) }, // half a surrogate: JSON, though no text
	func(n int) string { return strings.Repeat("\x01", 40) + fmt.Sprint(n) },
	func(n int) string { return "" },
	func(n int) string { return "null" },
	func(n int) string { return fmt.Sprintf("%d%s", n, strings.Repeat("x", 700)) },
	func(n int) string { return fmt.Sprintf(`"%d%s"`, n, strings.Repeat("y", 1800)) },
	func(n int) string { return fmt.Sprintf("%d%s", n, strings.Repeat("\x02é", 1500)) },
}

// serial numbers values.
type serial int

func (s *serial) value(t *rapid.T) string {
	*s++
	return shapes[rapid.IntRange(0, len(shapes)-1).Draw(t, "shape")](int(*s))
}

var genTTL = rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, 1500 * time.Nanosecond, 0, -time.Hour})

// genSpan bounds ranges by keys, and by what lies just behind them.
var genSpan = rapid.Custom(func(t *rapid.T) span {
	bound := rapid.Custom(func(t *rapid.T) string {
		if rapid.Bool().Draw(t, "open") {
			return ""
		}
		return genKey.Draw(t, "bound") + rapid.SampledFrom([]string{"", "\x00"}).Draw(t, "behind")
	})
	return span{
		prefix:   rapid.SampledFrom([]string{"", "", "a", "a\x00", "user:", "\xff", "\xff\xff", "zz"}).Draw(t, "prefix"),
		from:     bound.Draw(t, "from"),
		to:       bound.Draw(t, "to"),
		reverse:  rapid.Bool().Draw(t, "reverse"),
		limit:    rapid.IntRange(0, 4).Draw(t, "limit"),
		keysOnly: rapid.Bool().Draw(t, "keys only"),
	}
})

// genWindow bounds windows near the samples of a series.
func genWindow(t *rapid.T, list []sample) (w window) {
	pick := func(label string) (sample, bool) {
		if len(list) == 0 || rapid.Bool().Draw(t, label+" open") {
			return sample{}, false
		}
		return list[rapid.IntRange(0, len(list)-1).Draw(t, label)], true
	}
	near := func(label string) time.Duration { return time.Duration(rapid.IntRange(-1, 1).Draw(t, label)) * 500 }
	if p, ok := pick("since"); ok {
		w.since = time.UnixMicro(p.at).Add(near("since near"))
	}
	if p, ok := pick("until"); ok {
		w.until = time.UnixMicro(p.at).Add(near("until near"))
	}
	if p, ok := pick("first"); ok {
		w.first = p.seq
	}
	if p, ok := pick("last"); ok {
		w.last = p.seq
	}
	w.reverse = rapid.Bool().Draw(t, "backwards")
	w.limit = rapid.IntRange(0, 3).Draw(t, "limit")
	return w
}
