package segment

import (
	"bytes"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeaderFooterAndMarkAreSpelledAsDrawn(t *testing.T) {
	for want, got := range map[string][]byte{
		goodObjects[HeaderLine][0]: (&Header{Store: ours, Segment: 2, First: 8193}).AppendLine(nil),
		goodObjects[HeaderLine][1]: (&Header{Store: ours, Segment: 5, First: 8193, From: []uint64{4}}).AppendLine(nil),
		goodObjects[HeaderLine][3]: (&Header{Store: ours, Segment: 9, From: []uint64{1, 2}, Order: ByKey}).AppendLine(nil),
		goodObjects[HeaderLine][4]: (&Header{Store: ours, Segment: 9, From: []uint64{1}, Order: BySeq}).AppendLine(nil),
		goodObjects[MarkLine][0]:   (&Mark{Dur: 8, Now: 1732284001e6}).AppendLine(nil),
		goodObjects[FooterLine][0]: (&Footer{Segment: 2, First: 8193, Last: 16384, Records: 8192, Bytes: 1 << 20, CRC: 0x9a0b1c2d}).AppendLine(nil),
	} {
		require.Equal(t, line(want), string(got))
	}
}

// These lines have one spelling each: what is accepted is what would be written.
func TestHeaderFooterAndMarkHaveOneSpelling(t *testing.T) {
	for _, kind := range []LineKind{HeaderLine, MarkLine, FooterLine} {
		for _, o := range goodObjects[kind] {
			requireOneSpelling(t, scanOne(t, line(o)))
		}
	}
	f := Footer{Segment: 2, First: 8193, Last: 16384, Records: 8192, Bytes: 1 << 20, CRC: 0x9a0b1c2d}
	require.EqualValues(t, f.Bytes+int64(len(f.AppendLine(nil))), f.Size())
}

func requireOneSpelling(t testing.TB, l *Line) {
	t.Helper()
	var again []byte
	switch l.Kind {
	case HeaderLine:
		again = l.Header.AppendLine(nil)
	case MarkLine:
		again = l.Mark.AppendLine(nil)
	case FooterLine:
		again = l.Footer.AppendLine(nil)
	default:
		return
	}
	require.Equal(t, string(l.Bytes), string(again))
}

func TestWhatAHeaderTells(t *testing.T) {
	written := Header{Segment: 5, First: 1, From: []uint64{4}}
	keys := Header{Segment: 9, From: []uint64{1, 2}, Order: ByKey}
	samples := Header{Segment: 9, From: []uint64{1, 2}, Order: BySeq}
	require.Equal(t, []bool{false, true, true}, []bool{written.Compacted(), keys.Compacted(), samples.Compacted()})
	require.Equal(t, []bool{true, true, false}, []bool{written.HoldsKeys(), keys.HoldsKeys(), samples.HoldsKeys()})
	require.Equal(t, []bool{true, false, true, false}, []bool{written.MadeFrom(4), written.MadeFrom(5), keys.MadeFrom(2), keys.MadeFrom(9)})
}

func TestASegmentsNameIsItsNumber(t *testing.T) {
	require.Equal(t, "00000000000000000042.log", Name(42))
	for _, n := range []uint64{1, 42, MaxSeq, 1<<63 - 1} {
		got, ok := ParseName(Name(n))
		require.True(t, ok)
		require.Equal(t, n, got)
	}
	for _, name := range []string{"", "1.log", ".log", "00000000000000000000.log", "00000000000000000001", "00000000000000000001.LOG", "00000000000000000001.log ",
		"000000000000000000001.log", "0000000000000000001.log", "+0000000000000000001.log", "-0000000000000000001.log", "0000000000000000000a.log",
		"18446744073709551615.log", "99999999999999999999.log", "0x000000000000000001.log", "0000000000000000_001.log", "00000000000000000001.log.log"} {
		_, ok := ParseName(name)
		require.False(t, ok, "%q", name)
	}
}

// manifest is one with an open segment and two sealed ones.
func manifest() Manifest {
	return Manifest{
		Store: ours, Generation: 7, Open: 4, Next: 5, Seq: 16385, History: 1, Clock: 1732284001e6,
		Sealed: []Footer{
			{Segment: 2, First: 1, Last: 8192, Records: 8192, Bytes: 1 << 20, CRC: 0xabcdef01},
			{Segment: 3, First: 8193, Last: 16384, Records: 8192, Bytes: 1 << 20, CRC: 0x1},
		},
	}
}

const manifestText = `{"annals":1,"store":"` + ours + `","generation":7,"segments":2,"open":4,"next":5,"seq":16385,"history":1,"clock":1732284001.000000}`

func TestManifestIsSpelledAsDrawn(t *testing.T) {
	m := manifest()
	want := line(manifestText) + footerLine(m.Sealed[0]) + footerLine(m.Sealed[1])
	require.Equal(t, want, string(m.Append(nil)))
	got, err := ParseManifest("MANIFEST", []byte(want))
	require.NoError(t, err)
	require.Equal(t, m, got)

	m.Open, m.Sealed = 0, nil // a store that was closed before the first write
	want = line(strings.NewReplacer(`"open":4,`, "", `"segments":2`, `"segments":0`).Replace(manifestText))
	require.Equal(t, want, string(m.Append(nil)))
	got, err = ParseManifest("MANIFEST", []byte(want))
	require.NoError(t, err)
	require.Equal(t, m, got)
}

func TestEveryChangedBitOfAManifestIsRefused(t *testing.T) {
	m := manifest()
	text := m.Append(nil)
	for bit := range len(text) * 8 {
		text[bit/8] ^= 1 << (bit % 8)
		_, err := ParseManifest("MANIFEST", text)
		require.ErrorIs(t, err, ErrCorrupt, "bit %d", bit)
		damage := err.(*CorruptError)
		require.LessOrEqual(t, damage.Offset, int64(bit/8))
		require.Equal(t, "MANIFEST", damage.Path)
		text[bit/8] ^= 1 << (bit % 8)
	}
	for n := range text { // and every other length
		_, err := ParseManifest("MANIFEST", text[:n])
		require.ErrorIs(t, err, ErrCorrupt, "%d bytes", n)
	}
	_, err := ParseManifest("MANIFEST", append(text, '\n'))
	require.ErrorIs(t, err, ErrCorrupt)
}

// Behind the checksum the parser is on its own: what it accepts must be exactly
// what it would write.
func TestAManifestHasOneSpelling(t *testing.T) {
	m := manifest()
	text := m.Append(nil)
	accepted := 0
	for i := range text {
		for _, c := range []byte("\x00\n 019af\"{},:-.é\xff") {
			changed := bytes.Clone(text)
			changed[i] = c
			changed = recomputed(changed)
			got, err := ParseManifest("MANIFEST", changed)
			if err == nil {
				accepted++
				require.Equal(t, string(changed), string(got.Append(nil)))
			}
		}
	}
	require.Greater(t, accepted, 100) // else the checksums were not right
}

func TestManifestsThatContradictThemselves(t *testing.T) {
	for why, change := range map[string]func(*Manifest){
		"numbers not rising":            func(m *Manifest) { m.Sealed[0], m.Sealed[1] = m.Sealed[1], m.Sealed[0] },
		"a segment twice":               func(m *Manifest) { m.Sealed[0] = m.Sealed[1] },
		"open not below next":           func(m *Manifest) { m.Open = m.Next },
		"a sealed segment not below it": func(m *Manifest) { m.Sealed[1].Segment = m.Next },
		"open and sealed":               func(m *Manifest) { m.Open = 3 },
		"a record not below seq":        func(m *Manifest) { m.Seq = 16384 },
		"history above seq":             func(m *Manifest) { m.History = m.Seq + 1 },
		"store missing":                 func(m *Manifest) { m.Store = "" },
		"generation 0":                  func(m *Manifest) { m.Generation = 0 },
		"next 0":                        func(m *Manifest) { m.Next = 0 },
		"history 0":                     func(m *Manifest) { m.History = 0 },
		"clock too far":                 func(m *Manifest) { m.Clock = MaxTime },
		"first above last":              func(m *Manifest) { m.Sealed[1].First = m.Sealed[1].Last + 1 },
	} {
		m := manifest()
		change(&m)
		_, err := ParseManifest("MANIFEST", m.Append(nil))
		require.ErrorIs(t, err, ErrCorrupt, why)
	}
	for why, text := range map[string]string{
		"one segment too few":   string(manifestLines(0, 1)),
		"no segments":           string(manifestLines(0)),
		"one segment too many":  string(append(manifestLines(0, 1, 2), footerLine(Footer{Segment: 4, First: 1, Last: 1, Records: 1})...)),
		"a footer first":        string(manifestLines(1, 0, 2)),
		"no head":               string(manifestLines(1, 2)),
		"a blank line":          "\n" + string(manifestLines(0, 1, 2)),
		"a blank line inside":   string(manifestLines(0, 1)) + "\n" + string(manifestLines(2)),
		"a record among them":   string(manifestLines(0, 1)) + rec(1) + string(manifestLines(2)),
		"a segment's header":    header(2, 1) + string(manifestLines(1, 2)),
		"the head twice":        string(manifestLines(0, 0, 1, 2)),
		"empty":                 "",
		"a newline":             "\n",
		"open 0":                line(strings.Replace(manifestText, `"open":4`, `"open":0`, 1)) + string(manifestLines(1, 2)),
		"next before open":      line(strings.Replace(manifestText, `"open":4,"next":5`, `"next":5,"open":4`, 1)) + string(manifestLines(1, 2)),
		"junk behind the clock": line(strings.Replace(manifestText, `00}`, `00,"x":1}`, 1)) + string(manifestLines(1, 2)),
		"clock of minus zero":   line(strings.Replace(manifestText, `1732284001`, `-0`, 1)) + string(manifestLines(1, 2)),
	} {
		_, err := ParseManifest("MANIFEST", []byte(text))
		require.ErrorIs(t, err, ErrCorrupt, why)
	}
}

// manifestLines are the lines of manifest with these numbers.
func manifestLines(numbers ...int) (text []byte) {
	m := manifest()
	lines := bytes.SplitAfter(m.Append(nil), []byte("\n"))
	for _, n := range numbers {
		text = append(text, lines[n]...)
	}
	return text
}

func TestWhereAManifestIsDamagedIsSaid(t *testing.T) {
	m := manifest()
	text := m.Append(nil)
	second := bytes.IndexByte(text, '\n') + 1
	third := second + bytes.IndexByte(text[second:], '\n') + 1
	for _, c := range []struct{ at, offset int }{{0, 0}, {second - 1, 0}, {second, second}, {third - 1, second}, {third, third}, {len(text) - 1, third}} {
		changed := bytes.Clone(text)
		changed[c.at] ^= 1
		_, err := ParseManifest("MANIFEST", changed)
		require.EqualValues(t, c.offset, err.(*CorruptError).Offset, "change at %d", c.at)
	}
}

// A new store's MANIFEST lists nothing, so no count tells that its end is missing.
func TestAManifestThatIsCutIsRefused(t *testing.T) {
	for _, sealed := range [][]Footer{nil, manifest().Sealed} {
		m := manifest()
		m.Sealed = sealed
		text := m.Append(nil)
		_, err := ParseManifest("MANIFEST", text)
		require.NoError(t, err)
		for n := range text {
			_, err := ParseManifest("MANIFEST", text[:n])
			require.ErrorIs(t, err, ErrCorrupt, "%d bytes of %d", n, len(text))
		}
	}
}

func TestAManifestOfANewerFormatIsToldFromDamage(t *testing.T) {
	_, err := ParseManifest("MANIFEST", []byte(line(`{"annals":2,"anything":true}`)+"of any kind"))
	require.ErrorIs(t, err, ErrNewerFormat)
	require.NotErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, `"MANIFEST"`)
	_, err = ParseManifest("MANIFEST", []byte(`{"annals":2,"anything":true} 00000000`+"\n"))
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestWhatIsLeftOfAManifest(t *testing.T) {
	whole := Manifest{Store: ours, Generation: 7, Open: 9, Next: 10, Seq: 50, History: 3, Clock: 17,
		Sealed: []Footer{footerOf(2, 1, 9, 9, "a"), footerOf(3, 10, 19, 10, "b"), footerOf(5, 20, 29, 10, "c")}}
	text := string(whole.Append(nil))
	lines := strings.SplitAfter(text, "\n")[:4]
	salvage := func(text string) Manifest {
		m, err := SalvageManifest(strings.NewReader(text), int64(len(text)))
		require.NoError(t, err)
		return m
	}
	require.Equal(t, whole, salvage(text))
	require.Equal(t, Manifest{Sealed: whole.Sealed}, salvage(broken(lines[0])+concat(lines[1:]...)))
	without3 := whole
	without3.Sealed = []Footer{whole.Sealed[0], whole.Sealed[2]}
	require.Equal(t, without3, salvage(lines[0]+lines[1]+broken(lines[2])+lines[3]))
	require.Equal(t, whole, salvage(lines[0]+lines[1]+lines[2][:20]+"\n"+cut(lines[2])+lines[3]), "a footer behind a torn line's end")
	require.Equal(t, Manifest{}, salvage("rubbish\n\n"+rec(1)))
	newer := line(`{"annals":2}`)
	_, err := SalvageManifest(strings.NewReader(newer), int64(len(newer)))
	require.ErrorIs(t, err, ErrNewerFormat)
}

// partly is a file that can be read up to an offset.
type partly struct {
	io.ReaderAt
	to int64
}

func (f partly) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.to {
		return 0, syscall.EIO
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestAManifestThatCantBeReadIsNotTakenForDamaged(t *testing.T) {
	m := manifest()
	for n := range uint64(20_000) { // more than is read at a time
		m.Sealed = append(m.Sealed, footerOf(10+n, 1, 2, 2, ""))
	}
	m.Next, m.Open = 1<<20, 0
	text := m.Append(nil)
	got, err := ReadManifest("MANIFEST", bytes.NewReader(text), int64(len(text)))
	require.NoError(t, err)
	require.Equal(t, len(m.Sealed), len(got.Sealed))
	for _, to := range []int64{0, 1 << 20} {
		_, err := ReadManifest("MANIFEST", partly{bytes.NewReader(text), to}, int64(len(text)))
		require.ErrorIs(t, err, syscall.EIO)
		require.NotErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, `"MANIFEST"`)
	}
}
