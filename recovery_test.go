package annals

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// lastLine returns the open segment of a store and the offset at which its last
// line begins.
func lastLine(t testing.TB, dir string) (path string, start, end int) {
	t.Helper()
	all := segmentsIn(t, dir)
	path = all[len(all)-1]
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	end = len(bytes.TrimRight(text, "\n")) + 1
	return path, bytes.LastIndexByte(text[:end-1], '\n') + 1, end
}

// refused makes sure that Open refuses a directory and leaves it as it is.
func refused(t testing.TB, dir string, want error) error {
	t.Helper()
	before := tree(t, dir)
	db, err := Open(dir, nil)
	if err == nil {
		db.Close()
	}
	require.ErrorIs(t, err, want)
	sameTree(t, before, tree(t, dir))
	return err
}

func TestKilledStoreLosesNothing(t *testing.T) {
	for _, size := range []int64{minSegment, 16 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			db := open(t, &Options{SegmentSize: size})
			want := model{}
			for i := range 100 {
				key := fmt.Sprintf("k%02d", i)
				want[key] = fmt.Sprint("v", i)
				put(t, db, key, want[key])
				_, err := db.Append("s", []byte(want[key]))
				require.NoError(t, err)
			}
			del(t, db, "k50")
			delete(want, "k50")
			dir := killed(t, db)
			require.Nil(t, verifyClean(t, dir).Tail, "a kill between two writes leaves no torn tail")

			again := openAt(t, dir, &Options{Compaction: Compaction{Off: true}})
			report := again.Recovery()
			require.False(t, report.Clean)
			require.Empty(t, report.Quarantined)
			require.EqualValues(t, 201, report.LastSeq)
			require.NotZero(t, report.Rewritten)
			require.EqualValues(t, 201, again.Durable())
			want.holds(t, again)
			require.Len(t, samples(t, again, "s", Window{}), 100)
			require.Len(t, take(t, again.Watch(t.Context(), 1), 201), 201)
			require.NoError(t, again.Close())

			before := tree(t, dir)
			again = openAt(t, dir, nil)
			require.True(t, again.Recovery().Clean)
			want.holds(t, again)
			require.NoError(t, again.Close())
			sameTree(t, before, tree(t, dir))
		})
	}
}

func TestKilledAgainAndAgainLosesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	want := model{}
	for i := range 20 {
		db := openAt(t, dir, nil)
		want.holds(t, db)
		if i%3 > 0 {
			want[fmt.Sprint("k", i)] = "v"
			put(t, db, fmt.Sprint("k", i), "v")
		}
		dir = killed(t, db)
	}
	db := openAt(t, dir, nil)
	want.holds(t, db)
}

// tornStore returns the directory of a store that was killed: two commits that are
// durable beyond doubt and a third, of three records, that is last.
func tornStore(t testing.TB) (dir string) {
	t.Helper()
	db := open(t, nil)
	put(t, db, "a", "1")
	put(t, db, "b", "2")
	var b Batch
	b.Put("a", []byte("3"))
	b.Append("s", []byte("4"))
	b.Put("c", []byte("5"))
	_, err := db.Apply(&b)
	require.NoError(t, err)
	return killed(t, db)
}

func TestTornTailOfEveryLengthIsCutOffAndKept(t *testing.T) {
	whole := tornStore(t)
	path, _, end := lastLine(t, whole)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	start := indexOf(t, text, `{"seq":3`)
	for _, filling := range []string{"", "\n\n\n", "\x00\x00\x00"} {
		for cut := start; cut < end; cut++ {
			if cut%5 > 0 && (raceDetector || filling != "") || cut == end-1 && filling == "\n\n\n" {
				continue // the last one is the whole batch
			}
			dir := copyDir(t, whole)
			tail := string(text[start:cut]) + filling
			edit(t, filepath.Join(dir, filepath.Base(path)), func([]byte) []byte { return []byte(string(text[:start]) + tail) })
			require.NoError(t, os.Remove(filepath.Join(dir, lockName)))

			before := tree(t, dir)
			report := verifyClean(t, dir)
			sameTree(t, before, tree(t, dir))
			db := openAt(t, dir, nil)
			require.Equal(t, []string{"a=1", "b=2"}, scan(t, db, Range{}), "cut at %d", cut)
			require.Empty(t, series(t, db))
			require.EqualValues(t, 2, db.Recovery().LastSeq)
			if strings.Trim(tail, "\n") == "" {
				require.Empty(t, db.Recovery().Quarantined)
			} else {
				require.NotNil(t, report.Tail)
				require.EqualValues(t, start, report.Tail.Offset)
				require.Len(t, db.Recovery().Quarantined, 1)
				q := db.Recovery().Quarantined[0]
				require.EqualValues(t, start, q.Offset)
				require.EqualValues(t, len(tail), q.Bytes)
				kept, err := os.ReadFile(q.Path)
				require.NoError(t, err)
				require.Equal(t, tail, string(kept))
				require.Contains(t, q.Path, filepath.Join(dir, quarantineName)+"/")
			}
			put(t, db, "next", "6")
			e, err := db.Lookup("next")
			require.NoError(t, err)
			complete := strings.Count(string(text[start:cut]), "\n") // whole lines of the tail
			require.Greater(t, e.Seq, uint64(2+complete), "a number of the tail is not given again")
			require.NoError(t, db.Close())
			db = openAt(t, dir, nil)
			require.True(t, db.Recovery().Clean)
			require.Equal(t, []string{"a=1", "b=2", "next=6"}, scan(t, db, Range{}))
			require.NoError(t, db.Close())
		}
	}
}

