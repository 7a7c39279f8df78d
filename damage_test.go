package annals

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Bugs that the sweep of package fuzz has found, each in its smallest form.

// compactedSamples is a closed store with a segment of keys and one of samples.
func compactedSamples(t *testing.T) (dir, keys, samples string) {
	t.Helper()
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), nil)
	put(t, db, "a", "1")
	for _, v := range []string{"1", "2", "3", "4"} {
		_, err := db.Append("s", []byte(v))
		require.NoError(t, err)
	}
	_, err := db.Compact(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	paths := segmentsIn(t, db.dir)
	require.Len(t, paths, 2)
	keys, samples = paths[0], paths[1]
	if text, err := os.ReadFile(keys); err != nil || bytes.Contains(text, []byte(`"order":"seq"`)) {
		keys, samples = samples, keys
	}
	return db.dir, keys, samples
}

// The header of a segment of samples, in the place of one with keys, must not
// make Open believe that no key was lost.
func TestAnotherFileInThePlaceOfASegmentOfKeysIsRefused(t *testing.T) {
	dir, keys, samples := compactedSamples(t)
	text, err := os.ReadFile(samples)
	require.NoError(t, err)
	edit(t, keys, func([]byte) []byte { return text })
	refused(t, dir, ErrCorrupt)
}

// Lines can be missing though all that are there are whole. Who reads the samples,
// or how many there are, must be told.
func TestSamplesThatAreMissingAreAnError(t *testing.T) {
	for why, change := range map[string]func(lines [][]byte) [][]byte{
		"a line deleted":              func(l [][]byte) [][]byte { return append(l[:2], l[3:]...) },
		"the last deleted":            func(l [][]byte) [][]byte { return append(l[:4], l[5:]...) },
		"a line doubled":              func(l [][]byte) [][]byte { return append(l[:3], l[2:]...) },
		"lines exchanged":             func(l [][]byte) [][]byte { l[1], l[3] = l[3], l[1]; return l },
		"the last behind the footer":  func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l },
		"newlines in place of a line": func(l [][]byte) [][]byte { l[2] = bytes.Repeat([]byte("\n"), len(l[2])); return l },
		"cut behind a line":           func(l [][]byte) [][]byte { return l[:3] },
		"cut behind the header":       func(l [][]byte) [][]byte { return l[:1] },
	} {
		t.Run(why, func(t *testing.T) {
			dir, _, path := compactedSamples(t)
			edit(t, path, func(text []byte) []byte {
				lines := bytes.SplitAfter(bytes.Clone(text), []byte("\n"))
				lines = lines[:len(lines)-1]
				cloned := make([][]byte, len(lines), 2*len(lines))
				copy(cloned, lines)
				return bytes.Join(change(cloned), nil)
			})
			db := openDamaged(t, dir, nil)
			present(t, db, "a", "1")
			require.ErrorIs(t, firstError(db.Samples("s", Window{})), ErrCorrupt)
			require.ErrorIs(t, firstError(db.Series()), ErrCorrupt)
			last := uint64(0)
			for s, err := range db.Samples("s", Window{}) {
				if err == nil {
					require.Greater(t, s.Seq, last, "out of order, or twice")
					last = s.Seq
				}
			}
		})
	}
}

// The file is cut under a store that is open.
func TestASegmentCutWhileItIsReadIsDamaged(t *testing.T) {
	dir, keys, samples := compactedSamples(t)
	db := openDamaged(t, dir, nil)
	for _, path := range []string{keys, samples} {
		require.NoError(t, os.Truncate(path, 130))
	}
	require.ErrorIs(t, firstError(db.Samples("s", Window{})), ErrCorrupt)
	require.ErrorIs(t, firstError(db.Scan(Range{})), ErrCorrupt)
}

// A damaged footer costs no record.
func TestADamagedFooterOfASegmentOfSamplesCostsNoSample(t *testing.T) {
	dir, _, path := compactedSamples(t)
	flip(t, path, `"sealed":`)
	db := openDamaged(t, dir, nil)
	require.Len(t, samples(t, db, "s", Window{}), 4)
	require.NotEmpty(t, db.Stats().Damage)
}

// MANIFEST is older than what recovery, or compaction, made of other segments: to
// take that for a leftover would remove records that nothing else holds.
func TestAnOlderManifestBesideARecoveredSegmentIsRefused(t *testing.T) {
	db := open(t, nil)
	put(t, db, "a", "1")
	require.NoError(t, db.Close())
	manifest := filepath.Join(db.dir, manifestName)
	older, err := os.ReadFile(manifest)
	require.NoError(t, err)
	db = reopen(t, db, nil)
	put(t, db, "b", "2")
	dir := killed(t, db)
	require.NoError(t, openDamaged(t, dir, nil).Close())
	edit(t, filepath.Join(dir, manifestName), func([]byte) []byte { return older })
	refused(t, dir, ErrCorrupt)
}
