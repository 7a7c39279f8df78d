package annals

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// The rules S1 to S16 of DURABILITY.md, section "Security", in order. What needs
// owners, modes, links and pipes is in security_unix_test.go (S1 to S4), what is
// about the command line in cmd/annals (S14), and some is proven where it is made:
// the page names all tests.

// strictFS is the real file system for a store that is only to be read, or one that
// must make files in one way: everything else fails the test.
type strictFS struct {
	replace.FS
	t        *testing.T
	readOnly bool
}

func (s strictFS) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	made := flag&os.O_CREATE != 0
	if s.readOnly && flag != os.O_RDONLY {
		s.t.Errorf("%s is opened with flags %#x", name, flag)
	}
	if flag&os.O_TRUNC != 0 {
		s.t.Errorf("%s is opened with O_TRUNC", name)
	}
	if made && flag&os.O_EXCL == 0 && filepath.Base(name) != lockName {
		s.t.Errorf("%s is made without O_EXCL", name)
	}
	if made && perm != 0o600 {
		s.t.Errorf("%s is made with permissions %v", name, perm)
	}
	file, err := s.FS.OpenFile(name, flag, perm)
	if err != nil || !s.readOnly {
		return file, err
	}
	return strictFile{file, s, name}, nil
}

func (s strictFS) change(what, name string) error {
	if s.readOnly {
		s.t.Errorf("%s %s", what, name)
		return fs.ErrPermission
	}
	return nil
}

func (s strictFS) Rename(oldname, newname string) error {
	return errors.Join(s.change("rename", oldname), s.FS.Rename(oldname, newname))
}

func (s strictFS) Link(oldname, newname string) error {
	return errors.Join(s.change("link", oldname), s.FS.Link(oldname, newname))
}

func (s strictFS) Symlink(target, name string) error {
	return errors.Join(s.change("symlink", name), s.FS.Symlink(target, name))
}

func (s strictFS) Remove(name string) error {
	return errors.Join(s.change("remove", name), s.FS.Remove(name))
}

func (s strictFS) Mkdir(name string, perm fs.FileMode) error {
	if perm != 0o700 {
		s.t.Errorf("%s is made with permissions %v", name, perm)
	}
	return errors.Join(s.change("mkdir", name), s.FS.Mkdir(name, perm))
}

// strictFile is a file that is only read, and never locked.
type strictFile struct {
	replace.File
	fs   strictFS
	name string
}

func (f strictFile) WriteAt([]byte, int64) (int, error) { return 0, f.fs.change("write", f.name) }
func (f strictFile) Truncate(int64) error               { return f.fs.change("truncate", f.name) }
func (f strictFile) Lock(bool, bool) error              { return f.fs.change("lock", f.name) }

// S2: every file is made under a name that did not exist, so that nothing planted in
// the last moment is opened; only LOCK is opened where it stands. S1, S3: with
// permissions of its owner's only, and never truncated.
func TestSecurityFilesAreMadeExclusively(t *testing.T) {
	fsys := strictFS{FS: replace.OS, t: t}
	opts := &Options{FS: fsys, SegmentSize: minSegment}
	db := open(t, opts)
	for i := range 200 {
		put(t, db, fmt.Sprint("k", i%20), strings.Repeat("v", 100))
	}
	_, err := db.Compact(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, db.Backup(t.Context(), filepath.Join(t.TempDir(), "backup")))
	put(t, db, "k", "v")
	dir := killed(t, db)
	edit(t, filepath.Join(dir, segment.Name(db.manifest.copy().Open)), func(text []byte) []byte { return append(text, "torn"...) })
	require.NoError(t, openAt(t, dir, opts).Close())
	_, err = RepairFS(t.Context(), fsys, dir, filepath.Join(t.TempDir(), "repaired"), nil)
	require.NoError(t, err)
}

