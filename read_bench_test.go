package annals

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/index"
)

// readKeys is how many keys the benchmarks below read from: far more than any
// cache holds.
const readKeys = 1_000_000

// million is one store of a million keys for all benchmarks, made when the first
// one asks: loaded in random order, and a second one that is compacted.
var million struct {
	sync.Mutex
	stores map[bool]*Store
}

// millionStore returns a store whose lines lie at random, or compacted in the
// order of keys. It is left behind at the end, as the directory is.
func millionStore(b *testing.B, compacted bool) *Store {
	million.Lock()
	defer million.Unlock()
	if db := million.stores[compacted]; db != nil {
		return db
	}
	db, err := Open(b.TempDir(), &Options{Sync: SyncNever, Compaction: Compaction{Off: true}, AllowSharedDir: true})
	require.NoError(b, err)
	order := rand.New(rand.NewPCG(1, 2)).Perm(readKeys)
	for len(order) > 0 {
		var batch Batch
		for _, i := range order[:1000] {
			batch.Put(fmt.Sprintf("key%013d", i), benchValue)
		}
		order = order[1000:]
		_, err := db.Apply(&batch)
		require.NoError(b, err)
	}
	if compacted {
		_, err = db.Compact(context.Background(), nil)
	} else {
		_, err = db.Sync(context.Background())
	}
	require.NoError(b, err)
	if million.stores == nil {
		million.stores = map[bool]*Store{}
	}
	million.stores[compacted] = db
	runtime.GC()
	return db
}

// BenchmarkRead reads records in random order, whose index entries are known: a
// Get without its look into the index.
func BenchmarkRead(b *testing.B) {
	db := millionStore(b, false)
	var entries []index.Entry
	for e := range db.index.Snapshot().Range("", "", false) {
		entries = append(entries, e)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	for _, readers := range []int{1, 2} {
		b.Run(fmt.Sprintf("goroutines=%d", readers), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(1)
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(readers))
			var begin atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				n := int(begin.Add(readKeys/2)) % len(entries)
				for pb.Next() {
					e := entries[n]
					if n++; n == len(entries) {
						n = 0
					}
					d := desks.Get().(*desk)
					v := db.files.enter(d.lane)
					_, err := db.read(v.byID[e.Segment], e, d)
					v.leave(d.lane)
					desks.Put(d)
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkScanMillion counts one row as one operation.
func BenchmarkScanMillion(b *testing.B) {
	for _, compacted := range []bool{false, true} {
		db := millionStore(b, compacted)
		b.Run(fmt.Sprintf("compacted=%v/values", compacted), func(b *testing.B) { scanRows(b, db, Range{}) })
		b.Run(fmt.Sprintf("compacted=%v/keys", compacted), func(b *testing.B) { scanRows(b, db, Range{KeysOnly: true}) })
		b.Run(fmt.Sprintf("compacted=%v/rows=50", compacted), func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; n < b.N; {
				from := fmt.Sprintf("key%013d", rand.IntN(readKeys))
				n++
				for _, err := range db.Scan(Range{From: from, Limit: 50}) {
					if n++; err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func scanRows(b *testing.B, db *Store, r Range) {
	b.ReportAllocs()
	for n := 0; n < b.N; {
		for _, err := range db.Scan(r) {
			if err != nil {
				b.Fatal(err)
			}
			if n++; n == b.N {
				break
			}
		}
	}
}
