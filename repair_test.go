package annals

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// repaired repairs a directory and opens the outcome.
func repaired(t testing.TB, dir string) (*Store, RepairReport) {
	t.Helper()
	before := tree(t, dir)
	dest := filepath.Join(t.TempDir(), "repaired")
	report, err := Repair(t.Context(), dir, dest, nil)
	require.NoError(t, err)
	sameTree(t, before, tree(t, dir))
	verifyClean(t, dest)
	return openAt(t, dest, nil), report
}

func TestRepairOfAWholeStoreKeepsEverything(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		db, want, all := filled(t, &Options{Compaction: Compaction{Off: true}})
		if compacted {
			compactAll(t, db)
		}
		for _, dir := range []string{killed(t, db), db.dir} {
			if dir == db.dir {
				require.NoError(t, db.Close())
			}
			again, report := repaired(t, dir)
			require.Empty(t, report.Lost)
			want.holds(t, again)
			require.Equal(t, plain(all), plain(samples(t, again, "s", Window{})))
			put(t, again, "next", "1")
			require.EqualValues(t, 202, again.Stats().LastSeq, "no number is given again")
		}
	}
}

// Every key and every sample has a line of its own: what k damaged lines hold is
// lost, and no more.
func TestDamagedLinesCostNoMoreThanThemselves(t *testing.T) {
	rng := seed.Rand(t)
	for range 20 {
		db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
		const n = 150
		for i := range n {
			if i%3 == 0 {
				_, err := db.Append("s", fmt.Append(nil, i))
				require.NoError(t, err)
			} else {
				put(t, db, fmt.Sprintf("k%03d", i), fmt.Sprint(i))
			}
		}
		dir := killed(t, db)
		if rng.IntN(2) == 0 {
			require.NoError(t, db.Close())
			dir = copyDir(t, db.dir)
		}
		damaged := map[int]bool{}
		for range 1 + rng.IntN(8) {
			damaged[rng.IntN(n)] = true
		}
		for _, path := range segmentsIn(t, dir) {
			edit(t, path, func(text []byte) []byte {
				for i := range damaged {
					mark := fmt.Appendf(nil, `{"seq":%d,`, i+1)
					if at := indexIn(text, mark); at >= 0 {
						text[at+rng.IntN(len(mark)+8)] ^= 1 << rng.IntN(3)
					}
				}
				return text
			})
		}
		again, report := repaired(t, dir)
		require.NotEmpty(t, report.Lost)
		require.GreaterOrEqual(t, int(report.Records), n-len(damaged))
		for i := range n {
			if damaged[i] {
				continue
			}
			if i%3 > 0 {
				present(t, again, fmt.Sprintf("k%03d", i), fmt.Sprint(i))
			}
		}
		require.GreaterOrEqual(t, len(samples(t, again, "s", Window{}))+len(scan(t, again, Range{})), n-len(damaged))
		put(t, again, "next", "1")
		require.Greater(t, again.Stats().LastSeq, uint64(n-len(damaged)))
	}
}

func indexIn(text, mark []byte) int {
	for i := 0; i+len(mark) <= len(text); i++ {
		if string(text[i:i+len(mark)]) == string(mark) {
			return i
		}
	}
	return -1
}

func TestLostManifestIsRebuilt(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"missing": os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, []byte("{}\n"), 0o600) },
	} {
		for _, compacted := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", compacted: ", compacted), func(t *testing.T) {
				db, want, all := filled(t, &Options{Compaction: Compaction{Off: true}})
				if compacted {
					compactAll(t, db)
				}
				dir := killed(t, db)
				require.NoError(t, lose(filepath.Join(dir, manifestName)))
				_, err := Open(dir, nil)
				require.ErrorIs(t, err, ErrCorrupt)
				again, report := repaired(t, dir)
				require.Empty(t, report.Lost, "no record")
				require.Len(t, report.Damage, 1)
				require.Equal(t, filepath.Join(dir, manifestName), report.Damage[0].Path)
				want.holds(t, again)
				require.Equal(t, plain(all), plain(samples(t, again, "s", Window{})))
				require.Equal(t, db.Stats().Store, again.Stats().Store)
				put(t, again, "k00", "new")
				present(t, again, "k00", "new")
			})
		}
	}
}

