package annals

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A store of samples alone has no keys that change, and was never worth an INDEX:
// a recorder's log was read from end to end at every Open.
func TestStoreOfSamplesAloneSavesItsIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	db, err := Open(dir, nil)
	require.NoError(t, err)
	var b Batch
	for range fewAtClose {
		b.Append("hall-003", []byte(`{"t":21.5}`))
	}
	_, err = db.Apply(&b)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	db, err = Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	require.EqualValues(t, fewAtClose, db.Recovery().Indexed)
	require.Zero(t, db.Recovery().Replayed)
	n := 0
	for s, err := range db.Samples("hall-003", Window{}) {
		n++
		require.NoError(t, err)
		require.EqualValues(t, n, s.Seq)
	}
	require.Equal(t, fewAtClose, n)
	changes, _ := db.index.Changes()
	require.Zero(t, changes)
}
