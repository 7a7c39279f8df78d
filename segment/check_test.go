package segment

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// whole are the lines of a sealed segment with all that one can hold; its
// records are 5 to 12.
func whole() []string {
	return []string{
		header(2, 5), rec(5), recDur(6, 5), mark(6), recMore(7), recMore(8), rec(9),
		line(`{"seq":10,"dur":9,"ser":"s","at":1.500000,"txt":"x"}`), line(`{"seq":11,"key":"k5","del":true}`), mark(11), rec(12),
	}
}

func TestAWholeSegmentHasNoProblem(t *testing.T) {
	text, f := sealed(5, 12, whole()...)
	var seqs []uint64
	problems, err := CheckSealed(strings.NewReader(text), int64(len(text)), "2.log", ours, f, func(l *Line) error {
		seqs = append(seqs, l.View.Seq)
		require.Equal(t, text[l.Offset:l.End()], string(l.Bytes))
		return nil
	})
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, []uint64{5, 6, 7, 8, 9, 10, 11, 12}, seqs)
}

func TestVisitsErrorStopsTheCheck(t *testing.T) {
	text, f := sealed(5, 12, whole()...)
	enough := errors.New("enough")
	calls := 0
	_, err := CheckSealed(strings.NewReader(text), int64(len(text)), "2.log", ours, f, func(*Line) error {
		calls++
		return enough
	})
	require.ErrorIs(t, err, enough)
	require.Equal(t, 1, calls)
}

func TestEveryFlippedByteOfASealedSegmentIsReported(t *testing.T) {
	text, f := sealed(5, 12, whole()...)
	raw := []byte(text)
	for i := range raw {
		for _, flip := range []byte{1, 0x20, 0x80, 0xff, raw[i], raw[i] ^ '\n'} {
			if flip == 0 {
				continue
			}
			raw[i] ^= flip
			problems := check(t, string(raw), f)
			raw[i] ^= flip
			require.NotEmpty(t, problems, "byte %d ^ %#x", i, flip)
			start := int64(strings.LastIndexByte(text[:i], '\n') + 1)
			require.LessOrEqual(t, problems[0].Offset, int64(i))
			require.GreaterOrEqual(t, problems[0].Offset, start, "byte %d ^ %#x", i, flip)
			require.Equal(t, "2.log", problems[0].Path)
		}
	}
}

func TestEveryOtherLengthOfASealedSegmentIsReported(t *testing.T) {
	text, f := sealed(5, 12, whole()...)
	for n := range text {
		require.NotEmpty(t, check(t, text[:n], f), "%d bytes", n)
	}
	for _, more := range []string{"\n", "x", rec(13), text[len(text)-int(f.Size()-f.Bytes):], strings.Repeat("\n", 70_000)} {
		require.NotEmpty(t, check(t, text+more, f), "%q behind the footer", more)
	}
}

// A problem of which only the place and the cost are compared.
type found struct {
	line        int // at which line of the file
	first, last uint64
}

// problemsOf replaces lines of the whole segment and says what is found. The
// file keeps MANIFEST's footer.
func problemsOf(t *testing.T, change func(lines []string) []string) []found {
	t.Helper()
	_, f := sealed(5, 12, whole()...)
	lines := append(change(whole()), footerLine(f))
	var all []found
	for _, e := range check(t, concat(lines...), f) {
		at := int64(0)
		i := 0
		for ; i < len(lines) && at < e.Offset; i++ {
			at += int64(len(lines[i]))
		}
		require.Equal(t, at, e.Offset, "no line begins there")
		all = append(all, found{i, e.FirstSeq, e.LastSeq})
	}
	return all
}

func broken(l string) string { return strings.Replace(l, `"`, `'`, 1) }

