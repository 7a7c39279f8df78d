package segment

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// scanned is what a test compares of a line.
type scanned struct {
	kind         LineKind
	offset, size int64
}

func scanAll(t testing.TB, s *Scanner) (all []scanned) {
	t.Helper()
	for s.Scan() {
		l := s.Line()
		all = append(all, scanned{l.Kind, l.Offset, l.Size})
		require.Equal(t, l.Offset+l.Size, l.End())
	}
	require.NoError(t, s.Err())
	require.False(t, s.Scan(), "the end stays the end")
	return all
}

func TestEveryKindOfLineIsTold(t *testing.T) {
	text := concat(header(2, 1), rec(1), "\n", "junk\n", mark(1), footerLine(footerOf(2, 1, 1, 1, "")), "end")
	var got []LineKind
	var at int64
	for _, l := range scanAll(t, NewScanner(strings.NewReader(text), 0, int64(len(text)))) {
		got = append(got, l.kind)
		require.Equal(t, at, l.offset)
		at += l.size
	}
	require.EqualValues(t, len(text), at)
	require.Equal(t, []LineKind{HeaderLine, RecordLine, BlankLine, BadLine, MarkLine, FooterLine, BadLine}, got)
}

func TestAPartOfAFileIsScanned(t *testing.T) {
	text := concat(rec(1), rec(2), rec(3))
	n := int64(len(rec(1)))
	require.Equal(t, []scanned{{RecordLine, n, n}}, scanAll(t, NewScanner(strings.NewReader(text), n, 2*n)))
	require.Equal(t, []scanned{{RecordLine, n, n}, {BadLine, 2 * n, n - 1}}, scanAll(t, NewScanner(strings.NewReader(text), n, 3*n-1)))
	require.Empty(t, scanAll(t, NewScanner(strings.NewReader(text), n, n)))
}

// long is a good line of exactly size bytes.
func long(seq uint64, size int) string {
	r := Record{Seq: seq, Kind: Put, Name: "k"}
	base := len(AppendRecord(nil, &Record{Seq: seq, Kind: Put, Name: "k", Value: []byte("x")})) - 1
	r.Value = bytes.Repeat([]byte("x"), size-base)
	return string(AppendRecord(nil, &r))
}

func TestLinesAroundTheChunksOfReading(t *testing.T) {
	made := map[int]string{}
	line := func(size int) string {
		if made[size] == "" {
			made[size] = long(1, size)
			require.Len(t, made[size], size)
		}
		return made[size]
	}
	require.Equal(t, []scanned{{RecordLine, 0, 5 << 20}, {RecordLine, 5 << 20, 100}}, scanLines(t, line(5<<20), line(100)))
	for d := -3; d <= 3; d++ {
		for _, sizes := range [][]int{{scanChunk + d, 100}, {100, scanChunk + d - 100, 100}, {scanChunk + d, scanChunk, 100}, {2*scanChunk + d, 100, scanChunk}} {
			var lines []string
			var want []scanned
			at := 0
			for _, size := range sizes {
				lines = append(lines, line(size))
				want = append(want, scanned{RecordLine, int64(at), int64(size)})
				at += size
			}
			require.Equal(t, want, scanLines(t, lines...), "%v", sizes)
		}
	}
}

func scanLines(t testing.TB, lines ...string) []scanned {
	t.Helper()
	text := concat(lines...)
	return scanAll(t, NewScanner(strings.NewReader(text), 0, int64(len(text))))
}

// A line points into the buffer; the one read before must not show through.
func TestLinesHoldTheirOwnBytes(t *testing.T) {
	var text strings.Builder
	for seq := uint64(1); seq <= 20_000; seq++ {
		text.WriteString(rec(seq))
	}
	s := NewScanner(strings.NewReader(text.String()), 0, int64(text.Len()))
	for seq := uint64(1); s.Scan(); seq++ {
		require.Equal(t, rec(seq), string(s.Line().Bytes))
		require.Equal(t, seq, s.Line().View.Seq)
		require.Equal(t, len(s.Line().Bytes), cap(s.Line().Bytes), "appending must not reach the next line")
	}
	require.NoError(t, s.Err())
}

// failing reads like the text up to the offset, then fails.
type failing struct {
	text string
	at   int64
	err  error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	n, err := strings.NewReader(f.text).ReadAt(p, off)
	if off+int64(n) > f.at {
		return int(max(f.at-off, 0)), f.err
	}
	return n, err
}

func TestAReadErrorIsNotTheEnd(t *testing.T) {
	eio := errors.New("input/output error")
	text, f := sealed(1, 9, header(2, 1), rec(1), rec(2), rec(3), rec(4), rec(5), rec(6), rec(7), rec(8), rec(9))
	for at := range int64(len(text)) {
		r := failing{text, at, eio}
		s := NewScanner(r, 0, int64(len(text)))
		for s.Scan() {
		}
		require.ErrorIs(t, s.Err(), eio)
		_, _, err := ReadHeader(r, int64(len(text)), "2.log")
		require.ErrorIs(t, err, eio)
		_, err = Examine(r, int64(len(text)), "2.log", ours, 2)
		require.ErrorIs(t, err, eio)
		require.NotErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, `"2.log"`)
		problems, err := CheckSealed(r, int64(len(text)), "2.log", ours, f, nil)
		require.ErrorIs(t, err, eio)
		require.Empty(t, problems)
	}
}

