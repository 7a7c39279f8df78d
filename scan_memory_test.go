package annals

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A scan of long values holds few of them, whether it is the loop that is slow, so that
// rows are made ahead of it, or the reading.
func TestScanOfLongValuesTakesLittleMemory(t *testing.T) {
	db := open(t, &Options{Sync: SyncNever, Compaction: Compaction{Off: true}})
	value := []byte(`"` + strings.Repeat("x", 128<<10) + `"`)
	for i := range 1000 {
		require.NoError(t, db.Put(fmt.Sprintf("%04d", i), value))
	}
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for _, pause := range []time.Duration{0, 50 * time.Millisecond} {
		before, row := heap(), 0
		for _, err := range db.Scan(Range{}) {
			require.NoError(t, err)
			if row++; row%240 == 0 {
				time.Sleep(pause)
				require.Less(t, heap()-before, 8<<20, "at row %d, pause %v", row, pause)
			}
		}
		require.Equal(t, 1000, row)
	}
}