// S5: OpenReader and Verify open files for reading only, lock none and change
// nothing, whatever state the store is in.
func TestSecurityInspectionOnlyReads(t *testing.T) {
	db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	for i := range 100 {
		put(t, db, fmt.Sprint("k", i), strings.Repeat("v", 100))
	}
	unclean := killed(t, db)
	last := segmentsIn(t, unclean)
	edit(t, last[len(last)-1], func(text []byte) []byte { return append(text, "torn"...) })
	damaged := killed(t, db)
	flip(t, segmentsIn(t, damaged)[0], "vvv")
	littered := killed(t, db)
	for _, name := range []string{tempOf(t, manifestName), segment.Name(5000), indexName} {
		require.NoError(t, os.WriteFile(filepath.Join(littered, name), []byte("x"), 0o600))
	}
	require.NoError(t, db.Close())
	headless := copyDir(t, db.dir)
	require.NoError(t, os.Remove(filepath.Join(headless, manifestName)))

	fsys := strictFS{FS: replace.OS, t: t, readOnly: true}
	for _, dir := range []string{db.dir, unclean, damaged, littered, headless, t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		before := map[string]string{}
		if _, err := os.Stat(dir); err == nil {
			before = tree(t, dir)
		}
		r, err := OpenReader(dir, &ReaderOptions{FS: fsys})
		if err == nil {
			scan(t, r, Range{})
			require.NoError(t, r.Refresh())
			r.Stats()
			require.NoError(t, r.Close())
		}
		_, _ = VerifyFS(t.Context(), fsys, dir, nil)
		if len(before) > 0 {
			sameTree(t, before, tree(t, dir))
		}
	}
}

// allocated returns how many bytes fn allocates, what the collector took back
// included.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// S6: numbers that no file can mean, in lines whose checksums are right, are damage,
// found before anything is allocated or changed by them.
func TestSecurityNumbersAreCheckedBeforeUse(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	require.NoError(t, db.Close())
	good := readManifestFile(t, db.dir)
	text, err := os.ReadFile(segmentsIn(t, db.dir)[0])
	require.NoError(t, err)

	huge := []string{"9007199254740992", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
		strings.Repeat("9", 400), "-1", "01", "1e3", "0x10"}
	type change struct{ file, field, value string }
	var changes []change
	for _, value := range huge {
		for _, field := range []string{"generation", "segments", "next", "seq", "history", "clock", "sealed", "first", "last", "records", "bytes"} {
			changes = append(changes, change{manifestName, field, value})
		}
		for _, field := range []string{"annals", "segment", "first", "sealed", "last", "records", "bytes", "dur"} {
			changes = append(changes, change{segment.Name(1), field, value})
		}
	}
	changes = append(changes, []change{ // numbers that are fine by themselves
		{manifestName, "segments", "9007199254740991"}, {manifestName, "segments", "0"}, {manifestName, "next", "1"},
		{manifestName, "history", "9007199254740991"}, {manifestName, "seq", "1"}, {manifestName, "first", "9007199254740991"},
		{manifestName, "last", "9007199254740991"}, {manifestName, "records", "9007199254740991"},
		{manifestName, "bytes", "9007199254740991"}, {manifestName, "bytes", "1"}, {manifestName, "sealed", "9007199254740991"},
		{segment.Name(1), "bytes", "9007199254740991"}, {segment.Name(1), "records", "9007199254740991"}, {segment.Name(1), "first", "2"},
		{segment.Name(1), "seq", "9007199254740991"}, {segment.Name(1), "last", "9007199254740991"},
	}...)
	tried := 0
	for _, c := range changes {
		source := good
		if c.file != manifestName {
			source = string(text)
		}
		changed, found := withNumber(source, c.field, c.value)
		if !found {
			require.Equal(t, "dur", c.field)
			continue
		}
		dir := copyDir(t, db.dir)
		require.NoError(t, os.WriteFile(filepath.Join(dir, c.file), []byte(changed), 0o600))
		before := tree(t, dir)
		used := allocated(func() {
			_, err = Open(dir, nil)
			require.Error(t, err, "%v", c)
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewerFormat), "%v: %v", c, err)
			_, err = OpenReader(dir, nil)
			require.Error(t, err, "%v", c)
			report, err := Verify(t.Context(), dir, nil)
			require.True(t, err != nil || !report.OK(), "%v", c)
		})
		require.Less(t, used, uint64(16<<20), "%v", c)
		sameTree(t, before, tree(t, dir))
		tried++
	}
	require.Greater(t, tried, 180)
}

// withNumber replaces the value of the first field of that name and makes the line's
// checksum right.
func withNumber(text, field, value string) (changed string, found bool) {
	name := `"` + field + `":`
	before, rest, found := strings.Cut(text, name)
	if !found {
		return text, false
	}
	end := strings.IndexAny(rest, ",}")
	begin := strings.LastIndexByte(before, '\n') + 1
	tail := strings.IndexByte(rest, '\n')
	object := before[begin:] + name + value + rest[end:tail-len(" 01234567")]
	return before[:begin] + withCRC(object) + rest[tail+1:], true
}

