package annals

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJSONHelpersWorkWithAllThatReadsAndWrites(t *testing.T) {
	type user struct {
		Name string `json:"name"`
		Age  int    `json:"age"`
	}
	ann := user{"Ann <&> \u2028", 41}
	db := open(t, nil)
	require.NoError(t, PutJSON(db, "a", ann))
	require.NoError(t, db.Update(func(tx *Tx) error {
		have, err := GetJSON[user](tx, "a")
		require.NoError(t, err)
		require.Equal(t, ann, have)
		return PutJSON(tx, "b", have, IfAbsent())
	}))
	require.ErrorIs(t, PutJSON(db, "b", ann, IfAbsent()), ErrConflict)
	present(t, db, "b", `{"name":"Ann <&> \u2028","age":41}`)
	require.NoError(t, db.View(func(s *Snapshot) error {
		have, err := GetJSON[user](s, "b")
		require.Equal(t, ann, have)
		return err
	}))
	_, err := GetJSON[user](db, "none")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = GetJSON[int](db, "a")
	require.ErrorContains(t, err, `"a"`)
	require.ErrorContains(t, PutJSON(db, "bad", func() {}), `"bad"`)
	absent(t, db, "bad")
	require.NoError(t, db.Close())
	r, err := OpenReader(db.dir, nil)
	require.NoError(t, err)
	defer r.Close()
	have, err := GetJSON[user](r, "a")
	require.NoError(t, err)
	require.Equal(t, ann, have)
}
