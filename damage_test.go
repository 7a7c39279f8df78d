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
