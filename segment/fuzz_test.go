package segment

import (
	"bytes"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each target runs more than once on an input: as it is, and with its checksums
// made right, since a fuzzer never gets past a checksum by itself.
//
//	go test -fuzz FuzzSegment -fuzztime 60s -fuzzminimizetime 10x ./segment
//
// The limit is there because making an input of many lines smaller takes the
// fuzzer a minute each, in which it finds nothing.

func FuzzJSON(f *testing.F) {
	for _, v := range jsonSeeds {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		require.Equal(t, naiveIsJSON(v), IsJSON(v))
	})
}

// FuzzValue takes any bytes as key and value.
func FuzzValue(f *testing.F) {
	for _, v := range jsonSeeds {
		f.Add(v, []byte(v))
	}
	f.Add("\xff", []byte("\n"))
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		requireRoundTrip(t, Record{Seq: 1, Dur: 0, Kind: Put, Name: name, Value: value, Expires: 1})
		requireRoundTrip(t, Record{Seq: MaxSeq, Dur: 1, More: true, Kind: Delete, Name: name})
	})
}

func FuzzLine(f *testing.F) {
	for _, objects := range goodObjects {
		for _, o := range objects {
			f.Add([]byte(line(o)))
		}
	}
	for _, o := range badObjects {
		f.Add([]byte(line(o)))
	}
	for _, c := range badLines {
		f.Add([]byte(c.line))
	}
	f.Add([]byte(line(manifestText)))
	p := newPageReader(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, raw := range [][]byte{raw, recomputed(raw)} {
			raw, _, found := bytes.Cut(raw, []byte("\n"))
			if found {
				fuzzLine(t, p, append(bytes.Clone(raw), '\n'))
			}
		}
	})
}

func fuzzLine(t *testing.T, p pageReader, raw []byte) {
	require.Equal(t, p.valid(raw), accepted(raw), "FORMAT.md and the decoder differ")
	l := scanOne(t, string(raw))
	v, err := DecodeLine(raw)
	require.Equal(t, err == nil, l.Kind == RecordLine)
	if l.Kind == BadLine || l.Kind == BlankLine {
		return
	}
	object := raw[:len(raw)-crcSize]
	require.Equal(t, line(string(object)), string(raw), "a wrong checksum was accepted")
	requireOneSpelling(t, l)
	if l.Kind != RecordLine {
		return
	}
	rec := v.Record()
	requireRoundTrip(t, rec) // and so what is written again is the writer's spelling
	again := AppendRecord(nil, &rec)
	v, err = DecodeLine(again)
	require.NoError(t, err)
	rec = v.Record()
	require.Equal(t, string(again), string(AppendRecord(nil, &rec)))
}

func FuzzManifest(f *testing.F) {
	m := manifest()
	f.Add(m.Append(nil))
	f.Add(manifestLines(0, 1))
	f.Add(manifestLines(0))
	f.Add([]byte(line(`{"annals":2}`)))
	f.Add(golden(f, goldenManifest))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, recomputed(text)} {
			m, err := ParseManifest("MANIFEST", text)
			if err == nil {
				require.Equal(t, string(text), string(m.Append(nil)))
			}
		}
	})
}

func FuzzSegment(f *testing.F) {
	text, _ := sealed(5, 12, whole()...)
	f.Add([]byte(text))
	for _, name := range []string{goldenWritten, goldenRecovered, goldenByKey, goldenBySeq} {
		f.Add(golden(f, name))
	}
	f.Add(bytes.TrimRight(golden(f, goldenOpen), "\n"))
	f.Add([]byte(concat(header(2, 5), rec(5), junk, recDur(7, 6), mark(7))))
	f.Add([]byte(concat(header(2, 5), recMore(5), mark(5), rec(6), "\n\n")))
	f.Add([]byte(text[:len(text)-9]))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, raw := range [][]byte{raw, recomputed(raw), resealed(raw)} {
			fuzzExamine(t, raw)
			fuzzSealed(t, raw)
		}
	})
}

// resealed makes the checksums of the lines right, and those of the footer in the
// last line.
func resealed(raw []byte) []byte {
	raw = recomputed(raw)
	at := bytes.LastIndexByte(bytes.TrimSuffix(raw, []byte("\n")), '\n') + 1
	l := raw[at:]
	s := NewScanner(bytes.NewReader(l), 0, int64(len(l)))
	if !s.Scan() || s.Line().Kind != FooterLine {
		return raw
	}
	f := s.Line().Footer
	f.Bytes, f.CRC = int64(at), crc32.ChecksumIEEE(raw[:at])
	return append(raw[:at:at], footerLine(f)...)
}

