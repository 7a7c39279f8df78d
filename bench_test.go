package annals

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/replace"
)

// benchValue is JSON of 100 bytes.
var benchValue = []byte(`{"name":"Ann","age":41,"filler":"0123456789012345678901234567890123456789012345678901234567890123456"}`)

func benchStore(b *testing.B, opts *Options) *Store {
	db, err := Open(filepath.Join(b.TempDir(), "store"), opts)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	return db
}

// BenchmarkFloor is what a durable put cannot beat: the same bytes, written and
// synced into a file whose size does not change.
func BenchmarkFloor(b *testing.B) {
	file := benchFloor(b)
	line := make([]byte, 160)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		file.WriteAt(line, int64(i*len(line))%(1<<20-int64(len(line))))
		if err := file.SyncData(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchFloor(b *testing.B) replace.File {
	file, err := replace.OS.OpenFile(filepath.Join(b.TempDir(), "floor"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(b, err)
	b.Cleanup(func() { file.Close() })
	_, err = file.WriteAt(make([]byte, 1<<20), 0)
	require.NoError(b, err)
	require.NoError(b, file.Sync())
	return file
}

func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			db := benchStore(b, nil)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					key := []byte("key0000000000000")
					for n := left.Add(-1); n >= 0; n = left.Add(-1) {
						number(key, int(n))
						if err := db.Put(string(key), benchValue); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/float64(max(db.Stats().Batches, 1)), "puts/sync")
		})
	}
}

// BenchmarkPutBesideFloor takes turns with the floor, so that a busy machine and a
// slow disk meet both alike. The ratio of the medians is what to look at.
func BenchmarkPutBesideFloor(b *testing.B) {
	db := benchStore(b, nil)
	file := benchFloor(b)
	line := make([]byte, 160)
	key := []byte("key0000000000000")
	var puts, floors []time.Duration
	for i := 0; b.Loop(); i++ {
		begun := time.Now()
		file.WriteAt(line, int64(i*len(line))%(1<<20-int64(len(line))))
		if err := file.SyncData(); err != nil {
			b.Fatal(err)
		}
		floor := time.Now()
		number(key, i)
		if err := db.Put(string(key), benchValue); err != nil {
			b.Fatal(err)
		}
		puts = append(puts, time.Since(floor))
		floors = append(floors, floor.Sub(begun))
	}
	slices.Sort(puts)
	slices.Sort(floors)
	put, floor := puts[len(puts)/2], floors[len(floors)/2]
	b.ReportMetric(float64(put.Nanoseconds()), "ns/put")
	b.ReportMetric(float64(floor.Nanoseconds()), "ns/floor")
	b.ReportMetric(float64(floor)/float64(put), "of-floor")
}

func BenchmarkPutBuffered(b *testing.B) {
	for _, size := range []int{100, 64 << 10} {
		b.Run(fmt.Sprintf("value=%d", size), func(b *testing.B) {
			db := benchStore(b, &Options{Sync: SyncEvery(100e6)})
			value := benchValue
			if size != 100 {
				value = fmt.Appendf(nil, `{"v":"%s"}`, strings.Repeat("v", size-8))
				b.SetBytes(int64(size))
			}
			key := []byte("key0000000000000")
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				number(key, i)
				if err := db.Put(string(key), value); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(db.Stats().Records)/float64(max(db.Stats().Batches, 1)), "puts/write")
		})
	}
}

// number writes a number into the end of a key.
func number(key []byte, n int) {
	for i := len(key) - 1; n > 0; i, n = i-1, n/10 {
		key[i] = '0' + byte(n%10)
	}
}

func BenchmarkAppend(b *testing.B) {
	db := benchStore(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		_, err := db.Append("series", benchValue)
		require.NoError(b, err)
	}
}

const benchKeys = 100_000

func filledBench(b *testing.B) *Store {
	db := benchStore(b, nil)
	var batch Batch
	for i := range benchKeys {
		batch.Put(fmt.Sprintf("key%013d", i*7919%benchKeys), benchValue)
	}
	_, err := db.Apply(&batch)
	require.NoError(b, err)
	return db
}

func BenchmarkGet(b *testing.B) {
	db := filledBench(b)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		_, err := db.Get(fmt.Sprintf("key%013d", n*7919%benchKeys))
		require.NoError(b, err)
	}
}

// BenchmarkScan counts one key with its value as one operation.
func BenchmarkScan(b *testing.B) {
	db := filledBench(b)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		for _, err := range db.Scan(Range{}) {
			require.NoError(b, err)
			if n++; n == b.N {
				break
			}
		}
	}
}

// BenchmarkLoad counts one record of a synced batch of a thousand as one operation.
func BenchmarkLoad(b *testing.B) {
	db := benchStore(b, nil)
	keys := make([]string, 1000)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += len(keys) {
		b.StopTimer()
		for i := range keys {
			keys[i] = fmt.Sprintf("key%013d", (n+i)*7919%10_000_019)
		}
		b.StartTimer()
		var batch Batch
		for _, key := range keys {
			batch.Put(key, benchValue)
		}
		if _, err := db.Apply(&batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCompact compacts a store in which every third line is dead, and copies
// its files with an fsync each, for comparison. One operation is all of it.
func BenchmarkCompact(b *testing.B) {
	const keys = 200_000
	for b.Loop() {
		b.StopTimer()
		db := benchStore(b, &Options{Compaction: Compaction{Off: true}})
		for from := range 3 {
			for n := 0; n < keys; {
				var batch Batch
				for ; batch.Len() < 1000 && n < keys; n++ {
					if from < 2 && n%2 == from || from == 2 && n%4 < 2 {
						batch.Put(fmt.Sprintf("key%013d", n*7919%keys), benchValue)
					}
				}
				_, err := db.Apply(&batch)
				require.NoError(b, err)
			}
		}
		require.NoError(b, db.log.Rotate(b.Context()))
		begun := time.Now()
		bytes := copySegments(b, db.dir, b.TempDir())
		copying := time.Since(begun)
		b.StartTimer()
		begun = time.Now()
		_, err := db.Compact(b.Context(), nil)
		require.NoError(b, err)
		b.SetBytes(bytes)
		b.ReportMetric(copying.Seconds()/time.Since(begun).Seconds(), "of-copy")
	}
}

func copySegments(b *testing.B, from, to string) (bytes int64) {
	for _, path := range segmentsIn(b, from) {
		in, err := os.Open(path)
		require.NoError(b, err)
		out, err := os.Create(filepath.Join(to, filepath.Base(path)))
		require.NoError(b, err)
		n, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 1<<20))
		require.NoError(b, err)
		require.NoError(b, out.Sync())
		require.NoError(b, errors.Join(in.Close(), out.Close()))
		bytes += n
	}
	return bytes
}
