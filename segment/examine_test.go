package segment

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// torn is what Examine must find: the good part's end as a number of lines, and
// why it ends there.
type torn struct {
	good    int // lines of the good part, the header included
	last    uint64
	records uint64
	max     uint64
	reason  error // nil: nothing but padding follows
}

const junk = "{\"seq\":6,\"ke\x00\x00\x00\x00 torn\n"

var longTail = strings.Repeat("x", 100_000) // without a newline

func TestExamineFindsTheGoodPart(t *testing.T) {
	pad, much := strings.Repeat("\n", 64<<10), strings.Repeat("\n", 3*scanChunk+7)
	h := header(2, 5)
	for why, c := range map[string]struct {
		lines []string
		want  torn
	}{
		"a new segment":                     {[]string{h}, torn{1, 4, 0, 4, nil}},
		"only padding":                      {[]string{h, pad}, torn{1, 4, 0, 4, nil}},
		"whole":                             {[]string{h, rec(5), recDur(6, 5)}, torn{3, 6, 2, 6, nil}},
		"padding":                           {[]string{h, rec(5), recDur(6, 5), pad}, torn{3, 6, 2, 6, nil}},
		"a mark at the end":                 {[]string{h, rec(5), mark(5), pad}, torn{3, 5, 1, 5, nil}},
		"a mark first":                      {[]string{h, mark(4), rec(5)}, torn{3, 5, 1, 5, nil}},
		"a commit":                          {[]string{h, recMore(5), recMore(6), rec(7), pad}, torn{4, 7, 3, 7, nil}},
		"torn last line":                    {[]string{h, rec(5), rec(6)[:20]}, torn{2, 5, 1, 5, errNoNewline}},
		"torn to its newline":               {[]string{h, rec(5), strings.TrimSuffix(rec(6), "\n")}, torn{2, 5, 1, 5, errNoNewline}},
		"torn first line":                   {[]string{h, rec(5)[:9]}, torn{1, 4, 0, 4, errNoNewline}},
		"a torn line in padding":            {[]string{h, rec(5), rec(6)[:20], pad}, torn{2, 5, 1, 5, errSpacing}},
		"a long tail":                       {[]string{h, rec(5), longTail}, torn{2, 5, 1, 5, errNoNewline}},
		"NULs":                              {[]string{h, rec(5), strings.Repeat("\x00", 4096)}, torn{2, 5, 1, 5, errNoNewline}},
		"a hole, nothing proven":            {[]string{h, rec(5), junk, recDur(7, 5), rec(8)}, torn{2, 5, 1, 8, errSpacing}},
		"a hole, a mark that proves less":   {[]string{h, rec(5), junk, mark(5)}, torn{2, 5, 1, 5, errSpacing}},
		"a hole, no evidence in the lines":  {[]string{h, rec(5), junk, rec(7), rec(8)}, torn{2, 5, 1, 8, errSpacing}},
		"a line is missing":                 {[]string{h, rec(5), rec(7)}, torn{2, 5, 1, 7, errSeq}},
		"a line twice":                      {[]string{h, rec(5), rec(5)}, torn{2, 5, 1, 5, errSeq}},
		"lines swapped":                     {[]string{h, rec(5), rec(7), rec(6), rec(8)}, torn{2, 5, 1, 8, errSeq}},
		"seq before the header's first":     {[]string{h, rec(4), rec(5)}, torn{1, 4, 0, 5, errSeq}},
		"a commit that does not end":        {[]string{h, rec(5), recMore(6), recMore(7)}, torn{2, 5, 1, 7, errInCommit}},
		"a commit that does not end, pad":   {[]string{h, rec(5), recMore(6), pad}, torn{2, 5, 1, 6, errInCommit}},
		"a commit torn inside":              {[]string{h, rec(5), recMore(6), junk, rec(8)}, torn{2, 5, 1, 8, errSpacing}},
		"a mark inside a commit":            {[]string{h, rec(5), recMore(6), mark(5), rec(7)}, torn{2, 5, 1, 7, errInCommit}},
		"a footer inside a commit":          {[]string{h, rec(5), recMore(6), footerLine(footerOf(2, 5, 5, 1, ""))}, torn{2, 5, 1, 6, errInCommit}},
		"data behind a blank line":          {[]string{h, rec(5), "\n", recDur(6, 5)}, torn{2, 5, 1, 6, errBlank}},
		"a mark behind a blank line":        {[]string{h, rec(5), "\n", mark(5)}, torn{2, 5, 1, 5, errBlank}},
		"much padding":                      {[]string{h, rec(5), much}, torn{2, 5, 1, 5, nil}},
		"a record behind much padding":      {[]string{h, rec(5), much, recDur(6, 5)}, torn{2, 5, 1, 6, errBlank}},
		"junk behind padding":               {[]string{h, rec(5), pad, "x"}, torn{2, 5, 1, 5, errBlank}},
		"a second header":                   {[]string{h, rec(5), h, rec(6)}, torn{2, 5, 1, 6, errUnexpected}},
		"a header of a newer format inside": {[]string{h, rec(5), line(`{"annals":2}`), rec(6)}, torn{2, 5, 1, 6, ErrNewerFormat}},
		"the tail names numbers by dur":     {[]string{h, rec(5), junk, recDur(9, 5), junk, rec(20)}, torn{2, 5, 1, 20, errSpacing}},
	} {
		t.Run(why, func(t *testing.T) {
			text := concat(c.lines...)
			v, err := examine(text)
			require.NoError(t, err)
			end := int64(len(concat(c.lines[:c.want.good]...)))
			require.Equal(t, []any{end, c.want.last, c.want.records, c.want.max}, []any{v.End, v.Last, v.Records, v.MaxSeq})
			require.Equal(t, Header{Store: ours, Segment: 2, First: 5}, v.Header)
			if c.want.reason == nil {
				require.Nil(t, v.Tail)
				return
			}
			require.NotNil(t, v.Tail)
			require.Equal(t, end, v.Tail.Offset)
			require.Equal(t, int64(len(text))-end, v.Tail.Bytes)
			require.Contains(t, v.Tail.Reason, c.want.reason.Error())
		})
	}
}