func TestRepairAfterOldManifest(t *testing.T) {
	db := open(t, &Options{Compaction: Compaction{Off: true}})
	put(t, db, "a", "1")
	old, err := os.ReadFile(filepath.Join(db.dir, manifestName))
	require.NoError(t, err)
	db = reopen(t, db, &Options{Compaction: Compaction{Off: true}})
	put(t, db, "b", "2")
	require.NoError(t, db.Close())
	dir := copyDir(t, db.dir)
	edit(t, filepath.Join(dir, manifestName), func([]byte) []byte { return old })
	again, report := repaired(t, dir)
	require.Empty(t, report.Lost)
	require.Contains(t, report.Damage[0].Reason, "older than the log")
	require.Equal(t, []string{"a=1", "b=2"}, scan(t, again, Range{}))
}

func TestRepairLeavesOutSegmentsOfOtherStores(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "mine")
	other := open(t, nil)
	put(t, other, "k", "theirs")
	put(t, other, "l", "theirs")
	require.NoError(t, other.Close())
	dir := killed(t, db)
	text, err := os.ReadFile(segmentsIn(t, other.dir)[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, segment.Name(7)), text, 0o600))
	require.NoError(t, os.Remove(filepath.Join(dir, manifestName)))
	again, report := repaired(t, dir)
	require.Equal(t, []string{"k=mine"}, scan(t, again, Range{}))
	require.Len(t, report.LeftOut, 1)
	require.Equal(t, filepath.Join(dir, segment.Name(7)), report.LeftOut[0].Path)
	require.Contains(t, report.LeftOut[0].Reason, "belongs to store "+other.Stats().Store)
}

func TestRepairOverwritesNothing(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	require.NoError(t, db.Close())
	dest := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dest, "letter.txt"), []byte("dear"), 0o600))
	before := tree(t, dest)
	_, err := Repair(t.Context(), db.dir, dest, nil)
	require.Error(t, err)
	_, err = Repair(t.Context(), db.dir, db.dir, nil)
	require.Error(t, err)
	_, err = Repair(t.Context(), dest, filepath.Join(dest, "new"), nil)
	require.ErrorIs(t, err, ErrNotStore)
	sameTree(t, before, tree(t, dest))
}

func TestRepairOfRandomRubbishEndsWithoutHarm(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	db, _, _ := filled(t, &Options{Compaction: Compaction{Off: true}})
	whole := killed(t, db)
	for range 30 {
		dir := copyDir(t, whole)
		for _, path := range append(segmentsIn(t, dir), filepath.Join(dir, manifestName)) {
			edit(t, path, func(text []byte) []byte {
				for range rng.IntN(10) {
					text[rng.IntN(len(text))] = byte(rng.IntN(256))
				}
				return text[:rng.IntN(len(text)+1)]
			})
		}
		dest := filepath.Join(t.TempDir(), "repaired")
		if _, err := Repair(t.Context(), dir, dest, nil); err != nil {
			require.ErrorIs(t, err, ErrNotStore, "no header is whole")
			continue
		}
		again := openAt(t, dest, nil)
		for e, err := range again.Scan(Range{}) {
			require.NoError(t, err)
			require.Regexp(t, `^value \d+$`, string(e.Value))
		}
		require.NoError(t, again.Close())
	}
}

