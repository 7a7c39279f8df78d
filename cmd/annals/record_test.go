package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/replace"
	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
)

// reading is a measurement of a source that a test controls.
type reading struct {
	N int `json:"n"`
}

func (reading) String() string { return "reading" }

// record runs a recorder for some ticks and returns what it warned of.
func record(t *testing.T, store *annals.Store, ticks int, onTick func(tick), sources ...source) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var warnings strings.Builder
	r := recorder{store: store, sources: sources, every: time.Millisecond, warn: &warnings, onTick: func(k tick) {
		onTick(k)
		if k.n == ticks {
			cancel()
		}
	}}
	if err := r.run(ctx); err != nil {
		t.Fatal(err)
	}
	return warnings.String()
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
	good := source{"good", func(time.Time) (measurement, error) { return reading{1}, nil }}
	bad := source{"bad", func(time.Time) (measurement, error) { return nil, errors.New("no sensor") }}
	warnings := record(t, store, 5, func(tick) {}, good, bad)
	if warnings != "annals: no bad is recorded while this lasts: no sensor\n" {
		t.Errorf("warnings:\n%s", warnings)
	}
	if stats := store.Stats(); stats.Samples != 5 || stats.Series != 1 {
		t.Errorf("%d samples in %d series", stats.Samples, stats.Series)
	}
	r := recorder{store: store, sources: []source{bad}, every: time.Millisecond, warn: new(strings.Builder)}
	if err := r.run(t.Context()); err == nil {
		t.Error("a recorder that can measure nothing goes on")
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

func TestRecordWaitsOutAFullDisk(t *testing.T) {
	fs := &fullDisk{FS: replace.OS}
	store, err := annals.Open(filepath.Join(t.TempDir(), "d"), &annals.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var written []bool
	warnings := record(t, store, 9, func(k tick) {
		written = append(written, k.seq > 0)
		fs.full.Store(k.n >= 3 && k.n < 6)
	}, source{"s", func(time.Time) (measurement, error) { return reading{1}, nil }})
	if want := []bool{true, true, true, false, false, false, true, true, true}; !slices.Equal(written, want) {
		t.Errorf("ticks written: %v", written)
	}
	lines := strings.Split(warnings, "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "annals: the disk is full, nothing is recorded until there is room: ") ||
		lines[1] != "annals: there is room again; 3 ticks could not be recorded" {
		t.Errorf("warnings:\n%s", warnings)
	}
	if stats := store.Stats(); stats.Samples != 6 {
		t.Errorf("%d samples", stats.Samples)
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