func TestExamineRefusesWhatHadBeenDurable(t *testing.T) {
	h := header(2, 5)
	for why, c := range map[string]struct {
		lines       []string
		bad         int // the first bad line
		first, last uint64
	}{
		"a hole, a later batch proves it":      {[]string{h, rec(5), junk, recDur(7, 6)}, 2, 6, 6},
		"a hole, a later mark proves it":       {[]string{h, rec(5), junk, mark(6)}, 2, 6, 6},
		"a hole, a footer proves it":           {[]string{h, rec(5), junk, footerLine(footerOf(2, 5, 6, 2, ""))}, 2, 6, 6},
		"a hole, proven far behind":            {[]string{h, rec(5), junk, rec(7), junk, "\n", junk, recDur(12, 11), junk}, 2, 6, 11},
		"the greatest evidence counts":         {[]string{h, rec(5), junk, recDur(12, 11), recDur(13, 8)}, 2, 6, 11},
		"everything is bad, a mark proves it":  {[]string{h, junk, mark(9)}, 1, 5, 9},
		"a missing line":                       {[]string{h, rec(5), recDur(7, 6)}, 2, 6, 6},
		"a missing line before a mark":         {[]string{h, rec(5), mark(6)}, 2, 6, 6},
		"all lines missing before a mark":      {[]string{h, mark(6)}, 1, 5, 6},
		"a line turned blank":                  {[]string{h, rec(5), "\n", recDur(7, 6)}, 2, 6, 6},
		"several lines turned blank":           {[]string{h, rec(5), "\n", "\n", recDur(8, 7)}, 2, 6, 7},
		"a commit's end damaged":               {[]string{h, rec(5), recMore(6), junk, mark(7)}, 3, 6, 7},
		"a commit's middle damaged":            {[]string{h, recMore(5), junk, rec(7), recDur(8, 7)}, 2, 5, 7},
		"a commit lost, inside the next":       {[]string{h, recMore(5), junk, line(`{"seq":7,"dur":6,"more":true,"key":"k","val":1}`)}, 2, 5, 6},
		"a mark inside a commit":               {[]string{h, recMore(5), mark(5), rec(6)}, 2, 5, 5},
		"a NUL in a record":                    {[]string{h, rec(5), strings.Replace(rec(6), "k", "\x00", 1), recDur(7, 6)}, 2, 6, 6},
		"a footer inside a commit":             {[]string{h, recMore(5), footerLine(footerOf(2, 5, 5, 1, h))}, 2, 5, 5},
		"records behind a damaged footer line": {[]string{h, rec(5), strings.Replace(footerLine(footerOf(2, 5, 5, 1, h+rec(5))), "sealed", "Sealed", 1), recDur(7, 6)}, 2, 6, 6},
	} {
		t.Run(why, func(t *testing.T) {
			v, err := examine(concat(c.lines...))
			require.ErrorIs(t, err, ErrCorrupt)
			require.Equal(t, Verdict{}, v)
			e := err.(*CorruptError)
			require.EqualValues(t, len(concat(c.lines[:c.bad]...)), e.Offset)
			require.Equal(t, []any{"2.log", c.first, c.last}, []any{e.Path, e.FirstSeq, e.LastSeq})
			require.Contains(t, e.Reason, "durable")
		})
	}
}