// write makes a segment file of lines in a directory without MANIFEST; each object
// gets its checksum.
func write(t testing.TB, dir string, number uint64, objects ...string) (path string) {
	t.Helper()
	path = filepath.Join(dir, segment.Name(number))
	text := ""
	for _, object := range objects {
		text += withCRC(object)
	}
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const (
	mine   = "5f0c0d9e1b2a38475665748392a1b0cf"
	theirs = "00000000000000000000000000000000"
)

func firstLine(store string, number, first int) string {
	return fmt.Sprintf(`{"annals":1,"store":"%s","segment":%d,"first":%d}`, store, number, first)
}

func compactedLine(number int, from string) string {
	return fmt.Sprintf(`{"annals":1,"store":"%s","segment":%d,"from":[%s],"compacted":true,"order":"key"}`, mine, number, from)
}

func putLine(seq int, key string) string {
	return fmt.Sprintf(`{"seq":%d,"key":"%s","val":%d}`, seq, key, seq)
}

func delLine(seq int, key string) string {
	return fmt.Sprintf(`{"seq":%d,"key":"%s","del":true}`, seq, key)
}

// What a compaction leaves when it is interrupted, with MANIFEST lost on top.
func TestWithoutManifestADeletedKeyStaysDeleted(t *testing.T) {
	for name, c := range map[string]struct {
		segments map[uint64][]string
		want     []string
		out      []uint64
	}{
		"outputs half written: the inputs count": {map[uint64][]string{
			1: {firstLine(mine, 1, 1), putLine(1, "a"), putLine(2, "b")},
			2: {firstLine(mine, 2, 3), delLine(3, "a"), putLine(4, "c")},
			3: {compactedLine(3, "1,2"), putLine(2, "b")},
		}, []string{"b=2", "c=4"}, nil},
		"an input is gone: the outputs count": {map[uint64][]string{
			1: {firstLine(mine, 1, 1), putLine(1, "a"), putLine(2, "b")},
			3: {compactedLine(3, "1,2"), putLine(2, "b"), putLine(4, "c")},
		}, []string{"b=2", "c=4"}, []uint64{1}},
		"the outputs were compacted again": {map[uint64][]string{
			1: {firstLine(mine, 1, 1), putLine(1, "a"), putLine(2, "b")},
			3: {compactedLine(3, "1"), putLine(1, "a"), putLine(2, "b")},
			5: {compactedLine(5, "3,4"), putLine(2, "b")},
		}, []string{"b=2"}, []uint64{1, 3}},
		"the outputs were compacted again and are gone": {map[uint64][]string{
			1: {firstLine(mine, 1, 1), putLine(1, "a"), putLine(2, "b")},
			5: {compactedLine(5, "3,4"), putLine(2, "b")},
		}, []string{"b=2"}, []uint64{1}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for n, objects := range c.segments {
				write(t, dir, n, objects...)
			}
			again, report := repaired(t, dir)
			require.Equal(t, c.want, scan(t, again, Range{}))
			var out []uint64
			for _, l := range report.LeftOut {
				n, ok := segment.ParseName(filepath.Base(l.Path))
				require.True(t, ok)
				out = append(out, n)
			}
			require.Equal(t, c.out, out)
		})
	}
}

func TestTheNewestRecordOfAKeyWins(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, 1, firstLine(mine, 1, 1), putLine(1, "a"), putLine(2, "b"), delLine(3, "b"))
	write(t, dir, 2, compactedLine(2, "7"), putLine(9, "a"), putLine(5, "c"), delLine(8, "c"))
	again, _ := repaired(t, dir)
	require.Equal(t, []string{"a=9"}, scan(t, again, Range{}))
}

func TestTheStoreIsTheOneOfMostSegments(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, 1, firstLine(theirs, 1, 1), putLine(1, "k"), putLine(2, "theirs"))
	write(t, dir, 2, firstLine(mine, 2, 1), putLine(1, "k"))
	write(t, dir, 3, firstLine(mine, 3, 2), putLine(2, "mine"))
	again, report := repaired(t, dir)
	require.Equal(t, mine, report.Store)
	require.Equal(t, []string{"k=1", "mine=2"}, scan(t, again, Range{}))
	require.Len(t, report.LeftOut, 1)
	require.Empty(t, report.Lost)
}

func TestSegmentsWithoutAHeader(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, 1, firstLine(mine, 1, 1), putLine(1, "a"))
	write(t, dir, 2, putLine(2, "b"), putLine(3, "c"))
	write(t, dir, 3, putLine(1, "other"), putLine(4, "theirs")) // contradicts segment 1
	again, report := repaired(t, dir)
	require.Equal(t, []string{"a=1", "b=2", "c=3"}, scan(t, again, Range{}))
	require.Len(t, report.LeftOut, 1)
	require.Contains(t, report.LeftOut[0].Reason, "record 1 is another one")

	dir = t.TempDir() // nothing says which store it is
	write(t, dir, 1, putLine(1, "a"))
	again, report = repaired(t, dir)
	require.Equal(t, []string{"a=1"}, scan(t, again, Range{}))
	require.True(t, report.OK())
}

func TestLinesWithOneNumberAreListed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, 1, firstLine(mine, 1, 1), putLine(1, "a"), putLine(2, "b"))
	path := write(t, dir, 2, firstLine(mine, 2, 2), putLine(2, "other"))
	again, report := repaired(t, dir)
	require.Equal(t, []string{"a=1", "other=2"}, scan(t, again, Range{}))
	require.Len(t, report.Lost, 1)
	require.EqualValues(t, []uint64{2, 2}, []uint64{report.Lost[0].FirstSeq, report.Lost[0].LastSeq})
	require.Contains(t, report.Lost[0].Reason, filepath.Base(path))
	require.Len(t, report.Kept, 1)
	kept, err := os.ReadFile(report.Kept[0].Path)
	require.NoError(t, err)
	require.Equal(t, withCRC(putLine(2, "b")), string(kept)+"\n")
}