func fuzzExamine(t *testing.T, raw []byte) {
	h, _, err := ReadHeader(bytes.NewReader(raw), int64(len(raw)), "f")
	if err != nil {
		return
	}
	v, err := Examine(bytes.NewReader(raw), int64(len(raw)), "f", h.Store, h.Segment)
	if err != nil {
		require.ErrorIs(t, err, ErrCorrupt)
		return
	}
	require.Equal(t, v.Last-h.First+1, v.Records)
	require.GreaterOrEqual(t, v.MaxSeq, v.Last)
	require.LessOrEqual(t, v.End, int64(len(raw)))
	require.Equal(t, byte('\n'), raw[v.End-1])
	if v.Tail == nil {
		require.Empty(t, bytes.Trim(raw[v.End:], "\n"))
	} else {
		require.Equal(t, []int64{v.End, int64(len(raw)) - v.End}, []int64{v.Tail.Offset, v.Tail.Bytes})
	}
	again, err := Examine(bytes.NewReader(raw[:v.End]), v.End, "f", h.Store, h.Segment)
	require.NoError(t, err)
	require.Nil(t, again.Tail)
	require.Equal(t, []uint64{v.Last, v.Records, uint64(v.End)}, []uint64{again.Last, again.Records, uint64(again.End)})
}

// fuzzSealed takes the last line for the footer in MANIFEST and compares with the
// rule as plainly as it can be written.
func fuzzSealed(t *testing.T, raw []byte) {
	lines := bytes.SplitAfter(raw, []byte("\n"))
	if len(lines) < 2 {
		return
	}
	s := NewScanner(bytes.NewReader(lines[len(lines)-2]), 0, int64(len(lines[len(lines)-2])))
	h, _, err := ReadHeader(bytes.NewReader(raw), int64(len(raw)), "f")
	if err != nil || !s.Scan() || s.Line().Kind != FooterLine || s.Line().Footer.Segment != h.Segment {
		return
	}
	want := s.Line().Footer
	visited := uint64(0)
	problems, err := CheckSealed(bytes.NewReader(raw), int64(len(raw)), "f", h.Store, want, func(*Line) error { visited++; return nil })
	require.NoError(t, err)
	require.Equal(t, naiveSealed(lines, h, want), len(problems) == 0, "%v", problems)
	for _, p := range problems {
		require.LessOrEqual(t, p.Offset, int64(len(raw)))
	}
	if len(problems) == 0 {
		require.Equal(t, want.Records, visited)
	}
}

// naiveSealed is the rule for sealed segments: lines, the last of them empty
// because the file ends in a newline.
func naiveSealed(lines [][]byte, h Header, want Footer) bool {
	n := len(lines)
	before := bytes.Join(lines[:n-2], nil)
	if len(lines[n-1]) != 0 || int64(len(before)) != want.Bytes || crc32.ChecksumIEEE(before) != want.CRC {
		return false
	}
	var seqs []uint64
	var names []string
	inCommit := false
	for _, l := range lines[1 : n-2] {
		v, err := DecodeLine(l)
		if err != nil {
			s := NewScanner(bytes.NewReader(l), 0, int64(len(l)))
			if s.Scan() && s.Line().Kind == MarkLine && !inCommit && !h.Compacted() {
				continue
			}
			return false
		}
		if h.Compacted() && (v.Kind == Sample) != (h.Order == BySeq) {
			return false
		}
		seqs, names = append(seqs, v.Seq), append(names, v.Name())
		inCommit = v.More && !h.Compacted()
	}
	return !inCommit && uint64(len(seqs)) == want.Records && naiveOrder(h, want, seqs, names)
}

func naiveOrder(h Header, want Footer, seqs []uint64, names []string) bool {
	least, greatest := seqs[0], seqs[0]
	for i, seq := range seqs {
		least, greatest = min(least, seq), max(greatest, seq)
		switch {
		case h.Order == Written && seq != h.First+uint64(i):
			return false
		case i == 0:
		case h.Order == BySeq && seq <= seqs[i-1]:
			return false
		case h.Order == ByKey && (names[i] < names[i-1] || names[i] == names[i-1] && seq <= seqs[i-1]):
			return false
		}
	}
	return least == want.First && greatest == want.Last
}