// Pages reach the disk in any order: the middle of the last batch may be missing.
func TestHoleInTheLastBatchDropsTheWholeCommit(t *testing.T) {
	for _, mark := range []string{`{"seq":3`, `{"seq":4`, `{"seq":5`} {
		dir := tornStore(t)
		flip(t, segmentsIn(t, dir)[0], mark)
		db := openAt(t, dir, nil)
		require.Equal(t, []string{"a=1", "b=2"}, scan(t, db, Range{}))
		require.Empty(t, series(t, db))
		require.Len(t, db.Recovery().Quarantined, 1)
		put(t, db, "next", "6")
		require.Greater(t, db.Stats().LastSeq, uint64(4))
	}
}

func TestDamageBeforeEvidenceIsRefusedAndNothingIsTouched(t *testing.T) {
	for mark, seq := range map[string]uint64{`{"seq":1`: 1, `"key":"a","val":1`: 1, `{"seq":2`: 2, `"key":"b"`: 2} {
		t.Run(mark, func(t *testing.T) {
			dir := tornStore(t)
			path := segmentsIn(t, dir)[0]
			flip(t, path, mark)
			var damage *CorruptError
			require.ErrorAs(t, refused(t, dir, ErrCorrupt), &damage)
			require.Equal(t, path, damage.Path)
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			line := text[damage.Offset:]
			line = line[:bytes.IndexByte(line, '\n')]
			require.Equal(t, seq == 1, bytes.Contains(line, []byte(`"key":"a"`)) || bytes.Contains(line, []byte(`"kex":"a"`)) || bytes.Contains(line, []byte(`#key":"a"`)), "%s", line)
			require.Equal(t, seq, damage.FirstSeq)
			require.EqualValues(t, 2, damage.LastSeq)
			_, err = OpenReader(dir, nil)
			require.ErrorIs(t, err, ErrCorrupt)
			report, err := Verify(t.Context(), dir, nil)
			require.NoError(t, err)
			require.False(t, report.OK())
		})
	}
}

// When the log has been idle for a second, the last batch, too, is proven durable.
func TestIdleMarkProvesTheLastBatch(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(5 * time.Millisecond)} {
		db := open(t, &Options{Sync: policy})
		put(t, db, "a", "1")
		put(t, db, "b", "2")
		path := segmentsIn
		eventually(t, "a mark", func() bool {
			all := path(t, db.dir)
			if len(all) == 0 {
				return false
			}
			text, err := os.ReadFile(all[0])
			require.NoError(t, err)
			return bytes.Contains(text, []byte("\n"+`{"dur":2,"now":`))
		})
		dir := killed(t, db)
		flip(t, segmentsIn(t, dir)[0], `"key":"b"`)
		refused(t, dir, ErrCorrupt)
	}
}

func TestDamageInACleanlyClosedStoreIsRefused(t *testing.T) {
	whole := open(t, nil)
	put(t, whole, "a", "1")
	put(t, whole, "b", "2")
	require.NoError(t, whole.Close())
	path := segmentsIn(t, whole.dir)[0]
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range text {
		if raceDetector && i%5 > 0 {
			continue
		}
		dir := copyDir(t, whole.dir)
		edit(t, filepath.Join(dir, filepath.Base(path)), func(text []byte) []byte {
			text[i] ^= 1 << (i % 8)
			return text
		})
		refused(t, dir, ErrCorrupt)
	}
	for n := range text {
		if n%9 == 0 {
			dir := copyDir(t, whole.dir)
			require.NoError(t, os.Truncate(filepath.Join(dir, filepath.Base(path)), int64(n)))
			refused(t, dir, ErrCorrupt)
		}
	}
	for _, more := range []string{"\n", "\x00", "x", string(text)} {
		dir := copyDir(t, whole.dir)
		edit(t, filepath.Join(dir, filepath.Base(path)), func(text []byte) []byte { return append(text, more...) })
		refused(t, dir, ErrCorrupt)
	}
}

