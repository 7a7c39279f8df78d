package annals

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A million keys in random order, a tenth of them overwritten and a tenth deleted.
// Value and presence of a key follow from its number, which is the model.
func TestMillionKeys(t *testing.T) {
	n := 1_000_000
	if raceDetector {
		n = 100_000
	}
	begun := time.Now()
	name := func(i int) string { return fmt.Sprintf("key%08d", i) }
	value := func(i int) string {
		if i%10 == 3 {
			return fmt.Sprintf(`{"second":%d}`, i)
		}
		return fmt.Sprintf(`{"first":%d}`, i)
	}
	alive := func(i int) bool { return i%10 != 7 }
	db := open(t, &Options{Compaction: Compaction{Rate: 1 << 30}})
	var b Batch
	flush := func() {
		_, err := db.Apply(&b)
		require.NoError(t, err)
		b.Reset()
	}
	order := rand.New(rand.NewPCG(7, 7)).Perm(n)
	for j, i := range order {
		b.Put(name(i), fmt.Appendf(nil, `{"first":%d}`, i))
		if j%1000 == 999 {
			flush()
		}
	}
	for j, i := range order {
		if i%10 == 3 {
			b.Put(name(i), []byte(value(i)))
		} else if !alive(i) {
			b.Delete(name(i))
		}
		if j%5000 == 4999 {
			flush()
		}
	}
	flush()
	check := func(when string) {
		t.Helper()
		for i := 0; i < n; i += 7 {
			v, err := db.Get(name(i))
			if !alive(i) {
				require.ErrorIs(t, err, ErrNotFound)
			} else if err != nil || string(v) != value(i) {
				require.FailNow(t, "wrong value", "%s: key %d is %q, %v", when, i, v, err)
			}
		}
		i := 0
		for e, err := range db.Scan(Range{}) {
			for !alive(i) {
				i++
			}
			if err != nil || e.Key != name(i) || string(e.Value) != value(i) {
				require.FailNow(t, "wrong entry", "%s: %q %q instead of %q, %v", when, e.Key, e.Value, name(i), err)
			}
			i++
		}
		require.GreaterOrEqual(t, i, n-1, "%s: the scan ends early", when)
		require.Equal(t, n/10*9, db.Stats().Keys)
	}
	check("loaded")
	db = reopen(t, db, nil)
	require.Equal(t, n/10*9, db.Stats().Keys)
	before := db.Stats().Bytes
	compactAll(t, db)
	require.LessOrEqual(t, db.Stats().Bytes, before)
	db = reopen(t, db, nil)
	check("reopened, compacted and reopened")
	t.Logf("%d keys in %v", n, time.Since(begun))
}
