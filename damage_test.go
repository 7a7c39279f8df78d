package annals

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Bugs that the sweep of package fuzz has found, each in its smallest form.

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