func TestDamageToManifestIsRefused(t *testing.T) {
	for _, kill := range []bool{false, true} {
		db := open(t, nil)
		put(t, db, "a", "1")
		whole := killed(t, db)
		if !kill {
			require.NoError(t, db.Close())
			whole = db.dir
		}
		text, err := os.ReadFile(filepath.Join(whole, manifestName))
		require.NoError(t, err)
		for i := range text {
			if raceDetector && i%5 > 0 {
				continue
			}
			dir := copyDir(t, whole)
			edit(t, filepath.Join(dir, manifestName), func(text []byte) []byte { text[i] ^= 1; return text })
			refused(t, dir, ErrCorrupt)
			dir = copyDir(t, whole)
			require.NoError(t, os.Truncate(filepath.Join(dir, manifestName), int64(i)))
			refused(t, dir, ErrCorrupt)
		}
	}
}

func TestDirectoriesThatAreNoStoreAreRefusedAndUntouched(t *testing.T) {
	closed := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	for i := range 100 {
		put(t, closed, fmt.Sprint("k", i), "some value")
	}
	require.NoError(t, closed.Close())
	stranger := open(t, nil)
	put(t, stranger, "k", "v")
	require.NoError(t, stranger.Close())
	edited := func(name, old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, name), func(text []byte) []byte {
				object, rest, _ := strings.Cut(string(text), "\n")
				object = object[:len(object)-9]
				require.Contains(t, object, old)
				return []byte(withCRC(strings.Replace(object, old, new, 1)) + rest)
			})
		}
	}
	first := segment.Name(1)
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		want   error
	}{
		"no MANIFEST":          {func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, manifestName))) }, ErrCorrupt},
		"a segment is missing": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(segmentsIn(t, dir)[1])) }, ErrCorrupt},
		"a segment of another store": {func(t *testing.T, dir string) {
			text, err := os.ReadFile(segmentsIn(t, stranger.dir)[0])
			require.NoError(t, err)
			edit(t, segmentsIn(t, dir)[0], func([]byte) []byte { return text })
		}, ErrCorrupt},
		"two segments are swapped": {func(t *testing.T, dir string) {
			all := segmentsIn(t, dir)
			require.NoError(t, os.Rename(all[0], all[1]+".x"))
			require.NoError(t, os.Rename(all[1], all[0]))
			require.NoError(t, os.Rename(all[1]+".x", all[1]))
		}, ErrCorrupt},
		"MANIFEST of another store": {func(t *testing.T, dir string) {
			text, err := os.ReadFile(filepath.Join(stranger.dir, manifestName))
			require.NoError(t, err)
			edit(t, filepath.Join(dir, manifestName), func([]byte) []byte { return text })
		}, ErrCorrupt},
		"a segment in a newer format":     {edited(first, `{"annals":1`, `{"annals":2`), ErrNewerFormat},
		"MANIFEST in a newer format":      {edited(manifestName, `{"annals":1`, `{"annals":2`), ErrNewerFormat},
		"MANIFEST in a much newer format": {edited(manifestName, `{"annals":1,`, `{"annals":7,"what":"is this",`), ErrNewerFormat},
		"a footer that lies":              {edited(manifestName, `"segments":`, `"segments":1`), ErrCorrupt},
		"a directory in place of MANIFEST": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, manifestName)))
			require.NoError(t, os.Mkdir(filepath.Join(dir, manifestName), 0o700))
		}, nil},
		"a link in place of a segment": {func(t *testing.T, dir string) {
			path := segmentsIn(t, dir)[0]
			require.NoError(t, os.Rename(path, dir+".log"))
			require.NoError(t, os.Symlink(dir+".log", path))
		}, nil},
		"an unlisted segment in a newer format": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, segment.Name(999)), []byte(withCRC(`{"annals":2,"new":true}`)), 0o600))
		}, ErrNewerFormat},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, closed.dir)
			c.change(t, dir)
			before := tree(t, dir)
			db, err := Open(dir, nil)
			if err == nil {
				db.Close()
			}
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			sameTree(t, before, tree(t, dir))
		})
	}
}

func TestForeignDirectoriesAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("not a store"), 0o600))
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		_, err := Open(dir, nil)
		require.Error(t, err)
		_, err = OpenReader(dir, nil)
		require.Error(t, err)
		_, err = Verify(t.Context(), dir, nil)
		require.Error(t, err)
	}
	_, err := Open(file, nil)
	require.ErrorIs(t, err, ErrNotStore)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "not a store", string(text))

	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, "letter.txt"), []byte("dear"), 0o600))
	require.ErrorIs(t, refused(t, home, ErrNotStore), ErrNotStore)
	require.NoFileExists(t, filepath.Join(home, lockName))

	missing := filepath.Join(t.TempDir(), "missing")
	_, err = OpenReader(missing, nil)
	require.ErrorIs(t, err, ErrNotStore)
	_, err = Verify(t.Context(), missing, nil)
	require.ErrorIs(t, err, ErrNotStore)
	require.NoDirExists(t, missing)
}

func TestOpenMakesMissingDirectoriesForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	db := openAt(t, dir, nil)
	put(t, db, "k", "v")
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	for _, path := range append(segmentsIn(t, dir), filepath.Join(dir, manifestName), filepath.Join(dir, lockName)) {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), path)
	}
}

// The directory of a store whose first Open was cut short holds at most LOCK and
// temporary files of MANIFEST.
func TestCrashBeforeTheFirstManifestLeavesANewStore(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, lockName), []byte("1\n"), 0o600))
	db := openAt(t, dir, nil)
	put(t, db, "k", "v")
	db = openAt(t, killed(t, db), nil)
	present(t, db, "k", "v")
}

func TestManifestOlderThanTheLogIsRefused(t *testing.T) {
	opts := &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}}
	db := open(t, opts)
	var manifests []string
	text := func() string {
		text, err := os.ReadFile(filepath.Join(db.dir, manifestName))
		require.NoError(t, err)
		return string(text)
	}
	for i := range 200 {
		put(t, db, fmt.Sprint("k", i), "some value")
		if m := text(); len(manifests) == 0 || manifests[len(manifests)-1] != m {
			manifests = append(manifests, m)
		}
	}
	whole := killed(t, db)
	require.Greater(t, len(manifests), 3)
	for _, old := range manifests[:len(manifests)-1] {
		dir := copyDir(t, whole)
		edit(t, filepath.Join(dir, manifestName), func([]byte) []byte { return []byte(old) })
		refused(t, dir, ErrCorrupt)
		report, err := Verify(t.Context(), dir, nil)
		require.NoError(t, err)
		require.False(t, report.OK())
	}
}

// A reader shows what Open would accept, and nothing else.
func TestReaderRefusesAManifestOlderThanTheLog(t *testing.T) {
	db := open(t, &Options{Compaction: Compaction{Off: true}})
	put(t, db, "a", "1")
	old, err := os.ReadFile(filepath.Join(db.dir, manifestName))
	require.NoError(t, err)
	db = reopen(t, db, &Options{Compaction: Compaction{Off: true}})
	put(t, db, "b", "2")
	require.NoError(t, db.Close())
	dir := copyDir(t, db.dir)
	edit(t, filepath.Join(dir, manifestName), func([]byte) []byte { return old })
	refused(t, dir, ErrCorrupt)
	r, err := OpenReader(dir, nil)
	if err == nil {
		r.Close()
	}
	require.ErrorIs(t, err, ErrCorrupt)
}

// Each crash is made from copies of the directory before and after.
func TestLeftoversOfACrashAreRemoved(t *testing.T) {
	fill := func(db *Store) model {
		want := model{}
		for i := range 50 {
			key := fmt.Sprintf("k%02d", i)
			put(t, db, key, "old")
			want[key] = fmt.Sprint(i)
			put(t, db, key, want[key])
		}
		del(t, db, "k07")
		delete(want, "k07")
		return want
	}
	copyOver := func(from, to string) {
		for _, path := range segmentsIn(t, from) {
			if _, err := os.Stat(filepath.Join(to, filepath.Base(path))); err == nil {
				continue
			}
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(to, filepath.Base(path)), text, 0o600))
		}
	}
	opts := &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}}
	for _, kill := range []bool{false, true} {
		finish := func(db *Store) string {
			if kill {
				return killed(t, db)
			}
			require.NoError(t, db.Close())
			return copyDir(t, db.dir)
		}
		db := open(t, opts)
		want := fill(db)
		before := finish(db)
		db = openAt(t, copyDir(t, before), opts)
		recovered := killed(t, db)
		compactAll(t, db)
		after := finish(db)
		check := func(t *testing.T, dir string) {
			t.Helper()
			report := verifyClean(t, dir)
			require.NotEmpty(t, report.Leftover)
			db := openAt(t, dir, opts)
			require.NotEmpty(t, db.Recovery().Removed)
			want.holds(t, db)
			require.Len(t, segmentsIn(t, dir), len(db.Stats().Segments), "no leftover stays")
			put(t, db, "k07", "new")
			require.NoError(t, db.Close())
			require.Empty(t, verifyClean(t, dir).Leftover)
			again := openAt(t, dir, opts)
			present(t, again, "k07", "new")
		}
		t.Run(fmt.Sprint("outputs written, MANIFEST not; killed: ", kill), func(t *testing.T) {
			dir := copyDir(t, recovered)
			copyOver(after, dir)
			check(t, dir)
		})
		t.Run(fmt.Sprint("MANIFEST replaced, inputs still there; killed: ", kill), func(t *testing.T) {
			dir := copyDir(t, after)
			copyOver(before, dir)
			check(t, dir)
		})
		t.Run(fmt.Sprint("torn output; killed: ", kill), func(t *testing.T) {
			dir := copyDir(t, recovered)
			copyOver(after, dir)
			all := segmentsIn(t, dir)
			require.NoError(t, os.Truncate(all[len(all)-1], 100))
			check(t, dir)
		})
		t.Run(fmt.Sprint("temporary file of MANIFEST; killed: ", kill), func(t *testing.T) {
			dir := copyDir(t, before)
			temp := tempOf(t, manifestName)
			require.NoError(t, os.WriteFile(filepath.Join(dir, temp), []byte("half a MANI"), 0o600))
			check(t, dir)
		})
	}
}