func TestWhatASealedSegmentHasLostIsSaid(t *testing.T) {
	replaced := func(numbers ...int) func([]string) []string {
		return func(lines []string) []string {
			for _, n := range numbers {
				lines[n] = broken(lines[n])
			}
			return lines
		}
	}
	for why, c := range map[string]struct {
		change func([]string) []string
		want   []found
	}{
		"the header":                      {replaced(0), []found{{0, 5, 12}}},
		"the first record":                {replaced(1), []found{{1, 5, 5}}},
		"a record before a mark":          {replaced(2), []found{{2, 6, 6}}},
		"a mark":                          {replaced(3), []found{{3, 0, 0}}},
		"a record and the mark behind it": {replaced(2, 3), []found{{2, 6, 6}}},
		"records around a mark":           {replaced(2, 4), []found{{2, 6, 7}}},
		"a commit's middle":               {replaced(5), []found{{5, 8, 8}}},
		"a commit's end":                  {replaced(6), []found{{6, 9, 9}}},
		"three in a row":                  {replaced(4, 5, 6), []found{{4, 7, 9}}},
		"the last record":                 {replaced(10), []found{{10, 12, 12}}},
		"the last two":                    {replaced(8, 10), []found{{8, 11, 12}}},
		"two places":                      {replaced(1, 7), []found{{1, 5, 5}, {7, 10, 10}}},
		"all":                             {replaced(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), []found{{1, 5, 12}}},
		"a line deleted":                  {func(l []string) []string { return without(l, 7) }, []found{{7, 10, 10}}},
		"a mark deleted":                  {func(l []string) []string { return without(l, 3) }, []found{{0, 0, 0}}},
		"the last line deleted":           {func(l []string) []string { return l[:10] }, []found{{10, 12, 12}}},
		"a line doubled":                  {func(l []string) []string { return slices.Insert(l, 7, l[7]) }, []found{{8, 0, 0}}},
		"lines swapped":                   {func(l []string) []string { l[7], l[8] = l[8], l[7]; return l }, []found{{7, 10, 10}, {8, 0, 0}}},
		"a blank line":                    {func(l []string) []string { return slices.Insert(l, 7, "\n") }, []found{{7, 0, 0}}},
		"a header inside":                 {func(l []string) []string { return slices.Insert(l, 7, l[0]) }, []found{{7, 0, 0}}},
		"a mark inside what is damaged":   {func(l []string) []string { l[5] = broken(l[5]); return slices.Insert(l, 6, l[3]) }, []found{{5, 8, 8}}},
		"a mark inside a commit":          {func(l []string) []string { return slices.Insert(l, 5, l[3]) }, []found{{5, 0, 0}}},
	} {
		t.Run(why, func(t *testing.T) {
			require.Equal(t, c.want, problemsOf(t, c.change))
		})
	}
}

// The footer and the file agree with each other, but not with MANIFEST: an older
// copy of the file, say.
func TestASegmentThatManifestDoesNotKnowIsReported(t *testing.T) {
	text, f := sealed(5, 12, whole()...)
	for why, change := range map[string]func(f *Footer){
		"first":   func(f *Footer) { f.First-- },
		"last":    func(f *Footer) { f.Last++ },
		"records": func(f *Footer) { f.Records++ },
		"bytes":   func(f *Footer) { f.Bytes++ },
		"crc":     func(f *Footer) { f.CRC ^= 1 },
	} {
		want := f
		change(&want)
		problems := check(t, text, want)
		require.NotEmpty(t, problems, why)
		require.Contains(t, problems[len(problems)-1].Reason, "MANIFEST", why)
	}
	// And the sums of a file whose every line is right, and whose footer is too.
	before := concat(whole()...)
	for why, change := range map[string]func(f *Footer){
		"first":   func(f *Footer) { f.First-- },
		"last":    func(f *Footer) { f.Last++ },
		"records": func(f *Footer) { f.Records++ },
		"bytes":   func(f *Footer) { f.Bytes++ },
		"crc":     func(f *Footer) { f.CRC ^= 1 },
	} {
		want := f
		change(&want)
		require.NotEmpty(t, check(t, before+footerLine(want), want), why)
	}
}

func TestASegmentOfSomebodyElseIsReportedAsAWhole(t *testing.T) {
	for why, h := range map[string]string{
		"another store":  string(recomputed([]byte(strings.Replace(header(2, 5), ours, theirs, 1)))),
		"another number": header(3, 5),
		"no header":      rec(5),
	} {
		text, f := sealed(5, 6, h, rec(5), rec(6))
		problems := check(t, text, f)
		require.Len(t, problems, 1, why)
		require.Equal(t, []any{int64(0), uint64(5), uint64(6)}, []any{problems[0].Offset, problems[0].FirstSeq, problems[0].LastSeq})
	}
	text, f := sealed(5, 5, line(`{"annals":2}`), rec(5))
	_, err := CheckSealed(strings.NewReader(text), int64(len(text)), "2.log", ours, f, nil)
	require.ErrorIs(t, err, ErrNewerFormat)
}