func readManifestFile(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	require.NoError(t, err)
	return string(text)
}

// S7: a file that claims to be enormous is an error, in memory that does not grow
// with the claim: a line of a segment takes at most 256 MiB, one of MANIFEST 64 KiB.
// A file longer than any segment is not read to its end.
func TestSecurityEndlessLinesTakeBoundedMemory(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	unclean := killed(t, db)
	require.NoError(t, db.Close())
	const mib, tib = 1 << 20, 1 << 40
	for _, c := range []struct {
		what, dir, file string
		size            int64
		limit           uint64
		torn            bool
	}{
		{"MANIFEST", db.dir, manifestName, tib, 2 * mib, false},
		{"a sealed segment", db.dir, segment.Name(1), tib, 4 * mib, false},
		{"a sealed segment, not too long for one", db.dir, segment.Name(1), 600 * mib, 700 * mib, false},
		{"the open segment", unclean, segment.Name(1), tib, 4 * mib, false},
		// Zeros behind the good part are a legal tail: a crash leaves them.
		{"the open segment, not too long for one", unclean, segment.Name(1), 600 * mib, 700 * mib, true},
		{"an unlisted segment", db.dir, segment.Name(7), 600 * mib, 700 * mib, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := copyDir(t, c.dir)
			file, err := os.OpenFile(filepath.Join(dir, c.file), os.O_RDWR|os.O_CREATE, 0o600)
			require.NoError(t, err)
			defer file.Close()
			if err := file.Truncate(c.size); err != nil {
				t.Logf("no file of %d bytes here: %v; 16 GiB instead", c.size, err)
				require.NoError(t, file.Truncate(16<<30))
			}
			used := allocated(func() {
				r, err := OpenReader(dir, nil)
				if c.torn {
					require.NoError(t, err)
					present(t, r, "k", "v")
					require.NoError(t, r.Close())
					return
				}
				require.ErrorIs(t, err, ErrCorrupt)
				if c.size == tib {
					_, err = Open(dir, nil)
					require.ErrorIs(t, err, ErrCorrupt)
				}
			})
			require.Less(t, used, c.limit)
		})
	}
}

// deep is JSON of the given depth.
func deep(depth int, object bool) string {
	if object {
		return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)
	}
	return strings.Repeat("[", depth) + strings.Repeat("]", depth)
}

// S8: JSON up to 128 levels deep is kept as JSON, deeper JSON as text; all comes
// back byte for byte.
func TestSecurityDeepJSONIsKeptAsText(t *testing.T) {
	db := open(t, nil)
	want := model{}
	for _, depth := range []int{1, 127, 128, 129, 10_001, 1_000_000} {
		for _, object := range []bool{false, true} {
			key := fmt.Sprintf("%d %v", depth, object)
			want[key] = deep(depth, object)
			put(t, db, key, want[key])
		}
	}
	want.holds(t, db)
	db = reopen(t, db, nil)
	want.holds(t, db)
	text, err := os.ReadFile(segmentsIn(t, db.dir)[0])
	require.NoError(t, err)
	for key, value := range want {
		var depth int
		fmt.Sscan(key, &depth)
		as := `"key":"` + key + `","txt":"`
		if depth <= 128 {
			as = `"key":"` + key + `","val":` + value[:min(len(value), 10)]
		}
		require.Contains(t, string(text), as)
	}
}

