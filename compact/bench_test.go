package compact

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// BenchmarkRun is a job of which every third line is dead, with a Judge that costs
// nothing, and a copy of its inputs with an fsync each for comparison.
func BenchmarkRun(b *testing.B) {
	const keys, inputs = 100_000, 3
	dir := b.TempDir()
	job := &Job{
		FS: replace.OS, Dir: dir, Store: storeID, SegmentSize: 16 << 20,
		NewSegment: func() func() uint64 { n := uint64(100); return func() uint64 { n++; return n } }(),
		Pace:       func(context.Context, int) error { return nil },
	}
	job.Judge = func(_ uint64, l *segment.Line) Verdict {
		v := &l.View
		if v.Seq%3 == 0 {
			return Drop
		}
		return Keep
	}
	bytes, seq := int64(0), uint64(0)
	var paths []string
	for i := range inputs {
		w, err := NewWriter(replace.OS, dir, segment.Header{Store: storeID, Segment: uint64(i + 1), First: seq + 1})
		require.NoError(b, err)
		for range keys {
			seq++
			r := segment.Record{Kind: segment.Put, Seq: seq, Name: fmt.Sprintf("key%013d", seq*7919%1e6), Value: []byte(`{"name":"Ann","age":41,"filler":"0123456789012345678901234567890123456789012345678901234567890123456"}`)}
			_, err := w.Add(seq, segment.AppendRecord(nil, &r))
			require.NoError(b, err)
		}
		f, err := w.Finish()
		require.NoError(b, err)
		file, err := os.Open(w.Path())
		require.NoError(b, err)
		defer file.Close()
		bytes += f.Size()
		paths = append(paths, w.Path())
		job.Inputs = append(job.Inputs, Input{Footer: f, Path: w.Path(), R: file})
	}
	for _, parallel := range []bool{false, true} {
		b.Run(fmt.Sprintf("parallel=%v", parallel), func(b *testing.B) {
			job.Parallel = parallel
			b.SetBytes(bytes)
			b.ReportAllocs()
			for b.Loop() {
				result, err := Run(b.Context(), job)
				require.NoError(b, err)
				b.StopTimer()
				for _, out := range result.Outputs {
					require.NoError(b, os.Remove(filepath.Join(dir, segment.Name(out.Header.Segment))))
				}
				b.StartTimer()
			}
			took := b.Elapsed() / time.Duration(b.N)
			begun := time.Now()
			for i, path := range paths {
				data, err := os.ReadFile(path)
				require.NoError(b, err)
				require.NoError(b, replace.WriteFile(filepath.Join(dir, fmt.Sprint("copy", i)), data))
			}
			b.ReportMetric(time.Since(begun).Seconds()/took.Seconds(), "of-copy")
		})
	}
}
