package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/annalsdb/annals"
)

// reportSeries prints what measureSeries finds and keeps it beside the other results.
func reportSeries(ctx context.Context, dir, results string) error {
	var table strings.Builder
	begun := time.Now()
	if err := measureSeries(ctx, dir, []int{1_000_000, 5_000_000, 20_000_000}, io.MultiWriter(os.Stdout, &table)); err != nil || results == "" {
		return err
	}
	text := fmt.Sprintf(`# A log of samples as it grows

annals %s, %s, %s/%s, %d processors, %s. One sample of each series after the other, lines of 128 bytes, batches of 500, synced
every 100 ms; one sample in 1,000 comes a minute late; one in 500,000 is of a rare series. "first ms" is the time to the first
sample of a window, median and maximum of 200 anywhere in the log. "heap open" is what is alive once the store was
opened and read all over, the others are the most that was in use, garbage and the maker of the samples included.

%s`, version(), begun.Format(time.DateTime), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), table.String())
	return os.WriteFile(filepath.Join(results, "series.md"), []byte(text), 0o644)
}

// measureSeries shows how a log of samples behaves as it grows: many series, one
// sample of each after the other, as a recorder writes them, and one rare series among
// them. Some samples come late.
func measureSeries(ctx context.Context, dir string, sizes []int, out io.Writer) (err error) {
	dir, err = os.MkdirTemp(dir, "annals-series-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := tabwriter.NewWriter(out, 0, 0, 1, ' ', tabwriter.Debug)
	defer t.Flush()
	fmt.Fprintln(t, "| samples\t series\t log MB\t append k/s, empty and now\t heap MiB open, appending, compacting\t log per heap\t INDEX MB\t open ms\t first ms by time\t by seq\t backward\t rare series ms, first and all\t compact MB/s\t")
	fmt.Fprintln(t, "| ---\t ---:\t ---:\t ---:\t ---:\t ---:\t ---:\t ---:\t ---:\t ---:\t ---:\t ---:\t ---:\t")
	for _, series := range []int{1, 1000, 10_000} {
		if series != 1000 {
			sizes := sizes[:1] // the growth is shown by one of them
			if err := growSeries(ctx, filepath.Join(dir, fmt.Sprint(series)), series, sizes, t); err != nil {
				return err
			}
			continue
		}
		if err := growSeries(ctx, filepath.Join(dir, "1000"), series, sizes, t); err != nil {
			return err
		}
	}
	return nil
}

// growSeries makes a store larger and larger, and measures it at each size.
func growSeries(ctx context.Context, dir string, series int, sizes []int, out io.Writer) error {
	g := &grown{dir: dir, names: make([]string, series), begin: time.Unix(1_750_000_000, 0)}
	for i := range g.names {
		g.names[i] = fmt.Sprintf("machine-%04d", i)
	}
	for _, n := range sizes {
		if err := g.grow(ctx, n); err != nil {
			return err
		}
		if err := g.look(n); err != nil {
			return err
		}
		if err := g.compact(ctx); err != nil {
			return err
		}
		g.print(out, n)
	}
	return os.RemoveAll(dir)
}

type grown struct {
	dir   string
	names []string
	begin time.Time // of the first sample

	made        int
	first, last float64 // samples a second
	peak        int64   // bytes of heap while it grows
	open        time.Duration
	heap        int64
	byTime      []time.Duration
	bySeq       []time.Duration
	back        []time.Duration
	rare        [2]time.Duration
	index, log  int64
	copied      float64 // MB a second
	copying     int64   // bytes of heap
}

const (
	rareEvery = 500_000 // samples between two of the rare series
	lateEvery = 1_000   // samples of which one is late
	perSecond = 1_000   // samples of one second
	rareName  = "rare"
)

// at is the time of a sample.
func (g *grown) at(i int) time.Time {
	at := g.begin.Add(time.Duration(i) * (time.Second / perSecond))
	if i%lateEvery == lateEvery/2 {
		at = at.Add(-time.Minute)
	}
	return at
}

func (g *grown) options() *annals.Options {
	return &annals.Options{Sync: annals.SyncEvery(100 * time.Millisecond)}
}

// grow appends up to n samples, in batches, and measures the first and the last of
// them.
func (g *grown) grow(ctx context.Context, n int) error {
	db, err := annals.Open(g.dir, g.options())
	if err != nil {
		return err
	}
	const span = 500_000
	begun, from := time.Now(), g.made
	watch := watchHeap()
	var b annals.Batch
	for g.made < n && ctx.Err() == nil {
		if g.made == n-span {
			begun, from = time.Now(), g.made
		}
		name := g.names[g.made%len(g.names)]
		if g.made%rareEvery == rareEvery/2 {
			name = rareName
		}
		b.Append(name, fmt.Appendf(nil, `{"t":%d.%d,"load":0.%03d,"state":"running"}`, 20+g.made%10, g.made%7, g.made%1000), annals.At(g.at(g.made)))
		if g.made++; g.made%500 == 0 {
			if _, err := db.Apply(&b); err != nil {
				return closing(db, err)
			}
			b.Reset()
		}
		if g.made == from+span {
			rate := span / time.Since(begun).Seconds()
			if g.first == 0 {
				g.first = rate
			}
			g.last = rate
		}
	}
	g.peak = watch()
	return closing(db, ctx.Err())
}

// look opens the store and looks into it all over.
func (g *grown) look(n int) error {
	before := int64(heapInUse())
	begun := time.Now()
	db, err := annals.Open(g.dir, g.options())
	if err != nil {
		return err
	}
	g.open = time.Since(begun)
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	g.byTime, g.bySeq, g.back = nil, nil, nil
	last := db.Stats().LastSeq
	for range 200 {
		at := g.begin.Add(time.Duration(rnd.IntN(n)) * (time.Second / perSecond))
		name := g.names[rnd.IntN(len(g.names))]
		for list, w := range map[*[]time.Duration]annals.Window{
			&g.byTime: {Since: at, Until: at.Add(time.Hour)},
			&g.bySeq:  {FromSeq: 1 + rnd.Uint64N(last)},
			&g.back:   {Until: at, Reverse: true},
		} {
			took, _, err := reading(db.Samples(name, w), 1)
			if err != nil {
				return closing(db, err)
			}
			*list = append(*list, took)
		}
	}
	var rare int
	if g.rare[0], _, err = reading(db.Samples(rareName, annals.Window{}), 1); err == nil {
		g.rare[1], rare, err = reading(db.Samples(rareName, annals.Window{}), 0)
	}
	if want := (n + rareEvery/2) / rareEvery; err == nil && rare != want {
		err = fmt.Errorf("%d samples of the rare series instead of %d", rare, want)
	}
	g.heap = int64(heapInUse()) - before
	g.log, g.index = db.Stats().Bytes, fileSize(filepath.Join(g.dir, "INDEX"))
	return closing(db, err)
}

// compact rewrites all, as nothing else makes samples move, in a copy of the store's
// state that the next size grows from.
func (g *grown) compact(ctx context.Context) error {
	db, err := annals.Open(g.dir, g.options())
	if err != nil {
		return err
	}
	begun := time.Now()
	watch := watchHeap()
	stats, err := db.Compact(ctx, nil)
	g.copying = watch()
	g.copied = float64(stats.Before) / 1e6 / time.Since(begun).Seconds()
	return closing(db, err)
}

func (g *grown) print(out io.Writer, n int) {
	const mib = 1 << 20
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	spread := func(list []time.Duration) string {
		slices.Sort(list)
		return fmt.Sprintf("%.2f, %.2f", ms(list[len(list)/2]), ms(list[len(list)-1]))
	}
	fmt.Fprintf(out, "| %d\t %d\t %.0f\t %.0f, %.0f\t %.1f, %.0f, %.0f\t %.0f\t %.2f\t %.1f\t %s\t %s\t %s\t %.2f, %.2f\t %.0f\t\n",
		n, len(g.names), float64(g.log)/1e6, g.first/1e3, g.last/1e3,
		float64(g.heap)/mib, float64(g.peak)/mib, float64(g.copying)/mib, float64(g.log)/float64(max(g.heap, 1)), float64(g.index)/1e6,
		ms(g.open), spread(g.byTime), spread(g.bySeq), spread(g.back), ms(g.rare[0]), ms(g.rare[1]), g.copied)
}

// reading reads up to limit samples, all for 0.
func reading(all iter.Seq2[annals.Sample, error], limit int) (took time.Duration, n int, err error) {
	begun := time.Now()
	for _, err := range all {
		if err != nil {
			return 0, n, err
		}
		if n++; n == limit {
			break
		}
	}
	return time.Since(begun), n, nil
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// watchHeap looks at the heap, garbage included, until it is called back: then it
// returns the most that there was.
func watchHeap() (most func() int64) {
	heapInUse()
	var peak atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), int64(m.HeapAlloc)))
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		return peak.Load()
	}
}