func TestACommitThatIsNotWholeIsKeptAndListed(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, 1, firstLine(mine, 1, 1), putLine(1, "a"), `{"seq":2,"more":true,"key":"b","val":2}`,
		`{"seq":3,"more":true,"key":"c","val":3}`, putLine(4, "d"), `{"seq":5,"dur":4,"key":"e","val":5}`)
	again, report := repaired(t, dir)
	require.Empty(t, report.Partial)
	require.Len(t, scan(t, again, Range{}), 5)
	flip(t, path, `"key":"d"`)
	again, report = repaired(t, dir)
	require.Equal(t, []SeqRange{{2, 3}}, report.Partial)
	require.Equal(t, []string{"a=1", "b=2", "c=3", "e=5"}, scan(t, again, Range{}))
	require.Len(t, report.Lost, 1)
	require.Equal(t, CorruptError{Path: path, Offset: report.Lost[0].Offset, FirstSeq: 4, LastSeq: 4, Reason: report.Lost[0].Reason}, *report.Lost[0])
}

// The end of a log that was being written, as a crash leaves it, was promised to
// nobody: it is kept, and is no loss.
func TestAnUnacknowledgedEndIsNoLoss(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, 1, firstLine(mine, 1, 1), putLine(1, "a"), `{"seq":2,"dur":1,"key":"b","val":2}`)
	edit(t, path, func(text []byte) []byte { return append(text, `{"seq":3,"dur":2,"key":"c`...) })
	again, report := repaired(t, dir)
	require.Equal(t, []string{"a=1", "b=2"}, scan(t, again, Range{}))
	require.True(t, report.OK())
	require.Len(t, report.Damage, 2, "MANIFEST and the end")
	require.Contains(t, report.Damage[1].Reason, "nothing proves")
	require.Len(t, report.Kept, 1)
}

func TestMissingNumbersBetweenSegmentsAreListed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, 1, firstLine(mine, 1, 1), putLine(1, "a"))
	write(t, dir, 3, firstLine(mine, 3, 7), putLine(7, "b"))
	_, report := repaired(t, dir)
	require.Len(t, report.Lost, 1)
	require.EqualValues(t, []uint64{2, 6}, []uint64{report.Lost[0].FirstSeq, report.Lost[0].LastSeq})
}

func TestRepairStaysOutOfItsSource(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	dir := killed(t, db)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	before := tree(t, dir)
	for _, dest := range []string{dir, filepath.Join(dir, "new"), filepath.Join(dir, "a", "b"), filepath.Join(link, "new"), link} {
		_, err := Repair(t.Context(), dir, dest, nil)
		require.ErrorContains(t, err, "only read", dest)
		_, err = Repair(t.Context(), link, dest, nil)
		require.ErrorContains(t, err, "only read", dest)
	}
	sameTree(t, before, tree(t, dir))
	_, err := Repair(t.Context(), link, filepath.Join(filepath.Dir(link), "new"), nil)
	require.NoError(t, err)
}

// A store has many records, and all of them are noted at once.
func TestANotedRecordIsSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(savedRecord{}), uintptr(24))
}

// Numbers tell what is lost also where the first lines are gone altogether, or
// where nothing is left of an open segment but its footer.
func TestLostFirstLinesAreListed(t *testing.T) {
	db := open(t, nil)
	put(t, db, "a", "1")
	put(t, db, "b", "2")
	killed := killed(t, db)
	require.NoError(t, db.Close())
	closed := t.TempDir()
	require.NoError(t, os.CopyFS(closed, os.DirFS(db.dir)))
	edit(t, filepath.Join(closed, segment.Name(1)), func(text []byte) []byte {
		return bytes.SplitN(text, []byte("\n"), 3)[2]
	})
	_, report := repaired(t, closed)
	require.Len(t, report.Lost, 1)
	require.EqualValues(t, []uint64{1, 1}, []uint64{report.Lost[0].FirstSeq, report.Lost[0].LastSeq})

	footer := segment.Footer{Segment: 1, First: 1, Last: 2, Records: 2}
	edit(t, filepath.Join(killed, segment.Name(1)), func([]byte) []byte { return footer.AppendLine([]byte("rubbish\n")) })
	_, report = repaired(t, killed)
	require.Len(t, report.Lost, 1)
	require.EqualValues(t, []uint64{1, 2}, []uint64{report.Lost[0].FirstSeq, report.Lost[0].LastSeq})
}
