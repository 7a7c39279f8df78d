package segment

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// inside returns the whole lines inside text as Inside gives them.
func inside(t testing.TB, text string) (found []string) {
	t.Helper()
	l := Line{Offset: 1000, Bytes: []byte(text), Size: int64(len(text))}
	require.NoError(t, l.Inside(func(in *Line) error {
		require.NotEqual(t, BadLine, in.Kind)
		at := in.Offset - 1000
		require.Equal(t, text[at:at+in.Size], string(in.Bytes))
		found = append(found, string(in.Bytes))
		return nil
	}))
	return found
}

// slowInside tries every pair of a { and a space.
func slowInside(text string) (found []string) {
	for s := 0; s < len(text); s++ {
		for e := s; text[s] == '{' && e+crcSize-1 <= len(text); e++ {
			if text[e] != ' ' || fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text[s:e]))) != text[e+1:e+crcSize-1] {
				continue
			}
			var l Line
			if object, err := checkLine([]byte(text[s : e+crcSize-1])); err == nil && l.decode(object) == nil {
				found = append(found, text[s:e+crcSize-1])
				s = e + crcSize - 2
				break
			}
		}
	}
	return found
}

func cut(l string) string { return strings.TrimSuffix(l, "\n") }

func TestWholeLinesInsideABadOne(t *testing.T) {
	torn := `{"seq":7,"key":"a","va`
	a, b := cut(rec(8)), cut(recMore(9))
	nested := cut(line(`{"seq":5,"key":"k","val":[{"seq":4,"x":"} 12345678"},{"seq":3}]}`))
	for text, want := range map[string][]string{
		torn + a + "\n":                {a},
		torn + a:                       {a},
		a + torn + "\n":                {a},
		a + b + "\n":                   {a, b},
		a + "\x0b" + b + "\n":          {a, b},
		a + "J" + torn + b + a:         {a, b, a},
		"\x00\x00" + a:                 {a},
		torn + nested + "x":            {nested},
		torn + broken(a) + b:           {b},
		header(1, 1)[:80] + b:          {b},
		cut(header(1, 1)) + "\x0b" + b: {cut(header(1, 1)), b},
		torn + cut(mark(4)) + cut(footerLine(footerOf(2, 5, 5, 1, "x"))): {cut(mark(4)), cut(footerLine(footerOf(2, 5, 5, 1, "x")))},
		torn:                           nil,
		"":                             nil,
		"\n":                           nil,
		a[:len(a)-1]:                   nil,
		"} 00000000":                   nil,
		broken(a):                      nil,
		`{"seq":` + strings.ToUpper(a): nil,
		torn + cut(line(`{"seq":0,"key":"k","val":1}`)): nil, // right checksum, no record
	} {
		require.Equal(t, want, inside(t, text), "%q", text)
	}
}

// A value that is a line itself, in a line that is damaged before it, is no line:
// its checksum would have to be that of the outer one.
func TestAValueIsNotTakenForALine(t *testing.T) {
	inner := `{"seq":4,"key":"k","val":1}`
	outer := cut(line(`{"seq":9,"key":"k","val":` + inner + `}`))
	require.Empty(t, inside(t, "x"+broken(outer)))
	require.Equal(t, []string{outer}, inside(t, "x"+outer))
}

func TestInsideFindsWhatTryingAllPairsFinds(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	pieces := []string{cut(rec(1)), cut(recDur(2, 1)), cut(mark(3)), cut(header(4, 5)), cut(sample(6)), `{"seq":`, `} 00000000`, "\x00", "x", `{"`, "} "}
	for range 3000 {
		var text strings.Builder
		for range rng.IntN(8) {
			p := pieces[rng.IntN(len(pieces))]
			if rng.IntN(3) == 0 {
				p = p[rng.IntN(len(p)+1):]
			}
			if rng.IntN(3) == 0 {
				p = p[:rng.IntN(len(p)+1)]
			}
			text.WriteString(p)
		}
		require.Equal(t, slowInside(text.String()), inside(t, text.String()), "seed %d: %q", seed, text.String())
	}
}

// A line of nothing but beginnings and ends is read in one pass: were each pair
// tried, these 2 MiB would take hours.
func TestInsideIsLinear(t *testing.T) {
	a := cut(rec(8))
	for _, piece := range []string{`{"seq":1} 0000abcd`, `{"seq":`, `} 0000abcd`, `{"`, `} `, `{`} {
		text := append(bytes.Repeat([]byte(piece), 2<<20/len(piece)), a...)
		l := Line{Bytes: text}
		found := 0
		require.NoError(t, l.Inside(func(in *Line) error {
			found++
			require.Equal(t, a, string(in.Bytes))
			return nil
		}))
		require.Equal(t, 1, found, piece)
	}
}

// holed reads as zeros between two offsets and knows it.
type holed struct {
	begin, end int64
	text       string // behind the hole
	read       *int64
}

func (h holed) ReadAt(p []byte, off int64) (int, error) {
	if *h.read += int64(len(p)); *h.read > 2*MaxLine {
		return 0, errors.New("the hole is read")
	}
	clear(p)
	if end := off + int64(len(p)); end > h.end {
		copy(p[max(h.end-off, 0):], h.text[max(off-h.end, 0):])
	}
	return len(p), nil
}

func (h holed) NextData(off int64) int64 {
	if off >= h.begin && off < h.end {
		return h.end
	}
	return off
}

func TestAHoleInAnEndlessLineIsNotRead(t *testing.T) {
	read := int64(0)
	h := holed{end: 1 << 40, text: "x\n" + rec(1), read: &read}
	s := NewScanner(h, 0, h.end+int64(len(h.text)))
	require.True(t, s.Scan())
	require.Equal(t, BadLine, s.Line().Kind)
	require.EqualValues(t, 1<<40+2, s.Line().Size)
	require.True(t, s.Scan())
	require.Equal(t, RecordLine, s.Line().Kind)
	require.EqualValues(t, 1<<40+2, s.Line().Offset)
	require.False(t, s.Scan())
	require.NoError(t, s.Err())
	require.Less(t, read, int64(MaxLine+2*scanChunk))
}
