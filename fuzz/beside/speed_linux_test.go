package beside

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
)

func init() {
	roles["timer"] = timeRecords
	roles["idler"] = idle
}

// timeRecords watches and prints when it was given which record.
func timeRecords(dir string, _ *witness, args []string) error {
	from, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	db, err := annals.OpenReader(dir, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		bufio.NewReader(os.Stdin).ReadByte()
	}()
	fmt.Println("ready")
	for rec, err := range db.Watch(ctx, from) {
		now := time.Now().UnixNano()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(out, rec.Seq, now)
	}
	return nil
}

// idle is a reader that follows, watches and looks at a key a hundred times a second.
func idle(dir string, _ *witness, _ []string) error {
	db, err := annals.OpenReader(dir, &annals.ReaderOptions{Follow: true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		bufio.NewReader(os.Stdin).ReadByte()
	}()
	go func() {
		for ctx.Err() == nil {
			_, _ = db.Get("a")
			time.Sleep(10 * time.Millisecond)
		}
	}()
	fmt.Println("ready")
	for from := db.Stats().LastSeq + 1; ctx.Err() == nil; {
		for rec, err := range db.Watch(ctx, from) {
			var gone *annals.CompactedError
			switch {
			case errors.As(err, &gone): // while the process was stopped
				from = gone.First
			case err != nil && ctx.Err() == nil:
				return err
			case err == nil:
				from = rec.Seq + 1
			}
		}
	}
	return db.Close()
}

// latencies writes puts one after the other, with a pause between them, beside a
// watching process, and returns how long after the writer was told the watcher was
// given each record.
func latencies(t testing.TB, puts int, pause time.Duration, policy annals.SyncPolicy) (all []time.Duration) {
	home := tempDir(t)
	dir := filepath.Join(home, "store")
	db, err := annals.Open(dir, &annals.Options{Sync: policy})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Put("a", nil))
	_, err = db.Sync(t.Context())
	require.NoError(t, err)
	watcher := startAs(t, "timer", dir, witnessFile(t, home), "2")
	require.True(t, watcher.out.Scan())
	told := map[uint64]int64{}
	for range puts {
		time.Sleep(pause)
		seq, err := db.Append("s", value(1))
		require.NoError(t, err)
		if policy != annals.SyncAlways {
			_, err = db.Sync(t.Context())
			require.NoError(t, err)
		}
		told[seq] = time.Now().UnixNano()
	}
	time.Sleep(300 * time.Millisecond)
	require.NoError(t, watcher.in.Close())
	for watcher.out.Scan() {
		seq, at, _ := strings.Cut(watcher.out.Text(), " ")
		n, err := strconv.ParseUint(seq, 10, 64)
		require.NoError(t, err)
		when, err := strconv.ParseInt(at, 10, 64)
		require.NoError(t, err)
		all = append(all, time.Duration(when-told[n]))
	}
	require.NoError(t, watcher.Wait())
	require.Len(t, all, puts, "every record once")
	slices.Sort(all)
	return all
}

func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "beside") // on the disk, not where a benchmark's own would be made anew
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func witnessFile(t testing.TB, home string) string {
	path := filepath.Join(home, "durable")
	require.NoError(t, os.WriteFile(path, make([]byte, 8*wordCount), 0o600))
	return path
}

// A watcher in another process is woken, and does not wait for the next poll: that
// would take 50 ms in the middle.
func TestWatcherIsWoken(t *testing.T) {
	all := latencies(t, 50, 10*time.Millisecond, annals.SyncAlways)
	t.Logf("from the writer's acknowledgement to the watcher's record: %v in the middle, %v at most", all[len(all)/2], all[len(all)-1])
	require.Less(t, all[len(all)/2], 25*time.Millisecond)
}

func BenchmarkWatchLatency(b *testing.B) {
	for _, c := range []struct {
		name   string
		pause  time.Duration
		policy annals.SyncPolicy
	}{
		{"every20ms", 20 * time.Millisecond, annals.SyncAlways},
		{"every1ms", time.Millisecond, annals.SyncAlways},
		{"flatOut", 0, annals.SyncAlways},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				all := latencies(b, 1000, c.pause, c.policy)
				for _, p := range []int{50, 90, 99} {
					b.ReportMetric(float64(all[len(all)*p/100].Microseconds()), fmt.Sprintf("p%d-µs", p))
				}
			}
		})
	}
}

// rates returns how many puts a second one writer makes, alone and beside readers: in
// turns, since a disk is faster at one moment than at another, for which the readers are
// stopped and go on. ratio is that of a turn with them to the one without next to it, in
// the middle.
func rates(t testing.TB, readers, turns int, turn time.Duration) (alone, beside, ratio float64) {
	home := tempDir(t)
	dir, noted := filepath.Join(home, "store"), witnessFile(t, home)
	db, err := annals.Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	rate := func() float64 {
		n, begun := 0, time.Now()
		for time.Since(begun) < turn {
			n++
			require.NoError(t, db.Put(fmt.Sprint("key-", n%10_000), value(uint64(n))))
		}
		return float64(n) / time.Since(begun).Seconds()
	}
	rate()
	var all []*process
	for range readers {
		p := startAs(t, "idler", dir, noted)
		require.True(t, p.out.Scan())
		all = append(all, p)
	}
	signal := func(s syscall.Signal) {
		for _, p := range all {
			require.NoError(t, p.Process.Signal(s))
		}
		time.Sleep(20 * time.Millisecond)
	}
	var without, with, ratios []float64
	for i := range turns {
		measure := func(s syscall.Signal) float64 { signal(s); return rate() }
		var a, b float64
		if i%2 == 0 {
			a, b = measure(syscall.SIGSTOP), measure(syscall.SIGCONT)
		} else {
			b, a = measure(syscall.SIGCONT), measure(syscall.SIGSTOP)
		}
		without, with, ratios = append(without, a), append(with, b), append(ratios, b/a)
	}
	signal(syscall.SIGCONT)
	cpu := time.Duration(0)
	for _, p := range all {
		require.NoError(t, p.in.Close())
		require.NoError(t, p.Wait())
		cpu += p.ProcessState.UserTime() + p.ProcessState.SystemTime()
	}
	t.Logf("a reader took %v of processor time in %v", cpu/time.Duration(readers), time.Duration(turns)*turn)
	for _, list := range [][]float64{without, with, ratios} {
		slices.Sort(list)
	}
	return without[turns/2], with[turns/2], ratios[turns/2]
}

// Four readers that follow and watch take next to nothing from the writer. Here it is
// only said that they do not stop it: machines that run tests are busy. The benchmark
// measures.
func TestReadersDoNotStopTheWriter(t *testing.T) {
	alone, beside, ratio := rates(t, 4, 5, 200*time.Millisecond)
	t.Logf("puts a second alone: %.0f, beside four readers: %.0f, in the middle %.2f times as many", alone, beside, ratio)
	require.Greater(t, ratio, 0.25)
}

func BenchmarkWriterBesideReaders(b *testing.B) {
	for _, readers := range []int{1, 4} {
		b.Run(fmt.Sprint(readers), func(b *testing.B) {
			for b.Loop() {
				alone, beside, ratio := rates(b, readers, 41, 300*time.Millisecond)
				b.ReportMetric(alone, "alone/s")
				b.ReportMetric(beside, "beside/s")
				b.ReportMetric(100*ratio, "%")
			}
		})
	}
}
