package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
)

var (
	intakeSeed   = flag.Uint64("intake.seed", 0, "the seed of the intake's crashes; 0 is a new one")
	intakeStates = flag.Int("intake.states", 3, "random states of the disk for each moment of a crash")
)

// intakeRandom gives a random source, and says how to get the same again.
func intakeRandom(t *testing.T) *rand.Rand {
	seed := *intakeSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: go test -run '^%s$' -intake.seed=%d", t.Name(), seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

const (
	memStore = "/d"

	memSegment = 256 << 10 // which has little padding: each state of the disk is a copy
	memSpool   = "/spool"
)

// spoolOf makes a file system in memory whose spool holds items on disk: n good ones
// with some samples each, and a bad one.
func spoolOf(t *testing.T, n int) *faultfs.FS {
	t.Helper()
	f := faultfs.New()
	must(t, f.Mkdir(memSpool, 0o700))
	for i := range n {
		drop(t, f, fmt.Sprintf("item-%02d", i), itemText(i))
	}
	drop(t, f, "bad", "no op\n")
	must(t, f.SyncDir("/"))
	return f
}

// itemText is the i-th item. It is long enough to be torn.
func itemText(i int) string {
	padding := strings.Repeat(" ", 600)
	return fmt.Sprintf(`{"ser":"s","val":"%d.0%s"}`+"\n"+`{"ser":"s","val":"%[1]d.1%[2]s"}`+"\n", i, padding)
}

// drop puts an item into the spool as a good producer does.
func drop(t *testing.T, f *faultfs.FS, name, text string) {
	t.Helper()
	temp := filepath.Join(memSpool, name+".tmp")
	file, err := f.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	_, err = file.WriteAt([]byte(text), 0)
	must(t, errors.Join(err, file.Sync(), file.Close(), f.Rename(temp, filepath.Join(memSpool, name)), f.SyncDir(memSpool)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ingestAll runs an intake over the spool until nothing is left in it.
func ingestAll(t *testing.T, f *faultfs.FS) error {
	store, err := annals.Open(memStore, &annals.Options{FS: f, SegmentSize: memSegment, Compaction: annals.Compaction{Off: true}})
	if err != nil {
		return err
	}
	in := &intake{store: store, fsys: f, spool: memSpool, maxValue: 1 << 20, warn: func(string, ...any) {}}
	if err = in.open(); err == nil {
		err = errors.Join(in.run(t.Context(), false, 0), in.close())
	}
	return errors.Join(err, store.Close())
}

// exactlyOnce says what is wrong with a store and a spool whose n items were ingested.
func exactlyOnce(f *faultfs.FS, n int) error {
	store, err := annals.Open(memStore, &annals.Options{FS: f, SegmentSize: memSegment})
	if err != nil {
		return err
	}
	defer store.Close()
	times := map[string]int{}
	for sample, err := range store.Samples("s", annals.Window{}) {
		if err != nil {
			return err
		}
		times[strings.Replace(string(sample.Value), strings.Repeat(" ", 600), "", 1)]++
	}
	for i := range n {
		for half := range 2 {
			if value := fmt.Sprintf(`"%d.%d"`, i, half); times[value] != 1 {
				return fmt.Errorf("the sample %s is there %d times", value, times[value])
			}
		}
	}
	if len(times) != 2*n {
		return fmt.Errorf("%d different samples", len(times))
	}
	if stats := store.Stats(); stats.Keys > 0 {
		return fmt.Errorf("%d marks are left", stats.Keys)
	}
	for _, left := range []struct {
		dir  string
		want string
	}{{"", ".annals.lock .annals.spool rejected"}, {rejectedDir, "bad bad.reason"}} {
		entries, err := f.ReadDir(filepath.Join(memSpool, left.dir))
		if err != nil {
			return err
		}
		if got := names(entries); got != left.want {
			return fmt.Errorf("in %q are %s, want %s", left.dir, got, left.want)
		}
	}
	return nil
}

func names(entries []fs.DirEntry) string {
	var list []string
	for _, entry := range entries {
		if !replace.IsTemp(entry.Name()) { // what a crash left of a file in the making
			list = append(list, entry.Name())
		}
	}
	return strings.Join(list, " ")
}

// A power cut, or a kill, before every operation that the intake makes, and another
// one while the next intake is at work: in every state that the disk can be in each
// item is there once.
func TestIntakeSurvivesACrashAnywhere(t *testing.T) {
	const items = 3
	rnd := intakeRandom(t)
	type state struct {
		before string
		fsys   *faultfs.FS
	}
	crashes := func(f *faultfs.FS) (states []state) { // that one intake can be hit by
		var mu sync.Mutex // the store has goroutines of its own
		f.Hook(func(op faultfs.Op) {
			if !op.Kind.Changes() {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			add := func(how string, g *faultfs.FS) {
				states = append(states, state{fmt.Sprintf("%s before %v", how, op), g})
			}
			add("killed", f.Kill())
			add("nothing written back", f.Crash(func(int) bool { return false }))
			add("all written back", f.Crash(func(int) bool { return true }))
			for range *intakeStates {
				add("some written back", f.Crash(func(int) bool { return rnd.IntN(2) == 0 }))
			}
		})
		must(t, ingestAll(t, f))
		f.Hook(nil)
		mu.Lock()
		defer mu.Unlock()
		return states
	}
	first := crashes(spoolOf(t, items))
	twice := 0
	for _, s := range first {
		// A kill leaves the cache, which the next crash may take: all of it, before each
		// step in the spool.
		again := []state{}
		if (strings.HasPrefix(s.before, "killed") || rnd.IntN(8) == 0) && (!intakeUnderRace || rnd.IntN(8) == 0) {
			again = crashes(s.fsys.Kill())
		}
		skip := func(s state) bool {
			return rnd.IntN(200) > 0 && !strings.HasPrefix(s.before, "nothing written back before") || !strings.Contains(s.before, memSpool)
		}
		if !strings.HasPrefix(s.before, "killed") {
			skip = func(state) bool { return rnd.IntN(25) > 0 }
		}
		again = slices.DeleteFunc(again, skip)
		twice += len(again)
		for _, last := range append(again, state{"no crash", s.fsys}) {
			err := ingestAll(t, last.fsys)
			if err == nil {
				err = exactlyOnce(last.fsys, items)
			}
			if err != nil {
				t.Fatalf("%s; then %s: %v", s.before, last.before, err)
			}
		}
	}
	t.Logf("%d crashes, and %d in the intake after one", len(first), twice)
}

// Every operation of an intake fails, in turn, once. The intake may end with an
// error; the next one finds nothing missing and nothing twice.
func TestIntakeSurvivesEveryFault(t *testing.T) {
	const items = 3
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		for k := 1; ; k++ {
			f := spoolOf(t, items)
			failing := faultfs.FailAt(k, fault, 0, false)
			f.Inject(failing.Fault)
			failed := ingestAll(t, f)
			f.Inject(nil)
			if failing.Fired() == 0 {
				t.Logf("%v: %d operations", fault, k-1)
				break
			}
			for _, g := range []*faultfs.FS{f.Kill(), f.Crash(func(int) bool { return false }), f.Crash(func(int) bool { return true })} {
				err := ingestAll(t, g)
				if err == nil {
					err = exactlyOnce(g, items)
				}
				if err != nil {
					t.Fatalf("%v at %v, after which the intake said %v: %v", fault, failing.First(), failed, err)
				}
			}
		}
	}
}

// An item that is dropped under the name of one that was just taken is another item,
// at whatever moment that happens: neither is lost.
func TestAnItemUnderAUsedNameIsAnother(t *testing.T) {
	for k := 1; ; k++ {
		f := spoolOf(t, 1)
		dropped := false
		var n atomic.Int64 // the store has goroutines of its own
		f.Hook(func(op faultfs.Op) {
			if n.Add(1) != int64(k) {
				return
			}
			dropped = true
			f.Hook(nil)
			drop(t, f, "item-00", `{"ser":"second","val":1}`)
		})
		must(t, ingestAll(t, f))
		f.Hook(nil)
		if !dropped {
			t.Logf("%d moments", k-1)
			return
		}
		must(t, ingestAll(t, f)) // it may have come too late for the first intake
		store, err := annals.Open(memStore, &annals.Options{FS: f, SegmentSize: memSegment})
		must(t, err)
		seconds := store.Stats().Samples
		for _, err := range store.Samples("s", annals.Window{}) {
			must(t, err)
			seconds--
		}
		// Dropped before the first was taken, it replaces that one: as rename does.
		firsts := store.Stats().Samples - seconds
		if seconds != 1 || firsts != 2 && firsts != 0 {
			t.Fatalf("dropped before operation %d: %d samples of the first item, %d of the second", k, firsts, seconds)
		}
		must(t, store.Close())
	}
}

// hidingFS is a file system of which one listing of the spool misses an item that came
// while it was made, though it has one that came later.
type hidingFS struct {
	*faultfs.FS
	hide string
}

func (h *hidingFS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := h.FS.ReadDir(name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		hidden := name == memSpool && e.Name() == h.hide
		if hidden {
			h.hide = ""
		}
		return hidden
	}), err
}

func TestItemsAreTakenInOrderThoughAListingMissesOne(t *testing.T) {
	f := &hidingFS{FS: spoolOf(t, 3)}
	store, err := annals.Open(memStore, &annals.Options{FS: f.FS, SegmentSize: memSegment})
	must(t, err)
	in := &intake{store: store, fsys: f, spool: memSpool, maxValue: 1 << 20, warn: t.Logf}
	must(t, in.open())
	f.hide = "item-01"
	must(t, errors.Join(in.run(t.Context(), false, 0), in.close()))
	if f.hide != "" {
		t.Fatal("no listing has missed the item")
	}
	n := 0
	for sample, err := range store.Samples("s", annals.Window{}) {
		must(t, err)
		if want := fmt.Sprintf(`"%d.%d`, n/2, n%2); !strings.HasPrefix(string(sample.Value), want) {
			t.Errorf("%.10s is number %d", sample.Value, n)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d samples", n)
	}
	must(t, store.Close())
}

// Two intakes at once: the second one is told, and takes nothing.
func TestOneIntakeTakesFromASpool(t *testing.T) {
	f := spoolOf(t, 2)
	open := func(dir string) (*intake, *annals.Store) {
		store, err := annals.Open(dir, &annals.Options{FS: f, SegmentSize: memSegment})
		must(t, err)
		return &intake{store: store, fsys: f, spool: memSpool, maxValue: 1 << 20, warn: t.Logf}, store
	}
	first, store := open(memStore)
	defer store.Close()
	must(t, first.open())
	second, other := open("/other")
	defer other.Close()
	if err := second.open(); !errors.Is(err, replace.ErrLocked) {
		t.Fatalf("the second intake: %v", err)
	}
	must(t, first.take()) // and is then killed
	must(t, first.close())

	// What was taken for one store is not the other's.
	var warnings []string
	second.warn = func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	must(t, second.open())
	must(t, second.run(t.Context(), false, 0))
	must(t, second.close())
	if stats := other.Stats(); stats.Samples != 0 || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "3 items in /spool were taken by intakes into other stores") {
		t.Errorf("%d samples, warnings %q", stats.Samples, warnings)
	}
	must(t, first.open())
	must(t, first.run(t.Context(), false, 0))
	if stats := store.Stats(); stats.Samples != 4 {
		t.Errorf("%d samples", stats.Samples)
	}
}

// An item that a consumer by the rules of replace.Spool has claimed is left to it.
func TestIntakeLeavesWhatAnotherHasClaimed(t *testing.T) {
	f := spoolOf(t, 2)
	claimed, err := f.OpenFile(filepath.Join(memSpool, "item-01"), os.O_RDONLY, 0)
	must(t, err)
	must(t, claimed.Lock(true, false))
	must(t, ingestAll(t, f))
	if _, err := f.Lstat(filepath.Join(memSpool, "item-01")); err != nil {
		t.Fatal(err)
	}
	must(t, claimed.Close())
	must(t, ingestAll(t, f))
	must(t, exactlyOnce(f, 2))
}