// A commit that breaks off, whose own line is the evidence that an earlier one
// is lost, can't come from our writer; it must still not be taken for a tail.
func TestEvidenceInAnUnfinishedCommitCounts(t *testing.T) {
	text := header(2, 5) + line(`{"seq":5,"dur":7,"more":true,"key":"k","val":1}`)
	_, err := examine(text)
	require.ErrorIs(t, err, ErrCorrupt)
	require.EqualValues(t, len(header(2, 5)), err.(*CorruptError).Offset)
	require.EqualValues(t, 7, err.(*CorruptError).LastSeq)
}

// A crash between a seal and the MANIFEST that lists it.
func TestExamineTakesASealedSegment(t *testing.T) {
	body := concat(header(2, 5), rec(5), recDur(6, 5), mark(6))
	text := body + footerLine(footerOf(2, 5, 6, 2, body))
	for _, padding := range []string{"", "\n", strings.Repeat("\n", 5000)} { // that it was cut may not have reached the disk
		v, err := examine(text + padding)
		require.NoError(t, err)
		require.Nil(t, v.Tail)
		require.Equal(t, []any{int64(len(text)), uint64(6), uint64(2)}, []any{v.End, v.Last, v.Records})
	}
	for why, behind := range map[string]string{"a record": rec(7), "a footer": text[len(body):], "junk": "junk", "padding and junk": "\n\njunk\n", "padding and a record": "\n" + rec(7)} {
		v, err := examine(text + behind)
		require.NoError(t, err, why)
		require.Equal(t, &Tail{Offset: int64(len(text)), Bytes: int64(len(behind)), Reason: errAfter.Error()}, v.Tail, why)
		require.EqualValues(t, 6, v.Last)
	}
	for n := len(body) + 1; n < len(text); n++ { // a torn footer is a tail as any other
		v, err := examine(text[:n])
		require.NoError(t, err)
		require.EqualValues(t, len(body), v.Tail.Offset)
	}
	_, err := examine(text + recDur(9, 8))
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestExamineRefusesAFooterThatContradicts(t *testing.T) {
	body := concat(header(2, 5), rec(5), recDur(6, 5))
	good := footerOf(2, 5, 6, 2, body)
	for why, change := range map[string]func(f *Footer){
		"number":  func(f *Footer) { f.Segment++ },
		"first":   func(f *Footer) { f.First-- },
		"last":    func(f *Footer) { f.Last++ },
		"last-":   func(f *Footer) { f.Last-- },
		"records": func(f *Footer) { f.Records++ },
		"bytes":   func(f *Footer) { f.Bytes++ },
		"crc":     func(f *Footer) { f.CRC ^= 1 },
	} {
		f := good
		change(&f)
		_, err := examine(body + footerLine(f))
		require.ErrorIs(t, err, ErrCorrupt, why)
		require.EqualValues(t, len(body), err.(*CorruptError).Offset)
	}
}

func TestExamineRefusesAStrangersHeader(t *testing.T) {
	for why, text := range map[string]string{
		"another store":   strings.Replace(header(2, 1), ours, theirs, 1),
		"another segment": header(3, 1),
		"compacted":       compactedHeader(2, ByKey),
		"a copy":          line(`{"annals":1,` + id + `,"segment":2,"first":1,"from":[1]}`),
		"no header":       rec(1),
		"nothing":         "",
		"torn":            header(2, 1)[:50],
		"bad checksum":    strings.Replace(header(2, 1), `"first":1`, `"first":3`, 1),
	} {
		_, err := examine(recomputedIf(why == "another store", text) + rec(1))
		require.ErrorIs(t, err, ErrCorrupt, why)
		require.Zero(t, err.(*CorruptError).Offset, why)
	}
	_, err := examine(line(`{"annals":2,"x":1}`) + rec(1))
	require.ErrorIs(t, err, ErrNewerFormat)
	require.NotErrorIs(t, err, ErrCorrupt)
}

func recomputedIf(yes bool, text string) string {
	if yes {
		return string(recomputed([]byte(text)))
	}
	return text
}

func markAt(dur uint64, now string) string {
	return line(`{"dur":` + string('0'+byte(dur)) + `,"now":` + now + `}`)
}

func TestTheClockIsTheGreatestMarkOfAll(t *testing.T) {
	h := header(2, 5)
	for why, c := range map[string]struct {
		lines []string
		clock int64
	}{
		"none":                        {[]string{h, rec(5)}, 0},
		"the last":                    {[]string{h, rec(5), markAt(5, "1.000000"), rec(6), markAt(6, "2.000000")}, 2e6},
		"not the last":                {[]string{h, rec(5), markAt(5, "9.000000"), rec(6), markAt(6, "2.000000")}, 9e6},
		"in the tail":                 {[]string{h, rec(5), junk, markAt(5, "7.500000")}, 7500000},
		"a sample's time is no clock": {[]string{h, line(`{"seq":5,"ser":"s","at":9.000000,"val":1}`)}, 0},
		"an expiry is no clock":       {[]string{h, line(`{"seq":5,"key":"k","exp":9.000000,"val":1}`)}, 0},
	} {
		v, err := examine(concat(c.lines...))
		require.NoError(t, err, why)
		require.Equal(t, c.clock, v.Clock, why)
	}
}

// A crash can leave any prefix of the file. What was whole and in order stays,
// and never more.
func TestEveryPrefixOfALogIsALegalCrash(t *testing.T) {
	lines := []string{header(2, 5), recDur(5, 4), recMore(6), rec(7), mark(7), recDur(8, 7), rec(9)}
	ends := map[int]uint64{1: 4, 2: 5, 4: 7, 5: 7, 6: 8, 7: 9} // after so many lines: the last seq
	text := concat(lines...)
	for n := len(lines[0]); n <= len(text); n++ {
		v, err := examine(text[:n])
		require.NoError(t, err, "%d bytes", n)
		want, whole := uint64(0), 0
		for k, last := range ends {
			if len(concat(lines[:k]...)) <= n && k > whole {
				want, whole = last, k
			}
		}
		require.Equal(t, want, v.Last, "%d bytes", n)
		require.EqualValues(t, len(concat(lines[:whole]...)), v.End)
		require.Equal(t, v.End < int64(n), v.Tail != nil, "%d bytes", n)
	}
}

// Taking the good part for the file gives the same good part and no tail.
func requireStable(t testing.TB, text string) {
	t.Helper()
	v, err := examine(text)
	if err != nil {
		return
	}
	again, err := examine(text[:v.End])
	require.NoError(t, err)
	require.Nil(t, again.Tail)
	require.Equal(t, []any{v.Header, v.Records, v.Last, v.End}, []any{again.Header, again.Records, again.Last, again.End})
}

// Damage to one byte: the good part before it stays, or all is refused because
// a later line proves the loss. Nothing else may be lost, nothing changed.
func TestEveryByteOfAnOpenSegmentMayBeDamaged(t *testing.T) {
	lines := []string{header(2, 5), rec(5), recDur(6, 5), recDur(7, 6), recMore(8), rec(9), mark(9), recDur(10, 9), rec(11)}
	text := concat(lines...)
	const proven = 9 // by the mark and by record 10
	for i := range text {
		for _, flip := range []byte{1, 0x20, 0x80, text[i] ^ '\n'} {
			if flip == 0 {
				continue // a newline that stays one
			}
			damaged := text[:i] + string([]byte{text[i] ^ flip}) + text[i+1:]
			v, err := examine(damaged)
			requireStable(t, damaged)
			if err != nil {
				require.ErrorIs(t, err, ErrCorrupt)
				continue
			}
			require.GreaterOrEqual(t, v.Last, uint64(proven), "byte %d ^ %#x", i, flip)
			require.True(t, strings.HasPrefix(text, damaged[:v.End]), "byte %d ^ %#x", i, flip)
		}
	}
}

// What a file claims must not make us allocate, and what it holds only by a
// chunk at a time.
func TestJudgingASegmentTakesLittleMemory(t *testing.T) {
	var b strings.Builder
	b.WriteString(header(2, 1))
	seq := uint64(1)
	for ; b.Len() < 3<<20; seq++ {
		b.WriteString(recDur(seq, seq-1))
	}
	text := b.String()
	f := footerOf(2, 1, seq-1, seq-1, text)
	whole, torn := text+footerLine(f), text+strings.Repeat("x", 200_000)
	for why, fn := range map[string]func(){
		"examine":       func() { _, _ = examine(whole) },
		"examine, torn": func() { _, _ = examine(torn) },
		"check":         func() { _, _ = CheckSealed(strings.NewReader(whole), int64(len(whole)), "f", ours, f, nil) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		fn()
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(3<<19), why)
	}
}
