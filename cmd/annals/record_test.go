package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
)

// reading is a measurement of a source that a test controls.
type reading struct {
	N int `json:"n"`
}

func (reading) String() string { return "reading" }

// warnings gathers what a recorder warns of.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) warn(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, fmt.Sprintf(format, args...))
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

// record runs a recorder for some ticks and returns what it warned of.
func record(t *testing.T, store *annals.Store, ticks int, onTick func(tick), sources ...source) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told warnings
	r := recorder{store: store, beats: []*beat{{time.Millisecond, sources}}, warn: told.warn, onTick: func(k tick) {
		if k.n > ticks {
			return // it was measured before cancel was heard of
		}
		onTick(k)
		if k.n == ticks {
			cancel()
		}
	}}
	must(t, r.run(ctx))
	return told.all()
}

// samplesOf returns the values of a series.
func samplesOf(t *testing.T, store *annals.Store, series string) (values []string) {
	t.Helper()
	for sample, err := range store.Samples(series, annals.Window{}) {
		must(t, err)
		values = append(values, string(sample.Value))
	}
	return values
}

func TestATickIsOneCommitWithOneTime(t *testing.T) {
	store, err := annals.Open(filepath.Join(t.TempDir(), "d"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	measure := func(time.Time) (measurement, error) { return reading{1}, nil }
	record(t, store, 3, func(tick) {}, source{"a", measure}, source{"b", measure})
	for seq := uint64(1); seq <= 5; seq += 2 {
		var pair []annals.Record
		for r, err := range store.Watch(t.Context(), seq) {
			if err != nil {
				t.Fatal(err)
			}
			if pair = append(pair, r); len(pair) == 2 {
				break
			}
		}
		if !pair[0].At.Equal(pair[1].At) || !pair[0].More || pair[1].More || pair[0].Series != "a" || pair[1].Series != "b" {
			t.Errorf("records %d and %d: %+v", seq, seq+1, pair)
		}
	}
}

func TestASourceThatFailsIsToldOnce(t *testing.T) {
	store, err := annals.Open(filepath.Join(t.TempDir(), "d"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	n := 0
	good := source{"good", func(time.Time) (measurement, error) { n++; return reading{n}, nil }}
	bad := source{"bad", func(time.Time) (measurement, error) {
		if n > 10 {
			return reading{n}, nil
		}
		return nil, errors.New("no sensor")
	}}
	told := record(t, store, 20, func(tick) {}, good, bad)
	if len(told) != 2 || told[0] != "no bad is recorded while this lasts: no sensor; it is tried again every 1ms" ||
		told[1] != "bad is recorded again; failures: 10" {
		t.Errorf("warnings: %q", told)
	}
	if got := samplesOf(t, store, "good"); len(got) < 20 {
		t.Errorf("%d samples", len(got))
	}
	// One that comes and goes is not told again and again.
	n = -1_000_000
	flaky := source{"flaky", func(time.Time) (measurement, error) {
		if n++; n%2 == 0 {
			return reading{n}, nil
		}
		return nil, errors.New("now and then")
	}}
	if told := record(t, store, 20, func(tick) {}, flaky); len(told) != 2 {
		t.Errorf("warnings: %q", told)
	}
	r := recorder{store: store, beats: []*beat{{time.Millisecond, []source{bad}}}, warn: new(warnings).warn}
	if err := r.run(t.Context()); !errors.Is(err, errNothingMeasured) {
		t.Errorf("a recorder that can measure nothing: %v", err)
	}
}

// fullDisk is a file system without room while it is full.
type fullDisk struct {
	replace.FS
	full atomic.Bool
}

type fullDiskFile struct {
	replace.File
	disk *fullDisk
}

func (d *fullDisk) OpenFile(name string, flag int, perm os.FileMode) (replace.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	return &fullDiskFile{f, d}, err
}

func (f *fullDiskFile) WriteAt(p []byte, off int64) (int, error) {
	if f.disk.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

// While the disk is full samples wait in memory; what finds no room there is counted,
// and the count stands where they are missing.
func TestRecordWaitsOutAFullDisk(t *testing.T) {
	for _, test := range []struct {
		name string
		room int // in the queue, in samples
	}{{"all wait", 1000}, {"most are dropped", 10}} {
		t.Run(test.name, func(t *testing.T) {
			disk := &fullDisk{FS: replace.OS}
			store, err := annals.Open(filepath.Join(t.TempDir(), "d"), &annals.Options{FS: disk})
			must(t, err)
			defer store.Close()
			ctx, cancel := context.WithCancel(t.Context())
			var told warnings
			n, waits := 0, 0
			r := recorder{store: store, warn: told.warn, retry: 5 * time.Millisecond, queueLimit: test.room * (sampleOverhead + len("s") + len(`{"n":100}`))}
			r.addSource(time.Millisecond, source{"s", func(time.Time) (measurement, error) { n++; return reading{n}, nil }})
			r.onWait = func(waiting, dropped int) {
				if waits++; waits > 5 && waiting+dropped > 60 || waits > 200 {
					disk.full.Store(false)
				}
			}
			r.onTick = func(k tick) {
				switch {
				case k.n == 5:
					disk.full.Store(true)
				case waits > 0 && k.n > 40 || k.n > 5000:
					cancel()
				}
			}
			must(t, r.run(ctx))
			list := told.all()
			if len(list) != 2 || !strings.HasPrefix(list[0], "the disk is full, nothing is recorded until there is room: ") ||
				!strings.HasPrefix(list[1], "there is room again; ") {
				t.Errorf("warnings: %q", list)
			}
			checkGaps(t, store, 2, n, test.room == 10) // the first reading is no sample
		})
	}
}

// checkGaps checks that the numbers from first to last come in order in the series s,
// and that where some are missing the recorder has said so, and how many.
func checkGaps(t *testing.T, store *annals.Store, first, last int, dropped bool) {
	t.Helper()
	next, missing, said := first, 0, 0
	for r, err := range store.Watch(t.Context(), 1) {
		must(t, err)
		var value struct {
			N       int
			Event   string
			Samples int
		}
		must(t, json.Unmarshal(r.Value, &value))
		if value.Event == "dropped" {
			said += value.Samples
		} else {
			if missing += value.N - next; missing != said {
				t.Fatalf("number %d comes where %d should: %d are missing up to there, %d were said to be", value.N, next, missing, said)
			}
			next = value.N + 1
		}
		if r.Seq == store.Stats().LastSeq {
			break
		}
	}
	missing += last + 1 - next
	if missing != said || dropped != (missing > 0) {
		t.Errorf("%d are missing, %d were said to be", missing, said)
	}
	t.Logf("%d samples, %d dropped", last+1-first-missing, missing)
}

// A recorder that ends while the disk is full says what it could not write.
func TestRecordEndsOnAFullDisk(t *testing.T) {
	disk := &fullDisk{FS: replace.OS}
	store, err := annals.Open(filepath.Join(t.TempDir(), "d"), &annals.Options{FS: disk})
	must(t, err)
	defer store.Close()
	disk.full.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	r := recorder{store: store, warn: new(warnings).warn, retry: time.Hour, onWait: func(int, int) { cancel() }}
	r.addSource(time.Millisecond, source{"s", func(time.Time) (measurement, error) { return reading{1}, nil }})
	err = r.run(ctx)
	if !isFull(err) || !strings.Contains(err.Error(), " samples could not be written, and 0 were dropped before: ") {
		t.Errorf("it ends with %v", err)
	}
}

// A store that has failed, here at an item of the spool, ends the recorder, so that who
// has started it starts it again.
func TestRecordEndsWithAStoreThatFailed(t *testing.T) {
	f := spoolOf(t, 1)
	store, err := annals.Open(memStore, &annals.Options{FS: f})
	must(t, err)
	defer store.Close()
	in := &intake{store: store, fsys: f, spool: memSpool, maxValue: 1 << 20, warn: new(warnings).warn}
	must(t, in.open())
	defer in.close()
	f.Inject(faultfs.FailAt(1, syscall.EIO, 0, true, faultfs.SyncData).Fault)
	r := recorder{store: store, intake: in, warn: new(warnings).warn}
	if err := r.run(t.Context()); !errors.Is(err, annals.ErrFailed) {
		t.Errorf("it ends with %v", err)
	}
}

// A clock that is set back is told and recorded once a jump; nothing is lost, and all
// stays in order.
func TestAClockThatIsSetBackChangesNothing(t *testing.T) {
	store, err := annals.Open(filepath.Join(t.TempDir(), "d"), nil)
	must(t, err)
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	start, up, n := time.Date(2024, 11, 22, 14, 0, 0, 0, time.UTC), time.Duration(0), 0
	var told warnings
	r := recorder{store: store, warn: told.warn, clock: func() (time.Time, time.Duration) {
		up += time.Second
		switch wall := start.Add(up); {
		case up < 10*time.Second:
			return wall, up
		case up < 20*time.Second:
			return wall.Add(-time.Hour), up
		default: // and a little more
			return wall.Add(-time.Hour - 2500*time.Millisecond), up
		}
	}}
	r.addSource(time.Millisecond, source{"s", func(time.Time) (measurement, error) {
		if n++; n == 40 {
			cancel()
		}
		return reading{n}, nil
	}})
	must(t, r.run(ctx))
	if list := told.all(); len(list) != 2 || list[0] != "the clock was set back by 1h0m0s, to 2024-11-22T13:00:10Z; samples stay in the order in which they come" ||
		!strings.HasPrefix(list[1], "the clock was set back by 2.5s, ") {
		t.Errorf("warnings: %q", list)
	}
	if got := samplesOf(t, store, eventSeries); !slices.Equal(got, []string{`{"event":"clock","back_s":3600.000}`, `{"event":"clock","back_s":2.500}`}) {
		t.Errorf("events: %q", got)
	}
	for i, value := range samplesOf(t, store, "s") {
		if value != fmt.Sprintf(`{"n":%d}`, i+2) { // the first reading is no sample
			t.Fatalf("sample %d is %s", i, value)
		}
	}
}

func TestRatesCountFromTheMeasurementBefore(t *testing.T) {
	counters := []uint64{1000, 1500, 1400, 1700}
	next := 0
	measure := rate(func() (uint64, error) { next++; return counters[next-1], nil }, func(before, after uint64, seconds float64) measurement {
		return reading{int(perSecond(before, after, seconds))}
	})
	now := time.Now()
	if _, err := measure(now); !errors.Is(err, errFirst) {
		t.Errorf("the first measurement: %v", err)
	}
	// 500 in half a second; then the counter went back; then it grows again.
	for i, want := range []int{1000, 0, 600} {
		now = now.Add(500 * time.Millisecond)
		if m, err := measure(now); err != nil || m != (reading{want}) {
			t.Errorf("measurement %d: %v, %v, want %d", i, m, err, want)
		}
	}
}

func TestCPURateIsInPercentOfAllTime(t *testing.T) {
	before := cpu.TimesStat{User: 100, System: 50, Idle: 1000, Iowait: 10}
	after := cpu.TimesStat{User: 101, Nice: 1, System: 50.5, Irq: 0.25, Softirq: 0.25, Idle: 1006, Iowait: 11}
	if got, want := cpuRate(before, after, 1), (cpuMeasurement{Busy: 30, User: 20, System: 10, IOWait: 10}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := cpuRate(after, after, 1); got != (cpuMeasurement{}) {
		t.Errorf("no time at all: %+v", got)
	}
}

func TestPartsOfDisksAreNotCountedTwice(t *testing.T) {
	all := map[string]disk.IOCountersStat{"sda": {}, "sda1": {}, "nvme0n1": {}, "nvme0n1p2": {}, "dm-0": {}, "md127": {}, "loop3": {}, "vda": {}}
	for name, want := range map[string]bool{"sda": false, "sda1": true, "nvme0n1": false, "nvme0n1p2": true, "dm-0": true, "md127": true, "loop3": true, "vda": false} {
		if got := isPart(name, all); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