func TestAFooterIsTheLastLine(t *testing.T) {
	before := concat(whole()[:2]...)
	early := footerLine(footerOf(2, 5, 5, 1, before))
	for _, text := range []string{
		before + early + early,
		before + early + rec(6),
		concat(header(2, 5), recMore(5)) + early, // a commit that does not end
	} {
		want := footerOf(2, 5, 5, 1, before)
		require.NotEmpty(t, check(t, text, want))
	}
}

// What is behind the footer is a problem of its own, also where the line before
// the footer is another.
func TestLinesBehindTheFooterAreReported(t *testing.T) {
	text, f := sealed(5, 12, whole()...)
	lines := whole()
	lines[10] = broken(lines[10])
	for why, c := range map[string]struct {
		text    string
		offsets []int
	}{
		"behind a whole segment":   {text + rec(13) + rec(14), []int{len(text)}},
		"behind a damaged segment": {concat(lines...) + footerLine(f) + rec(13), []int{len(concat(lines[:10]...)), len(text)}},
	} {
		problems := check(t, c.text, f)
		var offsets []int
		for _, e := range problems {
			offsets = append(offsets, int(e.Offset))
		}
		require.Equal(t, c.offsets, offsets, why)
		require.Equal(t, errAfter.Error(), problems[len(problems)-1].Reason, why)
	}
}

// A file that was cut tells where, and which records are gone.
func TestWhatACutSegmentHasLostIsSaid(t *testing.T) {
	_, f := sealed(5, 12, whole()...)
	for n, c := range map[int]struct {
		line        int
		first, last uint64
	}{8: {8, 11, 12}, 1: {1, 5, 12}, 11: {11, 0, 0}} {
		cut := concat(whole()[:n]...)
		problems := check(t, cut, f)
		require.Len(t, problems, 1, "%d lines", n)
		require.EqualValues(t, len(cut), problems[0].Offset)
		require.Contains(t, problems[0].Reason, "footer is missing")
		require.Equal(t, []uint64{c.first, c.last}, []uint64{problems[0].FirstSeq, problems[0].LastSeq}, "%d lines", n)
	}
}

func TestACommitIsWholeAtTheEndOfASegment(t *testing.T) {
	text, f := sealed(5, 6, header(2, 5), rec(5), recMore(6))
	problems := check(t, text, f)
	require.Len(t, problems, 1)
	require.Equal(t, errInCommit.Error(), problems[0].Reason)
}

func TestARecoveredCopyIsCheckedLikeAFirstWritten(t *testing.T) {
	h := line(`{"annals":1,` + id + `,"segment":2,"first":5,"from":[1]}`)
	text, f := sealed(5, 7, h, rec(5), rec(6), rec(7))
	require.Empty(t, check(t, text, f))
	text, f = sealed(5, 7, h, rec(5), rec(7))
	require.NotEmpty(t, check(t, text, f))
}