// The copy of an interrupted recovery lies beside the open segment.
func TestInterruptedRecoveryIsRepeated(t *testing.T) {
	dir := tornStore(t)
	path, start, _ := lastLine(t, dir)
	require.NoError(t, os.Truncate(path, int64(start+10)))
	done := copyDir(t, dir)
	db := openAt(t, done, &Options{Compaction: Compaction{Off: true}})
	require.NoError(t, db.Close())
	copied := segmentsIn(t, done)[0]
	text, err := os.ReadFile(copied)
	require.NoError(t, err)
	tail, err := os.ReadFile(db.Recovery().Quarantined[0].Path)
	require.NoError(t, err)
	for n := 0; n <= len(text); n += 20 {
		again := copyDir(t, dir)
		require.NoError(t, os.WriteFile(filepath.Join(again, filepath.Base(copied)), text[:n], 0o600))
		db := openAt(t, again, &Options{Compaction: Compaction{Off: true}})
		require.Equal(t, []string{"a=1", "b=2"}, scan(t, db, Range{}))
		require.Len(t, db.Recovery().Quarantined, 1)
		kept, err := os.ReadFile(db.Recovery().Quarantined[0].Path)
		require.NoError(t, err)
		require.Equal(t, tail, kept)
		require.Len(t, segmentsIn(t, again), 1)
		require.NoError(t, db.Close())
	}
}

// Steps 2 and 3 of a rotation are on disk, step 4 is not.
func TestCrashInTheMiddleOfARotation(t *testing.T) {
	db := open(t, nil)
	put(t, db, "a", "1")
	put(t, db, "b", "2")
	open := killed(t, db)
	require.NoError(t, db.Close())
	sealed, err := os.ReadFile(segmentsIn(t, db.dir)[0])
	require.NoError(t, err)
	path := segmentsIn(t, open)[0]
	m, err := readManifest(replace.OS, open)
	require.NoError(t, err)
	footer := bytes.LastIndexByte(sealed[:len(sealed)-1], '\n') + 1
	next := segment.Header{Store: m.Store, Segment: 2, First: 3}
	for n := footer; n <= len(sealed); n++ {
		for _, withNext := range []bool{false, true} {
			dir := copyDir(t, open)
			edit(t, filepath.Join(dir, filepath.Base(path)), func([]byte) []byte { return sealed[:n] })
			if withNext {
				require.NoError(t, os.WriteFile(filepath.Join(dir, segment.Name(2)), next.AppendLine(nil), 0o600))
			}
			db := openAt(t, dir, nil)
			require.Equal(t, []string{"a=1", "b=2"}, scan(t, db, Range{}))
			put(t, db, "c", "3")
			require.NoError(t, db.Close())
		}
	}
}

func TestUncleanStoreWithoutRecordsOpens(t *testing.T) {
	db := open(t, nil)
	put(t, db, "a", "1")
	compactAll(t, db) // rotates: the open segment has nothing but its header
	dir := killed(t, db)
	db = openAt(t, dir, nil)
	present(t, db, "a", "1")
	put(t, db, "b", "2")
	require.EqualValues(t, 2, db.Stats().LastSeq)
}