// S9: the envelope has one spelling: names that come twice, in another order or in
// another case, and keys that are not UTF-8, are bad lines whatever their checksum,
// where a stock parser would take the last, any, or a replaced one.
func TestSecurityEnvelopeIsNotAmbiguous(t *testing.T) {
	for _, object := range []string{
		`{"seq":1,"seq":2,"key":"a","val":1}`,
		`{"seq":1,"key":"a","key":"b","val":1}`,
		`{"seq":1,"key":"a","k64":"YQ==","val":1}`,
		`{"seq":1,"key":"a","txt":"1","txt":"2"}`,
		`{"seq":1,"key":"a","txt":"1","val":2}`,
		`{"seq":1,"key":"a","del":true,"del":true}`,
		`{"seq":1,"key":"a","del":true,"val":1}`,
		`{"seq":1,"key":"a","exp":1.000000,"exp":2.000000,"val":1}`,
		`{"seq":1,"ser":"s","at":1.000000,"at":2.000000,"val":1}`,
		`{"seq":1,"more":true,"more":true,"key":"a","val":1}`,
		`{"key":"a","seq":1,"val":1}`,
		`{"Seq":1,"key":"a","val":1}`,
		`{"seq":1,"KEY":"a","val":1}`,
		`{"seq":1, "key":"a","val":1}`,
		`{"s\u0065q":1,"key":"a","val":1}`,
		`{"seq":1,"key":"\u0061","val":1}`,
		"{\"seq\":1,\"key\":\"\xff\",\"val\":1}",
		"{\"seq\":1,\"key\":\"\xc0\xaf\",\"val\":1}",
		"{\"seq\":1,\"ser\":\"\xed\xa0\x80\",\"at\":1.000000,\"val\":1}",
		`{"dur":1,"dur":2,"now":1.000000}`,
		`{"sealed":1,"sealed":2,"first":1,"last":1,"records":1,"bytes":1,"crc":"00000000"}`,
		`{"annals":1,"annals":2,"store":"5f0c0d9e1b2a38475665748392a1b0cf","segment":1,"first":1}`,
		`{"annals":1,"store":"5f0c0d9e1b2a38475665748392a1b0cf","segment":1,"segment":2,"first":1}`,
	} {
		line := withCRC(object)
		s := segment.NewScanner(strings.NewReader(line), 0, int64(len(line)))
		require.True(t, s.Scan())
		require.Equal(t, segment.BadLine, s.Line().Kind, object)
	}
}

// S9: what is stored is never parsed and written again: it comes back byte for byte,
// and encoding/json reads the same from the log as from the value itself.
func TestSecurityPayloadIsKeptRaw(t *testing.T) {
	db := open(t, nil)
	rng := seed.Rand(t)
	pieces := []string{`{"a":1,"a":2}`, `{"A":1,"a":2}`, `1.0`, `1e400`, `-0`, `12345678901234567890123`, `"\ud800"`, `"\u0041"`, `" "`,
		` [1 , 2]`, `"</script>"`, "\"\u2028\"", "\"\x7f\u009b\"", "{\"a\":\n1}", "\"\xff\"", `nul`, `{"a":1`, `[1,]`, ``, "\x00"}
	want := model{}
	for i := range 500 {
		value := pieces[rng.IntN(len(pieces))]
		if rng.IntN(2) == 0 {
			value = "[" + value + "," + pieces[rng.IntN(len(pieces))] + "]"
		}
		key := fmt.Sprint(i)
		put(t, db, key, value)
		want[key] = value
	}
	want.holds(t, db)
	db = reopen(t, db, nil)
	want.holds(t, db)

	text, err := os.ReadFile(segmentsIn(t, db.dir)[0])
	require.NoError(t, err)
	read := 0
	for line := range bytes.Lines(text) {
		var envelope struct {
			Key string
			Val json.RawMessage
		}
		object := line[:len(line)-len(" 01234567\n")]
		require.NoError(t, json.Unmarshal(object, &envelope), "%q", object)
		if envelope.Val != nil {
			require.True(t, json.Valid([]byte(want[envelope.Key])), "%q", object)
			require.Equal(t, strings.TrimSpace(want[envelope.Key]), string(envelope.Val))
			read++
		} else if value := want[envelope.Key]; bytes.HasPrefix(object, []byte(`{"seq"`)) {
			plainJSON := json.Valid([]byte(value)) && utf8.ValidString(value) && !strings.ContainsFunc(value, func(r rune) bool { return r < 0x20 })
			require.False(t, plainJSON, "%q is JSON and was not kept as such", value)
		}
	}
	require.Greater(t, read, 100)
}