func TestCompactedSegmentsHaveAnOrder(t *testing.T) {
	escaped := line(`{"seq":4,"key":"\n","val":0}`)
	binary := line(`{"seq":3,"k64":"/w==","val":0}`)
	dur := line(`{"seq":8,"dur":7,"more":true,"key":"z","val":0}`) // its dur and more mean nothing
	for why, c := range map[string]struct {
		order Order
		lines []string
		bad   []int
	}{
		"keys in order":              {ByKey, []string{named(9, ""), escaped, named(5, `\"`), named(7, "a"), named(2, "aa"), named(1, "b"), dur, binary}, nil},
		"a key with all its lines":   {ByKey, []string{named(3, "a"), named(7, "a"), named(9, "a")}, nil},
		"a key out of order":         {ByKey, []string{named(1, "b"), named(2, "a")}, []int{2}},
		"decoded names are ordered":  {ByKey, []string{named(1, "!"), line(`{"seq":2,"key":"\n","val":0}`)}, []int{2}},
		"a key's lines swapped":      {ByKey, []string{named(7, "a"), named(3, "a")}, []int{2}},
		"a line twice":               {ByKey, []string{named(7, "a"), named(7, "a")}, []int{2}},
		"a sample among keys":        {ByKey, []string{named(7, "a"), sample(8)}, []int{2}},
		"a mark among keys":          {ByKey, []string{named(7, "a"), mark(6)}, []int{2}},
		"samples in order":           {BySeq, []string{sample(2), sample(7), sample(9)}, nil},
		"samples swapped":            {BySeq, []string{sample(2), sample(9), sample(7)}, []int{3}},
		"a sample twice":             {BySeq, []string{sample(2), sample(2)}, []int{2}},
		"a key among samples":        {BySeq, []string{sample(2), rec(3)}, []int{2}},
		"bad lines cost we know not": {BySeq, []string{sample(2), broken(sample(3)), sample(4), broken(sample(5))}, []int{2, 4}},
	} {
		t.Run(why, func(t *testing.T) {
			lines := append([]string{compactedHeader(2, c.order)}, c.lines...)
			before := concat(lines...)
			f := footerOf(2, MaxSeq, 0, 0, before)
			for _, l := range c.lines {
				if v, err := DecodeLine([]byte(l)); err == nil {
					f.Records++
					f.First, f.Last = min(f.First, v.Seq), max(f.Last, v.Seq)
				}
			}
			problems := check(t, before+footerLine(f), f)
			var got []int
			for _, e := range problems {
				got = append(got, strings.Count(before[:e.Offset], "\n"))
				require.Zero(t, e.FirstSeq)
			}
			require.Equal(t, c.bad, got, "%v", problems)
		})
	}
}

func TestACompactedSegmentsSumsAreChecked(t *testing.T) {
	lines := []string{compactedHeader(2, ByKey), named(9, "a"), named(2, "b"), named(5, "c")}
	before := concat(lines...)
	f := footerOf(2, 2, 9, 3, before)
	require.Empty(t, check(t, before+footerLine(f), f))
	for i := 1; i < len(lines); i++ { // a lost line leaves no gap to notice
		before := concat(without(lines, i)...)
		require.NotEmpty(t, check(t, before+footerLine(f), f))
	}
	for _, f := range []Footer{footerOf(2, 1, 9, 3, before), footerOf(2, 2, 8, 3, before), footerOf(2, 2, 9, 4, before)} {
		require.NotEmpty(t, check(t, before+footerLine(f), f))
	}
}

func TestAReportHasAnEnd(t *testing.T) {
	lines := []string{header(2, 1)}
	for seq := uint64(1); seq <= 3*maxProblems; seq += 2 {
		lines = append(lines, rec(seq), "junk\n")
	}
	text, f := sealed(1, 3*maxProblems, lines...)
	problems := check(t, text, f)
	require.Len(t, problems, maxProblems)
	require.Contains(t, problems[maxProblems-1].Reason, fmt.Sprintf("more than %d problems", maxProblems))
	require.NotContains(t, problems[maxProblems-2].Reason, "more than")
}

// Damage that keeps every line's checksum right: lines from anywhere, in any
// order. The sums notice it.
func TestShuffledLinesAreReported(t *testing.T) {
	text, f := sealed(5, 12, whole()...)
	lines := whole()
	r := rand.New(rand.NewPCG(5, 5))
	for range 5_000 {
		changed := slices.Clone(lines)
		for range 1 + r.IntN(3) {
			i, j := 1+r.IntN(len(changed)-1), 1+r.IntN(len(changed)-1)
			switch r.IntN(3) {
			case 0:
				changed[i], changed[j] = changed[j], changed[i]
			case 1:
				changed = slices.Insert(changed, i, changed[j])
			default:
				changed = without(changed, i)
			}
			if len(changed) < 3 {
				break
			}
		}
		now := concat(changed...) + footerLine(f)
		require.Equal(t, now != text, len(check(t, now, f)) > 0, "%q", now)
	}
}
