package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/segment"
)

// Native fuzz targets for what needs more than package segment.
//
//	make fuzz
//	go test ./fuzz -run '^$' -fuzz '^FuzzStore$' -fuzztime 60s -fuzzminimizetime 10x -parallel 1

// resummed makes the checksum of each line right that ends in something like one:
// a fuzzer never gets past a checksum by itself. The footers of segments, too, say
// what is true of their file.
func resummed(raw []byte) []byte {
	var now []byte
	for l := range bytes.Lines(raw) {
		object, ended := bytes.CutSuffix(l, []byte("\n"))
		if !ended || len(object) < 10 {
			now = append(now, l...)
			continue
		}
		object = object[:len(object)-9]
		if bytes.HasPrefix(object, []byte(`{"sealed":`)) && len(now) > 0 && !bytes.Contains(now[:bytes.IndexByte(now, '\n')], []byte(`"generation"`)) {
			object = trueFooter(object, now)
		}
		now = fmt.Appendf(now, "%s %08x\n", object, crc32.ChecksumIEEE(object))
	}
	return now
}

// trueFooter makes a footer right for the bytes before it.
func trueFooter(object, before []byte) []byte {
	head, _, found := bytes.Cut(object, []byte(`,"bytes":`))
	if !found {
		return object
	}
	return fmt.Appendf(nil, `%s,"bytes":%d,"crc":"%08x"}`, head, len(before), crc32.ChecksumIEEE(before))
}

// archive is a store's files as one text for the fuzzer: before each a line with
// its name, behind each a newline.
func archive(m storeImage) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "== %s\n%s\n", name, m[name])
	}
	return b.Bytes()
}

// unarchived is what archive made, without files that are no part of a store.
func unarchived(raw []byte) storeImage {
	m := storeImage{}
	name := ""
	for l := range bytes.Lines(raw) {
		if next, ok := bytes.CutPrefix(l, []byte("== ")); ok {
			name = string(bytes.TrimSuffix(next, []byte("\n")))
			m[name] = nil
			continue
		}
		m[name] = append(m[name], l...)
	}
	for name, text := range m {
		if _, isSegment := segment.ParseName(name); isSegment || name == "MANIFEST" {
			m[name] = bytes.TrimSuffix(text, []byte("\n"))
		} else {
			delete(m, name)
		}
	}
	return m
}

// FuzzStore lets the fuzzer write a whole store, with and without right checksums,
// and lists whatever segments there are in MANIFEST as they are. Open must not
// panic or hang; it must do what FORMAT.md says; and Verify and a second Open must
// agree with the first.
func FuzzStore(f *testing.F) {
	for _, m := range fuzzSeeds(f) {
		f.Add(archive(m), false)
		f.Add(archive(m), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, relist bool) {
		m := unarchived(raw)
		fuzzStore(t, m)
		for name := range m {
			m[name] = resummed(m[name])
		}
		if relist {
			m["MANIFEST"] = relisted(m)
		}
		fuzzStore(t, m)
	})
}

// fuzzSeeds are the golden stores.
func fuzzSeeds(f *testing.F) (seeds []storeImage) {
	for _, name := range goldenNames(f) {
		seeds = append(seeds, goldenImage(f, name))
	}
	return seeds
}

// relisted is MANIFEST with the footers that the segments really have.
func relisted(m storeImage) []byte {
	var b []byte
	for l := range bytes.Lines(m["MANIFEST"]) {
		parsed := naiveParse(l)
		if parsed.kind != "footer" {
			b = append(b, l...)
			continue
		}
		lines := naiveLines(m[naiveName(parsed.Sealed)])
		if n := len(lines); n > 0 && lines[n-1].kind == "footer" && lines[n-1].Sealed == parsed.Sealed {
			l = m[naiveName(parsed.Sealed)][lines[n-1].offset:]
		}
		b = append(b, l...)
	}
	return b
}