// The same behind the first chunk, where lines were read before.
func TestAReadErrorAfterGoodLines(t *testing.T) {
	eio := errors.New("input/output error")
	text := header(2, 1) + long(1, scanChunk) + recDur(2, 1)
	_, err := Examine(failing{text, scanChunk + 10, eio}, int64(len(text)), "2.log", ours, 2)
	require.ErrorIs(t, err, eio)
	_, err = CheckSealed(failing{text, scanChunk + 10, eio}, int64(len(text)), "2.log", ours, Footer{Segment: 2}, nil)
	require.ErrorIs(t, err, eio)
}

func TestAFileShorterThanClaimedIsNotTheEnd(t *testing.T) {
	text := concat(header(2, 1), rec(1))
	for _, more := range []int64{1, 100, scanChunk, 1 << 40} {
		s := NewScanner(strings.NewReader(text), 0, int64(len(text))+more)
		for s.Scan() {
		}
		require.ErrorIs(t, s.Err(), io.ErrUnexpectedEOF)
		_, err := Examine(strings.NewReader(text), int64(len(text))+more, "2.log", ours, 2)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
}

func TestALastLineWithoutNewlineIsBad(t *testing.T) {
	text := concat(rec(1), rec(2))
	for n := len(rec(1)) + 1; n < len(text); n++ {
		s := NewScanner(strings.NewReader(text[:n]), 0, int64(n))
		require.True(t, s.Scan())
		require.Equal(t, RecordLine, s.Line().Kind)
		require.True(t, s.Scan())
		require.Equal(t, BadLine, s.Line().Kind)
		require.Equal(t, errNoNewline, s.Line().Reason)
		require.False(t, s.Scan())
	}
}

// endless is text at an offset and everywhere else bytes without a newline, made
// as they are read.
type endless struct {
	at   int64
	text string
}

func (e endless) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		switch here := off + int64(n) - e.at; {
		case here < 0:
			n += copy(p[n:min(int64(len(p)), int64(n)-here)], xs[:])
		case here < int64(len(e.text)):
			n += copy(p[n:], e.text[here:])
		default:
			n += copy(p[n:], xs[:])
		}
	}
	return n, nil
}

var xs = [1 << 16]byte{'x'} // the rest is NUL

func TestEndlessLinesAreSkippedInBoundedMemory(t *testing.T) {
	const first, last = 300 << 20, MaxLine + 1
	text := "\n" + rec(1)
	size := first + int64(len(text)) + last
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := NewScanner(endless{first, text}, 0, size)
	var got []scanned
	for s.Scan() {
		l := s.Line()
		got = append(got, scanned{l.Kind, l.Offset, l.Size})
		if l.Kind == BadLine {
			require.Equal(t, errLong, l.Reason)
			require.Nil(t, l.Bytes)
		}
	}
	require.NoError(t, s.Err())
	n := int64(len(rec(1)))
	require.Equal(t, []scanned{{BadLine, 0, first + 1}, {RecordLine, first + 1, n}, {BadLine, first + 1 + n, last}}, got)
	require.LessOrEqual(t, cap(s.buf), MaxLine+scanChunk)
	runtime.ReadMemStats(&after)
	// The buffer doubles, so all that was ever allocated is twice the last one.
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*MaxLine+8<<20))
}

func TestTheHeaderIsTheFirstLine(t *testing.T) {
	text := concat(header(2, 8193), rec(8193))
	h, l, err := ReadHeader(strings.NewReader(text), int64(len(text)), "2.log")
	require.NoError(t, err)
	require.Equal(t, Header{Store: ours, Segment: 2, First: 8193}, h)
	require.EqualValues(t, len(header(2, 8193)), l.End())

	for why, text := range map[string]string{
		"empty": "", "a newline": "\n", "a record": rec(1), "junk": "junk\n", "cut short": header(2, 1)[:40],
		"not the first": "\n" + header(2, 1), "checksum": strings.Replace(header(2, 1), `"first":1`, `"first":2`, 1),
	} {
		_, _, err := ReadHeader(strings.NewReader(text), int64(len(text)), "2.log")
		require.ErrorIs(t, err, ErrCorrupt, why)
		require.Equal(t, "2.log", err.(*CorruptError).Path)
	}
	newer := line(`{"annals":2}`)
	_, _, err = ReadHeader(strings.NewReader(newer), int64(len(newer)), "2.log")
	require.ErrorIs(t, err, ErrNewerFormat)
	require.NotErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, `"2.log"`)
}