// S10: no key, series or value is taken for a line, header, footer, mark or end of a
// commit: as many records are read as were written, and they say what they said.
func TestSecurityPayloadNeverImitatesStructure(t *testing.T) {
	header := segment.Header{Store: "5f0c0d9e1b2a38475665748392a1b0cf", Segment: 1, First: 1}
	footer := segment.Footer{Segment: 1, First: 1, Last: 99, Records: 99, Bytes: 10}
	mark := segment.Mark{Dur: 1 << 50, Now: 1}
	record := segment.Record{Seq: 1 << 50, More: true, Kind: segment.Put, Name: "forged", Value: []byte("1")}
	pieces := []string{
		string(header.AppendLine(nil)), string(footer.AppendLine(nil)), string(mark.AppendLine(nil)), string(segment.AppendRecord(nil, &record)),
		"} 00000000\n{\"annals\":1", "\n", "\r\n", "\x00", `"`, `\`, `\n`, `"}`, `","val":1} `, "{", "}", `,"more":true`, "\u2028", "\xff", " ", "0a1b2c3d",
	}
	rng := seed.Rand(t)
	random := func(limit int) string {
		s := ""
		for range rng.IntN(5) {
			s += pieces[rng.IntN(len(pieces))]
		}
		return s[:min(len(s), limit)]
	}
	db := open(t, &Options{Compaction: Compaction{Off: true}})
	want, written := model{}, uint64(0)
	for range 400 {
		var b Batch
		for range 1 + rng.IntN(3) {
			key, value := random(1000), random(1000)
			want[key] = value
			b.Put(key, []byte(value))
			written++
			if name := strings.ToValidUTF8(random(255), ""); name != "" {
				b.Append(name, []byte(random(1000)))
				written++
			}
		}
		_, err := db.Apply(&b)
		require.NoError(t, err)
	}
	counted := func(dir string) {
		t.Helper()
		report := verifyClean(t, dir)
		require.Equal(t, written, report.Records)
		require.Equal(t, written, report.LastSeq)
	}
	want.holds(t, db)
	dir := killed(t, db)
	counted(dir)
	recovered := openAt(t, dir, nil)
	require.Empty(t, recovered.Recovery().Quarantined)
	want.holds(t, recovered)
	require.NoError(t, recovered.Close())
	counted(dir)
	db = reopen(t, db, nil)
	counted(db.dir)
	want.holds(t, db)
}

// S11: nothing is ever decompressed: a compressed file is damage, and no package
// knows how to. S13: nothing listens or serves.
func TestSecurityNothingIsDecompressedOrServed(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	require.NoError(t, db.Close())
	for _, name := range []string{manifestName, segment.Name(1)} {
		dir := copyDir(t, db.dir)
		edit(t, filepath.Join(dir, name), func(text []byte) []byte {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, err := z.Write(text)
			require.NoError(t, err)
			require.NoError(t, z.Close())
			return b.Bytes()
		})
		_, err := Open(dir, nil)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	for name, p := range packages(t) {
		for _, path := range p.Imports {
			first, _, _ := strings.Cut(path, "/")
			if name == "replace" && path == "unsafe" {
				continue // words of mapped memory, to be stored as one
			}
			require.NotContains(t, []string{"compress", "archive", "net", "plugin", "unsafe"}, first, "package %q imports %q", name, path)
		}
	}
}

// S12: a great many segments, listed or lying about, take memory in proportion to
// what is really there.
func TestSecurityManySegmentsAreBounded(t *testing.T) {
	const many = 50_000
	db := open(t, nil)
	put(t, db, "k", "v")
	require.NoError(t, db.Close())

	m := readManifestText(t, db.dir)
	m.Next, m.Seq = many+2, many+2
	for n := uint64(2); n < many+2; n++ {
		m.Sealed = append(m.Sealed, segment.Footer{Segment: n, First: n, Last: n, Records: 1, Bytes: 100})
	}
	listed := copyDir(t, db.dir)
	require.NoError(t, os.WriteFile(filepath.Join(listed, manifestName), m.Append(nil), 0o600))
	used := allocated(func() {
		_, err := Open(listed, nil)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, segment.Name(2))
		require.ErrorContains(t, err, "missing")
	})
	require.Less(t, used, uint64(64<<20), "for %d segments that MANIFEST lists", many)

	littered := copyDir(t, db.dir)
	for n := uint64(2); n < many/10+2; n++ {
		require.NoError(t, os.WriteFile(filepath.Join(littered, segment.Name(n)), nil, 0o600))
	}
	var opened *Store
	used = allocated(func() { opened = openAt(t, littered, nil) })
	require.Less(t, used, uint64(256<<20), "for %d segments that nothing lists", many/10)
	require.Len(t, opened.Recovery().Removed, many/10)
	present(t, opened, "k", "v")
}

func readManifestText(t *testing.T, dir string) segment.Manifest {
	t.Helper()
	m, err := segment.ParseManifest(manifestName, []byte(readManifestFile(t, dir)))
	require.NoError(t, err)
	return m
}

// S14: keys, series and the store's own paths are quoted in errors: no error holds a
// character that a terminal acts upon or that begins a new line of a log.
func TestSecurityErrorsQuoteWhatTheyName(t *testing.T) {
	const hostile = "x\x1b[31mred\x07\r\n2026 all is well\u009b31m\u202egpj\x7f\xff"
	dir := filepath.Join(t.TempDir(), "x\x1b[31m\u202e")
	db := openDamaged(t, dir, &Options{Logger: nil})
	put(t, db, hostile, hostile)
	errs := []error{firstError(db.Samples(hostile, Window{}))}
	add := func(_ any, err error) { errs = append(errs, err) }
	add(db.Get(hostile + "?"))
	add(db.Lookup(hostile + "?"))
	add(nil, db.Put(hostile, nil, IfAbsent()))
	add(nil, db.Put(hostile, nil, IfSeq(77)))
	add(nil, db.Delete(hostile, IfSeq(77)))
	add(nil, db.Put(strings.Repeat(hostile, 10_000), nil))
	add(db.Append(hostile, nil))
	add(db.Append(strings.Repeat("\x1b", 300), nil))
	add(GetJSON[int](db, hostile))
	add(nil, db.Update(func(tx *Tx) error { _, err := tx.Get(hostile + "?"); return err }))
	add(Open(dir, nil)) // in use
	add(nil, db.Backup(t.Context(), dir))
	unclean := killed(t, db)
	require.NoError(t, db.Close())
	require.ErrorIs(t, errs[len(errs)-2], ErrLocked)

	hostileDir := func(change func(dir string)) {
		to := filepath.Join(t.TempDir(), "y\x1b[2J\u009b")
		require.NoError(t, os.CopyFS(to, os.DirFS(unclean)))
		require.NoError(t, os.Chmod(to, 0o700))
		change(to)
		db, err := Open(to, nil)
		if err == nil {
			add(nil, errors.New(db.Recovery().String()))
			require.NoError(t, db.Close())
		}
		add(nil, err)
		report, err := Verify(t.Context(), to, nil)
		add(nil, err)
		for _, problem := range report.Problems {
			add(nil, problem)
		}
	}
	first := segment.Name(1)
	hostileDir(func(dir string) {
		edit(t, filepath.Join(dir, first), func(text []byte) []byte { return append(text, hostile...) })
	})
	hostileDir(func(dir string) { edit(t, filepath.Join(dir, first), func([]byte) []byte { return []byte(hostile) }) })
	hostileDir(func(dir string) {
		edit(t, filepath.Join(dir, manifestName), func([]byte) []byte { return []byte(hostile) })
	})
	hostileDir(func(dir string) { require.NoError(t, os.Remove(filepath.Join(dir, manifestName))) })
	hostileDir(func(dir string) { require.NoError(t, os.Remove(filepath.Join(dir, first))) })
	hostileDir(func(dir string) { require.NoError(t, os.WriteFile(filepath.Join(dir, quarantineName), nil, 0o600)) })
	hostileDir(func(dir string) {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file\x1b[31m"), nil, 0o600))
	})
	hostileDir(func(dir string) {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.WriteFile(dir, nil, 0o600))
	})
	failed := 0
	for _, err := range errs {
		if err == nil {
			continue
		}
		failed++
		for _, r := range err.Error() {
			require.True(t, unicode.IsPrint(r) && r != utf8.RuneError, "%q holds %U", err.Error(), r)
		}
	}
	require.Greater(t, failed, 20)
}

// S16: nothing in the core catches a panic to go on writing, ends the process, or
// writes to the program's log. The few panics are about what the line before made
// sure of. What is caught is the fault of mapped memory that is gone; any other panic
// is passed on.
func TestSecurityCoreNeverRecoversOrExits(t *testing.T) {
	allowed := map[string]int{"index: recover": 1, "index: panic": 1, "segment: panic": 1, ": panic": 1, "replace: panic": 2, "replace: recover": 3}
	found := map[string]int{}
	for name, p := range packages(t) {
		if strings.HasPrefix(name, "fuzz") || strings.HasSuffix(name, "fstest") {
			continue
		}
		_, files := sources(t, p.Dir)
		for _, file := range files {
			for _, imported := range file.Imports {
				require.NotEqual(t, `"log"`, imported.Path.Value, "package %q", name)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch fn := call.Fun.(type) {
				case *ast.Ident:
					if fn.Name == "recover" || fn.Name == "panic" || fn.Name == "print" || fn.Name == "println" {
						found[name+": "+fn.Name]++
					}
				case *ast.SelectorExpr:
					if x, ok := fn.X.(*ast.Ident); ok && (x.Name+"."+fn.Sel.Name == "os.Exit" || x.Name+"."+fn.Sel.Name == "runtime.Goexit") {
						found[name+": "+fn.Sel.Name]++
					}
				}
				return true
			})
		}
	}
	require.Equal(t, allowed, found)
}