// onDisk makes a store in memory with options that leave nothing to chance.
func onDisk(t testing.TB, fs *faultfs.FS) *Store {
	t.Helper()
	db, err := Open("/store", &Options{FS: fs, SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	require.NoError(t, err)
	return db
}

// kept is everything on the disk, or nothing that no sync has ordered.
func kept(all bool) func(int) bool { return func(int) bool { return all } }

// unfinished returns file systems with stores that Open has something to do with,
// and what it must find.
func unfinished(t *testing.T) map[string]*faultfs.FS {
	t.Helper()
	all := map[string]*faultfs.FS{"new": faultfs.New()}
	full := faultfs.New()
	db := onDisk(t, full)
	for i := range 3 { // segments of one record and one that is open
		put(t, db, fmt.Sprint("k", i), strings.Repeat("x", 3000))
	}
	all["killed"] = full.Crash(kept(true))

	torn := full.Crash(kept(true))
	path := "/store/" + segment.Name(3)
	file, err := torn.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	info, err := file.Stat()
	require.NoError(t, err)
	_, err = file.WriteAt([]byte(`{"seq":4,"torn`), info.Size())
	require.NoError(t, err)
	require.NoError(t, file.Sync())
	require.NoError(t, file.Close())
	all["torn"] = torn

	// Its recovery crashed before MANIFEST: a copy of the open segment lies there.
	again := torn.Crash(kept(true))
	again.Hook(func(op faultfs.Op) {
		if op.Kind == faultfs.Rename && strings.HasSuffix(op.Path, manifestName) {
			again.Hook(nil)
			all["torn twice"] = again.Crash(kept(true))
		}
	})
	require.NoError(t, onDisk(t, again).Close())

	// A clean close whose removals did not reach the disk.
	left := full.Crash(kept(true))
	db = onDisk(t, left)
	del(t, db, "k0")
	put(t, db, "k0", strings.Repeat("x", 3000))
	_, err = db.Compact(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	all["leftovers"] = left.Crash(kept(false))

	large := full.Crash(kept(true))
	db = onDisk(t, large)
	put(t, db, "k1", strings.Repeat("y", 300<<10)) // more than one write of a copy
	all["large"] = large.Crash(kept(true))
	require.NoError(t, db.Close())

	empty := full.Crash(kept(true))
	db = onDisk(t, empty)
	require.NoError(t, db.log.Rotate(t.Context()))
	put(t, db, "k3", "4")
	require.NoError(t, db.log.Rotate(t.Context()))
	all["without records"] = empty.Crash(kept(true))
	require.NoError(t, db.Close())
	return all
}

// Every operation of an Open fails, once or from then on. Whatever was done before
// that, no file is left open and the next Open finds all that was acknowledged, also
// after a power cut.
func TestOpenThatFailsAnywhereLosesNothing(t *testing.T) {
	for name, base := range unfinished(t) {
		t.Run(name, func(t *testing.T) {
			db := onDisk(t, base.Clone())
			want := scan(t, db, Range{})
			require.NoError(t, db.Close())
			for _, forever := range []bool{false, true} {
				stride := 1
				if raceDetector {
					stride = 7
				}
				for n := 1; failOpen(t, base.Clone(), n, forever, want); n += stride {
					require.Less(t, n, 1000)
				}
			}
		})
	}
}

// failOpen makes operation n of an Open fail, and reports whether there was one.
func failOpen(t *testing.T, fs *faultfs.FS, n int, forever bool, want []string) bool {
	count, hit := 0, ""
	fs.Inject(func(op faultfs.Op) *faultfs.Fault {
		if count++; count == n || forever && count > n {
			hit += fmt.Sprintln(op.Kind, op.Path)
			return &faultfs.Fault{Err: syscall.EIO, Bytes: op.Len / 2}
		}
		return nil
	})
	opts := &Options{FS: fs, SegmentSize: minSegment, Compaction: Compaction{Off: true}}
	db, err := Open("/store", opts)
	fs.Inject(nil)
	if err == nil { // it did not matter
		require.Equal(t, want, scan(t, db, Range{}), hit)
		require.NoError(t, db.Close(), hit)
	} else {
		require.ErrorIs(t, err, syscall.EIO, hit)
		require.NotErrorIs(t, err, ErrCorrupt, hit)
	}
	require.Zero(t, fs.OpenFiles(), "%sfiles are left open", hit)
	for _, later := range []*faultfs.FS{fs.Crash(kept(false)), fs.Crash(kept(true)), fs} {
		db, err := Open("/store", &Options{FS: later, SegmentSize: minSegment, Compaction: Compaction{Off: true}})
		require.NoError(t, err, hit)
		require.Equal(t, want, scan(t, db, Range{}), hit)
		require.NoError(t, db.Close(), hit)
	}
	return hit != ""
}

// The open segment is not the one that MANIFEST means: one of them is of another
// time.
func TestOpenSegmentThatManifestDoesNotMeanIsRefused(t *testing.T) {
	dir := tornStore(t)
	edit(t, filepath.Join(dir, manifestName), func(text []byte) []byte {
		object := string(text[:bytes.LastIndexByte(text, ' ')])
		require.Contains(t, object, `"seq":1,`)
		return []byte(withCRC(strings.Replace(object, `"seq":1,`, `"seq":2,`, 1)))
	})
	require.ErrorContains(t, refused(t, dir, ErrCorrupt), "it begins with record 1, MANIFEST says 2")
	report, err := Verify(t.Context(), dir, nil)
	require.NoError(t, err)
	require.Len(t, report.Problems, 1)
}

func TestPartsOfAStoreAreNoStore(t *testing.T) {
	for _, part := range []string{indexName, quarantineName} {
		dir := t.TempDir()
		if part == indexName {
			require.NoError(t, os.WriteFile(filepath.Join(dir, part), nil, 0o600))
		} else {
			require.NoError(t, os.Mkdir(filepath.Join(dir, part), 0o700))
		}
		require.ErrorContains(t, refused(t, dir, ErrNotStore), "parts of a store")
	}
}

// Nobody reads a file of 2 GiB into memory because it is called MANIFEST.
func TestEndlessManifestIsRefused(t *testing.T) {
	dir := tornStore(t)
	require.NoError(t, os.Truncate(filepath.Join(dir, manifestName), maxManifest+1))
	_, err := Open(dir, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "bytes long")
}

// A MANIFEST that could not be read again is not written.
func TestUnreadableManifestIsNotWritten(t *testing.T) {
	dir := tornStore(t)
	before := tree(t, dir)
	m, err := readManifest(replace.OS, dir)
	require.NoError(t, err)
	m.Seq = 0
	require.ErrorContains(t, writeManifest(replace.OS, dir, &m), "refusing")
	sameTree(t, before, tree(t, dir))
}

// lyingFS renames a file and says that it failed, as some network drives do.
type lyingFS struct{ replace.FS }

func (l lyingFS) Rename(from, to string) error {
	return errors.Join(l.FS.Rename(from, to), syscall.EIO)
}

func TestRenameThatFailedAndWasDoneEndsWriting(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	db := openDamaged(t, dir, nil)
	put(t, db, "first", "v")
	require.NoError(t, db.Close())
	db = openDamaged(t, dir, &Options{FS: lyingFS{replace.OS}})
	require.ErrorIs(t, db.Put("k", []byte("v")), ErrFailed)
	require.ErrorIs(t, db.Close(), ErrFailed)
	db = openAt(t, dir, nil)
	absent(t, db, "k")
	put(t, db, "k", "v")
}

// The file changes between the look at it and the copy.
func TestCopyOfWhatHasGoneBadMeanwhileIsRefused(t *testing.T) {
	dir := tornStore(t)
	text, err := os.ReadFile(segmentsIn(t, dir)[0])
	require.NoError(t, err)
	h, _, err := segment.ReadHeader(bytes.NewReader(text), int64(len(text)), "")
	require.NoError(t, err)
	two, three := indexOf(t, text, `{"seq":2`), indexOf(t, text, `{"seq":3`)
	for name, now := range map[string]string{
		"a bad line":      string(text[:two]) + "#" + string(text[two+1:]),
		"a missing line":  string(text[:two]) + string(text[three:]),
		"a missing end":   string(text[:two]) + strings.Repeat("\n", len(text)-two),
		"a shorter file":  string(text[:two]),
		"the same as was": string(text),
	} {
		fs := faultfs.New()
		end := len(now)
		if name == "a shorter file" {
			end = len(text)
		}
		w, err := copySealed(fs, "/", strings.NewReader(now), "the file", &h, 7, int64(end), 5)
		if name == "the same as was" {
			require.NoError(t, err)
			require.EqualValues(t, 5, w.footer.Records)
			continue
		}
		require.Error(t, err, name)
		require.Equal(t, name != "a shorter file", errors.Is(err, ErrCorrupt), name)
		_, err = fs.Lstat("/" + segment.Name(7))
		require.ErrorIs(t, err, os.ErrNotExist, name)
		require.Zero(t, fs.OpenFiles(), name)
	}
}

func TestCopyFileTellsWhyItEnds(t *testing.T) {
	fs := faultfs.New()
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, copyFile(ctx, fs, strings.NewReader("12345"), 5, "/a"))
	require.ErrorIs(t, copyFile(ctx, fs, strings.NewReader("12345"), 5, "/a"), os.ErrExist)
	require.ErrorIs(t, copyFile(ctx, fs, strings.NewReader("12345"), 6, "/b"), io.EOF)
	cancel()
	require.ErrorIs(t, copyFile(ctx, fs, strings.NewReader("12345"), 5, "/c"), context.Canceled)
	require.Zero(t, fs.OpenFiles())
}

// A reader finds a leftover in the directory, and the writer removes it before it
// can be opened.
func TestReaderPassesOverALeftoverThatGoes(t *testing.T) {
	for _, base := range []string{"leftovers", "torn twice"} {
		fs := unfinished(t)[base]
		_, err := fs.Lstat("/store")
		require.NoError(t, err)
		m, err := readManifest(fs, "/store")
		require.NoError(t, err)
		l, err := listDir(fs, "/store")
		require.NoError(t, err)
		gone := 0
		for _, n := range l.unlisted(&m) {
			path := "/store/" + segment.Name(n)
			fs.Hook(func(op faultfs.Op) {
				if op.Kind == faultfs.Open && op.Path == path {
					fs.Hook(nil)
					require.NoError(t, fs.Remove(path))
					gone++
				}
			})
			r, err := OpenReader("/store", &ReaderOptions{FS: fs})
			require.NoError(t, err)
			require.NoError(t, r.Close())
		}
		require.NotZero(t, gone, base)
	}
}

// A process is killed at any moment, which leaves the cache as it is; the next one
// opens the store by what it sees there, and then the power fails. What it saw may
// not be on the disk: the rename of MANIFEST, say, that lists what it removed.
func TestPowerCutAfterAKillLosesNothing(t *testing.T) {
	fs := faultfs.New()
	var mu sync.Mutex    // the hook runs in whatever goroutine writes
	var steps [][]string // what the store may hold: the last acknowledged step, and the one under way
	killed, cuts := 0, 0
	allowed := func(now *faultfs.FS, where string) {
		db := onDisk(t, now)
		have := scan(t, db, Range{})
		require.True(t, slices.ContainsFunc(steps, func(step []string) bool { return slices.Equal(step, have) }), "%s: %q", where, have)
		require.NoError(t, db.Close())
	}
	fs.Hook(func(op faultfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if !op.Kind.Changes() || len(steps) == 0 {
			return
		}
		killed++
		where := fmt.Sprintf("killed before operation %d, %v %s", op.N, op.Kind, op.Path)
		again := fs.Kill()
		db := onDisk(t, again)
		for range 2 { // before and after it is closed
			n := again.Pending()
			for i := range n + 2 {
				cuts++
				cut := again.Crash(func(j int) bool { return i == n || i < n && j == i })
				allowed(cut, fmt.Sprintf("%s, then a power cut that keeps %d of %d", where, i, n))
			}
			require.NoError(t, db.Close())
		}
	})
	db := onDisk(t, fs)
	step := func(state ...string) {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, state)
	}
	step()
	key := func(i int) string { return fmt.Sprint("k", i%2) }
	state := map[string]string{}
	for i := range 3 {
		state[key(i)] = fmt.Sprint(i, strings.Repeat("x", 2500))
		var next []string
		for _, k := range slices.Sorted(maps.Keys(state)) {
			next = append(next, k+"="+state[k])
		}
		step(next...)
		put(t, db, key(i), state[key(i)])
		mu.Lock()
		steps = steps[1:] // it is acknowledged
		mu.Unlock()
	}
	_, err := db.Compact(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	fs.Hook(nil)
	allowed(fs, "closed")
	require.Greater(t, killed, 30)
	require.Greater(t, cuts, 150)
}

// The first MANIFEST was renamed, and the process killed before the directory was
// synced. The next one sees it, and makes the first segment: a power cut must not
// leave that alone. After a failed sync syncing again would do nothing.
func TestFirstManifestIsDurableBeforeTheFirstSegment(t *testing.T) {
	for _, failed := range []bool{false, true} {
		fs := faultfs.New()
		require.NoError(t, fs.Mkdir("/store", 0o700))
		require.NoError(t, fs.SyncDir("/"))
		fs.Inject(func(op faultfs.Op) *faultfs.Fault {
			if failed && op.Kind == faultfs.SyncDir && op.Path == "/store" {
				return &faultfs.Fault{Err: syscall.EIO}
			}
			return nil
		})
		var killed *faultfs.FS
		fs.Hook(func(op faultfs.Op) {
			if !failed && op.Kind == faultfs.SyncDir && op.Path == "/store" && killed == nil {
				killed = fs.Kill()
			}
		})
		db, err := Open("/store", &Options{FS: fs})
		if failed {
			require.ErrorIs(t, err, syscall.EIO)
			killed = fs.Kill()
		} else {
			require.NoError(t, err)
			defer db.Close()
		}
		fs.Hook(nil)

		killed.Hook(func(op faultfs.Op) {
			if !op.Kind.Changes() {
				return
			}
			for i := range killed.Pending() {
				again, err := Open("/store", &Options{FS: killed.Crash(func(j int) bool { return j != i })})
				require.NoError(t, err, "before operation %d, %v %s, without effect %d", op.N, op.Kind, op.Path, i)
				require.NoError(t, again.Close())
			}
		})
		db, err = Open("/store", &Options{FS: killed})
		require.NoError(t, err)
		put(t, db, "k", "1")
		killed.Hook(nil)
		require.NoError(t, db.Close())
	}
}

// A recovery's copy whose removal a crash took back is told from records that
// MANIFEST is too old to know by its number: MANIFEST counted it.
func TestCopyThatAnInterruptedRecoveryMadeComesBack(t *testing.T) {
	for next, want := range map[uint64]error{4: nil, 3: ErrCorrupt} {
		dir := filepath.Join(t.TempDir(), "store")
		require.NoError(t, os.Mkdir(dir, 0o700))
		m := segment.Manifest{Store: mine, Generation: 3, Next: next, Seq: 2, History: 1}
		require.NoError(t, os.WriteFile(filepath.Join(dir, manifestName), m.Append(nil), 0o600))
		write(t, dir, 3, `{"annals":1,"store":"`+mine+`","segment":3,"first":2,"from":[2]}`, putLine(2, "a"))
		db, err := Open(dir, nil)
		require.ErrorIs(t, err, want)
		if err == nil {
			absent(t, db, "a")
			require.NoError(t, db.Close())
		}
	}
}