func fuzzStore(t *testing.T, m storeImage) {
	for _, raw := range m {
		if hugeNumber.Match(raw) {
			return // close to 2^53 a store can't go on, and Open says so
		}
	}
	want := naiveRead(m)
	fs := m.fs(t)
	before := fs.Digest("LOCK")
	heap := heapAllocs()
	report, verr := annals.VerifyFS(context.Background(), fs, storeDir, nil)
	reader, rerr := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: fs, Now: damageOptions(nil).Now})
	var seen storeState
	if rerr == nil {
		seen = readStore(reader, storeState{})
		require.NoError(t, reader.Close())
	}
	require.Equal(t, before, fs.Digest("LOCK"), "reading has changed something")
	db, err := annals.Open(storeDir, damageOptions(fs))
	require.Equal(t, err == nil || errors.Is(err, annals.ErrNotStore), rerr == nil || errors.Is(rerr, annals.ErrNotStore), "the reader says %v, the writer %v", rerr, err)
	if _, listed := m["MANIFEST"]; !listed {
		requireNoManifest(t, m, db, err)
		return
	}
	requireVerdict(t, err, report, verr, &want)
	if err != nil {
		require.Equal(t, before, fs.Digest("LOCK"), "a store was refused and changed")
		return
	}
	got := readStore(db, storeState{})
	requireFuzzState(t, got, &want)
	require.True(t, sameState(seen, got), "a reader sees\n%v\nand the writer\n%v", seen, got)
	requireStaysSo(t, db, fs, got)
	require.Less(t, heapAllocs()-heap, uint64(maxDamageHeap)+20*uint64(len(archive(m))))
}

func requireNoManifest(t *testing.T, m storeImage, db *annals.Store, err error) {
	if err == nil {
		require.NoError(t, db.Close())
	}
	for name := range m {
		n, _ := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 64)
		if strings.HasSuffix(name, ".log") && n < 1<<53 { // no other number can be in MANIFEST
			require.ErrorIs(t, err, annals.ErrCorrupt, "segments without MANIFEST")
			return
		}
	}
}

// requireVerdict requires of Open and Verify what FORMAT.md says.
func requireVerdict(t *testing.T, err error, report annals.Report, verr error, want *naiveStore) {
	damaged := want.why != "" || len(want.broken) > 0
	switch {
	case want.newer && damaged:
		require.True(t, errors.Is(err, annals.ErrNewerFormat) || errors.Is(err, annals.ErrCorrupt), "%v", err)
		return
	case want.newer:
		require.ErrorIs(t, err, annals.ErrNewerFormat)
		require.ErrorIs(t, verr, annals.ErrNewerFormat)
		return
	case want.why != "":
		require.ErrorIs(t, err, annals.ErrCorrupt, "%s: %s", want.file, want.why)
	default:
		require.NoError(t, err)
	}
	require.NoError(t, verr)
	require.Equal(t, damaged, !report.OK(), "%s: %s, %v; Verify finds %v", want.file, want.why, want.broken, report.Problems)
}

// requireFuzzState requires what FORMAT.md says that the store holds, unless its
// segments contradict each other, which no damage can make them do.
func requireFuzzState(t *testing.T, got storeState, want *naiveStore) {
	expect := naiveState(want.records, want.manifest.History, want.now(damageNow))
	switch {
	case want.contradictory():
	case len(want.broken) > 0:
		require.True(t, maps.Equal(expect.keys, got.keys), "keys are\n%v\nand must be\n%v", got.keys, expect.keys)
	default:
		require.True(t, sameKeysAndSamples(expect, got), "the state is\n%v\nand must be\n%v", got, expect)
	}
}

// contradictory tells whether two segments have the same numbers, or are not in the
// order of their numbers where they must be.
func (s *naiveStore) contradictory() bool {
	for i := 1; i < len(s.records); i++ {
		if s.records[i].Seq == s.records[i-1].Seq {
			return true
		}
	}
	for i, a := range s.spans {
		for _, b := range s.spans[:i] {
			if a[0] <= b[1] && b[0] <= a[1] {
				return true
			}
		}
	}
	return false
}

// requireStaysSo requires that a store that was accepted is so again, unchanged.
func requireStaysSo(t *testing.T, db *annals.Store, fs *faultfs.FS, got storeState) {
	require.NoError(t, db.Close())
	before := fs.Digest("LOCK")
	db, err := annals.Open(storeDir, damageOptions(fs))
	require.NoError(t, err)
	require.True(t, db.Recovery().Clean)
	require.Equal(t, before, fs.Digest("LOCK"), "opening again has changed something")
	again := readStore(db, storeState{})
	require.True(t, sameKeysAndSamples(got, again), "opened again it is\n%v\nand was\n%v", again, got)
	require.NoError(t, db.Close())
	require.Zero(t, fs.OpenFiles(), "files are left open")
}

