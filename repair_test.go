package annals

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

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
	rng := seeded(t)
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