// FuzzDiff holds the segment package against the independent reader, line by line
// and file by file.
func FuzzDiff(f *testing.F) {
	for _, m := range fuzzSeeds(f) {
		for name, raw := range m {
			if strings.HasSuffix(name, ".log") {
				f.Add(raw)
			}
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		diff(t, raw)
		diff(t, resummed(raw))
	})
}

func diff(t *testing.T, raw []byte) {
	lines := naiveLines(raw)
	scan := segment.NewScanner(bytes.NewReader(raw), 0, int64(len(raw)))
	for _, want := range lines {
		require.True(t, scan.Scan())
		requireSameLine(t, &want, scan.Line())
	}
	require.False(t, scan.Scan())
	if len(lines) == 0 || lines[0].kind != "header" {
		return
	}
	h, last := lines[0], lines[len(lines)-1]
	o := naiveExamine(raw, h.Store, h.Segment)
	v, err := segment.Examine(bytes.NewReader(raw), int64(len(raw)), "f", h.Store, h.Segment)
	require.Equal(t, o.valid, err == nil, "%+v, %v", o, err)
	if err == nil {
		require.Equal(t, fmt.Sprint(o.s, o.end, len(o.records), o.tail), fmt.Sprint(v.Last, v.End, v.Records, v.Tail != nil))
	}
	if last.kind == "footer" {
		f := segment.Footer{Segment: last.Sealed, First: last.First, Last: last.Last, Records: last.Records, Bytes: int64(last.Bytes)}
		fmt.Sscanf(last.CRC, "%x", &f.CRC)
		_, valid := naiveSealed(raw, h.Store, last)
		problems, err := segment.CheckSealed(bytes.NewReader(raw), int64(len(raw)), "f", h.Store, f, nil)
		require.NoError(t, err)
		require.Equal(t, valid && h.Segment == last.Sealed, len(problems) == 0, "%v", problems)
	}
}

func requireSameLine(t *testing.T, want *naiveLine, got *segment.Line) {
	kinds := map[segment.LineKind]string{segment.BadLine: "bad", segment.BlankLine: "blank", segment.HeaderLine: "header",
		segment.RecordLine: "record", segment.MarkLine: "mark", segment.FooterLine: "footer"}
	kind := want.kind
	if kind == "manifest" { // a line of another file
		kind = "bad"
	}
	require.Equal(t, kind, kinds[got.Kind], "at offset %d: %v", got.Offset, got.Reason)
	require.Equal(t, fmt.Sprint(want.offset, want.end), fmt.Sprint(got.Offset, got.End()))
	switch kind {
	case "record":
		r := got.View.Record()
		require.Equal(t, fmt.Sprintf("%d %d %v %q %q %d %d", want.Seq, want.dur(), want.More, want.name, want.value, want.at, want.exp),
			fmt.Sprintf("%d %d %v %q %q %d %d", r.Seq, r.Dur, r.More, r.Name, r.Value, r.At, r.Expires))
		require.Equal(t, fmt.Sprint(want.Ser != nil, want.Del), fmt.Sprint(r.Kind == segment.Sample, r.Kind == segment.Delete))
	case "mark":
		require.Equal(t, fmt.Sprint(want.dur(), naiveMicros(want.Now)), fmt.Sprint(got.Mark.Dur, got.Mark.Now))
	case "header":
		h := got.Header
		require.Equal(t, fmt.Sprint(want.Store, want.Segment, want.First, want.From, want.Order), fmt.Sprint(h.Store, h.Segment, h.First, h.From, h.Order))
	case "footer":
		require.Equal(t, fmt.Sprint(want.Sealed, want.First, want.Last, want.Records, want.Bytes, want.CRC),
			fmt.Sprint(got.Footer.Segment, got.Footer.First, got.Footer.Last, got.Footer.Records, got.Footer.Bytes, fmt.Sprintf("%08x", got.Footer.CRC)))
	}
}

var hugeNumber = regexp.MustCompile(`[0-9]{16}`)
