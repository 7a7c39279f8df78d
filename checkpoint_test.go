package annals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/replace"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// saving are options under which INDEX is written at each Close that follows a
// change, and by hand, and nothing is compacted but by hand.
func saving() *Options {
	return &Options{SegmentSize: minSegment, Checkpoint: 1 << 30, Compaction: Compaction{Off: true}}
}

func save(t testing.TB, db *Store) {
	t.Helper()
	require.NoError(t, db.Checkpoint(t.Context()))
	require.FileExists(t, indexPath(db.dir))
}

func indexPath(dir string) string { return filepath.Join(dir, indexName) }

// sight is all that a store shows.
type sight struct {
	Scan, Back []string
	Expiries   []Entry
	Series     []SeriesInfo
	Samples    map[string][]string
	Records    []string
	Keys       int
	Counted    uint64 // samples
	Last       uint64
	History    uint64
	Segments   []SegmentStats
}

// look reads all that a store has.
func look(t testing.TB, db *Store) sight {
	t.Helper()
	st := db.Stats()
	s := sight{
		Scan: scan(t, db, Range{}), Back: scan(t, db, Range{Reverse: true, KeysOnly: true}), Series: series(t, db), Samples: map[string][]string{},
		Keys: st.Keys, Counted: st.Samples, Last: st.LastSeq, History: st.History, Segments: st.Segments,
	}
	for e, err := range db.Scan(Range{}) {
		require.NoError(t, err)
		point, err := db.Lookup(e.Key)
		require.NoError(t, err)
		require.Equal(t, e, point, "what Scan and Lookup say of a key")
		e.Value = nil
		s.Expiries = append(s.Expiries, e)
	}
	for _, info := range s.Series {
		s.Samples[info.Name] = plain(samples(t, db, info.Name, Window{}))
	}
	if st.LastSeq < st.History {
		return s // a Watch would wait
	}
	for rec, err := range db.Watch(t.Context(), 0) {
		require.NoError(t, err)
		s.Records = append(s.Records, fmt.Sprint(rec.Seq, rec.Kind, rec.Key, rec.Series, string(rec.Value)))
		if rec.Seq >= st.LastSeq {
			break
		}
	}
	return s
}

// sameWithoutIndex opens copies of a store's directory with INDEX and without it,
// for the one to show what the other does, and a reader of it too. It returns what
// the first said when it was opened.
func sameWithoutIndex(t testing.TB, dir string, opts *Options) RecoveryReport {
	t.Helper()
	with, without := copyDir(t, dir), copyDir(t, dir)
	require.NoError(t, os.Remove(indexPath(without)))
	r := openReader(t, with)
	bare, db := openAt(t, without, opts), openAt(t, with, opts)
	require.Zero(t, bare.Recovery().Indexed)
	require.Equal(t, look(t, bare), look(t, db), "with INDEX the store shows something else than without it")
	if opts.Now == nil { // the reader's clock is that of the machine
		require.Equal(t, scan(t, bare, Range{}), scan(t, r, Range{}))
		require.Equal(t, series(t, bare), series(t, r))
	}
	report := db.Recovery()
	require.NoError(t, bare.Close())
	require.NoError(t, db.Close())
	return report
}

// rewriteIndex writes an INDEX anew with another head.
func rewriteIndex(t testing.TB, path string, change func(h *indexHead)) {
	t.Helper()
	table, err := openTable(replace.OS, path)
	require.NoError(t, err)
	text, err := index.Head(table)
	require.NoError(t, err)
	var h indexHead
	require.NoError(t, json.Unmarshal(text, &h))
	b, err := index.Restore(table, h.Last, func(uint64) bool { return true })
	require.NoError(t, err)
	x, err := b.Index()
	require.NoError(t, err)
	change(&h)
	text, err = json.Marshal(&h)
	require.NoError(t, err)
	temp := filepath.Join(t.TempDir(), "index")
	file, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = x.Freeze().Write(file, rand.Uint64(), text, func(int) error { return nil })
	require.NoError(t, errors.Join(err, file.Close()))
	made, err := os.ReadFile(temp)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, made, 0o600))
}

// pagesOf returns the offsets of the pages of a kind in an INDEX whose state takes
// one page.
func pagesOf(t testing.TB, path string, kind byte) (offsets []int64) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for at := 0; at < len(text)-2*index.PageSize; at += index.PageSize {
		if text[at] == kind {
			offsets = append(offsets, int64(at))
		}
	}
	return offsets
}

func TestOpenTakesIndexAndShowsTheSame(t *testing.T) {
	rng := seed.Rand(t)
	clock := newFakeClock()
	opts := saving()
	opts.Now, opts.Compaction.Grace = clock.Now, time.Nanosecond
	db := open(t, opts)
	want := model{}
	var all []Sample
	for round := range 12 {
		all = churn(t, rng, db, want, all, 120)
		long := strings.Repeat("long ", 200+rng.IntN(3)) + fmt.Sprint(rng.IntN(3)) // 1,000 bytes and more
		want[long] = fmt.Sprint("round ", round)
		put(t, db, long, want[long])
		put(t, db, fmt.Sprint("ttl ", round), "1", TTL(time.Duration(rng.IntN(4))*time.Hour))
		clock.move(time.Hour)
		if rng.IntN(2) == 0 {
			save(t, db)
			all = churn(t, rng, db, want, all, rng.IntN(100))
		}
		if rng.IntN(3) == 0 {
			compactAll(t, db)
		}
		if report := sameWithoutIndex(t, withIndexOf(t, killed(t, db), db), opts); report.Indexed > 0 {
			require.False(t, report.Clean)
		}
		before := look(t, db)
		db = reopen(t, db, opts)
		after := look(t, db)
		for i := range after.Segments {
			before.Segments[i].Open = false // Close has sealed it
			before.Segments[i].Bytes = after.Segments[i].Bytes
		}
		before.Segments = before.Segments[:len(after.Segments)] // and removed it, if it was empty
		require.Equal(t, before, after)
		r := db.Recovery()
		require.True(t, r.Clean)
		require.Equal(t, db.Stats().LastSeq, r.Indexed)
		require.Zero(t, r.Replayed, "INDEX stands for all that Close has left")
		sameWithoutIndex(t, killed(t, db), opts)
		for key, value := range want {
			present(t, db, key, value)
		}
		for i := range 3 {
			name := fmt.Sprint("s", i)
			require.Equal(t, plain(window(all, name, Window{})), plain(samples(t, db, name, Window{})))
		}
	}
}

// withIndexOf makes sure that a copy of a store's directory has an INDEX.
func withIndexOf(t testing.TB, dir string, db *Store) string {
	t.Helper()
	if _, err := os.Stat(indexPath(dir)); errors.Is(err, fs.ErrNotExist) {
		save(t, db)
		return killed(t, db)
	}
	return dir
}

func TestOnlyTheTailIsReadAfterAKill(t *testing.T) {
	opts := saving()
	db := open(t, opts)
	for i := range 300 {
		put(t, db, fmt.Sprintf("k%03d", i), fmt.Sprint(i))
		_, err := db.Append("s", []byte("1"))
		require.NoError(t, err)
	}
	save(t, db)
	st := db.Stats()
	for i := range 100 {
		put(t, db, fmt.Sprintf("k%03d", 3*i), "new")
		_, err := db.Append("s", []byte("2"))
		require.NoError(t, err)
	}
	open := st.Segments[len(st.Segments)-1]
	require.True(t, open.Open)
	report := sameWithoutIndex(t, killed(t, db), opts)
	require.False(t, report.Clean)
	require.Equal(t, st.LastSeq, report.Indexed)
	require.Equal(t, db.Stats().LastSeq-open.First+1, report.Replayed, "what was open at the checkpoint, and all that came later")
	require.Less(t, report.Replayed, uint64(300))
	save(t, db)
	compactAll(t, db)
	report = sameWithoutIndex(t, killed(t, db), opts)
	require.EqualValues(t, 300+400, report.Replayed, "INDEX stands for no segment any more, and for every number still")
	require.Equal(t, uint64(800), report.Indexed)
}

// orderFS notes in which order a directory is changed. A sync of it comes before
// all else once INDEX was removed.
type orderFS struct {
	replace.FS
	mu  sync.Mutex
	ops []string
}

func (o *orderFS) note(verb, name string) {
	if filepath.Base(name) == lockName {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ops = append(o.ops, verb+" "+filepath.Base(name))
}

func (o *orderFS) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE) != 0 {
		o.note("change", name)
	}
	return o.FS.OpenFile(name, flag, perm)
}

func (o *orderFS) Rename(oldname, newname string) error {
	o.note("rename", newname)
	return o.FS.Rename(oldname, newname)
}

func (o *orderFS) Remove(name string) error {
	o.note("remove", name)
	return o.FS.Remove(name)
}

func (o *orderFS) SyncDir(name string) error {
	o.note("sync", name)
	return o.FS.SyncDir(name)
}

// misfits are an INDEX, at dir, that Open must not take. Some come with a MANIFEST
// that knows less than they do.
func misfits(t *testing.T) map[string]func(dir string) {
	head := func(change func(h *indexHead)) func(string) {
		return func(dir string) { rewriteIndex(t, indexPath(dir), change) }
	}
	at := func(from int64, whence byte) func(string) {
		return func(dir string) {
			edit(t, indexPath(dir), func(text []byte) []byte {
				if whence == 'e' {
					text[int64(len(text))+from] ^= 1
				} else {
					text[from] ^= 1
				}
				return text
			})
		}
	}
	contents := func(change func(text []byte) []byte) func(string) {
		return func(dir string) { edit(t, indexPath(dir), change) }
	}
	return map[string]func(dir string){
		"another store's":    head(func(h *indexHead) { h.Store = strings.Repeat("0", len(h.Store)) }),
		"a later MANIFEST's": head(func(h *indexHead) { h.Generation += 100 }),
		"of a record that is not there": head(func(h *indexHead) {
			h.Last++
			h.Generation = 0
		}),
		"another format":       head(func(h *indexHead) { h.Annals = 2 }),
		"no format":            head(func(h *indexHead) { h.Annals = 0 }),
		"the trailer's sum":    at(-1, 'e'),
		"the trailer's magic":  at(-index.PageSize+3, 'e'),
		"the trailer's mark":   at(-index.PageSize+20, 'e'),
		"the state":            at(-2*index.PageSize, 'e'),
		"empty":                contents(func([]byte) []byte { return nil }),
		"a page is missing":    contents(func(text []byte) []byte { return text[:len(text)-index.PageSize] }),
		"the first is missing": contents(func(text []byte) []byte { return text[index.PageSize:] }),
		"cut":                  contents(func(text []byte) []byte { return text[:len(text)-1] }),
		"something else":       contents(func(text []byte) []byte { return []byte("INDEX\n") }),
		"zeros":                contents(func(text []byte) []byte { return make([]byte, len(text)) }),
	}
}

func TestIndexThatDoesNotFitIsRemovedBeforeAnythingIsWritten(t *testing.T) {
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), saving())
	want := model{}
	for i := range 200 {
		key := fmt.Sprintf("k%03d", i)
		want[key] = fmt.Sprint(i)
		put(t, db, key, want[key])
	}
	save(t, db)
	crashed := killed(t, db)
	require.NoError(t, db.Close())
	for _, from := range []string{db.dir, crashed} {
		for name, spoil := range misfits(t) {
			t.Run(name+" "+filepath.Base(from), func(t *testing.T) {
				dir := copyDir(t, from)
				spoil(dir)
				before := tree(t, dir)
				r := openReader(t, dir)
				want.holds(t, r)
				require.Zero(t, r.Stats().Recovery.Indexed)
				sameTree(t, before, tree(t, dir))

				order := &orderFS{FS: replace.OS}
				db := openAt(t, dir, &Options{FS: order, SegmentSize: minSegment, Compaction: Compaction{Off: true}})
				require.GreaterOrEqual(t, len(order.ops), 2)
				require.Equal(t, []string{"remove " + indexName, "sync " + filepath.Base(dir)}, order.ops[:2])
				require.Contains(t, db.Recovery().Removed, indexName)
				require.Zero(t, db.Recovery().Indexed)
				require.EqualValues(t, 200, db.Recovery().Replayed)
				require.NoFileExists(t, indexPath(dir))
				want.holds(t, db)
				put(t, db, "later", "1")
			})
		}
	}
}

// A MANIFEST that was put back from a copy, with all that it lists, does not know of
// what a newer INDEX says.
func TestIndexBesideAStoreThatWasPutBackIsNotTaken(t *testing.T) {
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), saving())
	put(t, db, "k", "old")
	put(t, db, "deleted later", "1")
	before := killed(t, db)
	del(t, db, "deleted later")
	put(t, db, "k", "new")
	compactAll(t, db)
	require.NoError(t, db.Close())
	text, err := os.ReadFile(indexPath(db.dir))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(indexPath(before), text, 0o600))
	again := openAt(t, before, saving())
	require.Zero(t, again.Recovery().Indexed)
	require.NoFileExists(t, indexPath(before))
	require.Equal(t, []string{"deleted later=1", "k=old"}, scan(t, again, Range{}))
}

// manyKeys is a closed store with an INDEX of many pages, and what it holds.
func manyKeys(t testing.TB) (dir string, want model) {
	t.Helper()
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), &Options{Sync: SyncNever, SegmentSize: 64 << 10, Checkpoint: 1 << 30, Compaction: Compaction{Off: true}})
	want = model{}
	for i := range 3000 {
		key := fmt.Sprintf("key %04d", i)
		want[key] = fmt.Sprint(i)
		put(t, db, key, want[key])
	}
	require.NoError(t, db.Close())
	return db.dir, want
}

func TestDamagedPageOfIndexFailsTheReadsThatNeedItAndNoOther(t *testing.T) {
	from, want := manyKeys(t)
	for kind, name := range map[byte]string{1: "data", 2: "inner", 3: "hash"} {
		pages := pagesOf(t, indexPath(from), kind)
		require.NotEmpty(t, pages, "%s pages", name)
		for _, page := range []int64{pages[0], pages[len(pages)/2]} {
			t.Run(fmt.Sprint(name, page/index.PageSize), func(t *testing.T) {
				dir := copyDir(t, from)
				edit(t, indexPath(dir), func(text []byte) []byte { text[page+2000] ^= 1; return text })
				db := openDamaged(t, dir, &Options{Compaction: Compaction{Off: true}})
				require.NotZero(t, db.Recovery().Indexed, "its pages are looked at when they are used")
				blamesIndex(t, db, want, page, kind)
				segments := segmentsIn(t, dir)
				if _, err := db.Compact(t.Context(), nil); kind != 1 {
					require.NoError(t, err, "no order is needed, and no key is looked for")
				} else {
					damagedIndex(t, err, dir, page)
					require.Equal(t, segments, segmentsIn(t, dir), "nothing was replaced, and nothing is left")
				}
				require.Contains(t, strings.Join(db.Stats().Damage, "\n"), indexName)
				put(t, db, "key 0000", "new")
				want := maps.Clone(want)
				want["key 0000"] = "new"
				require.NoError(t, db.Close())
				require.NoError(t, os.Remove(indexPath(dir)))
				again := openAt(t, dir, nil)
				want.holds(t, again)
			})
		}
	}
}

// damagedIndex requires an error to say where INDEX is damaged.
func damagedIndex(t testing.TB, err error, dir string, page int64) {
	t.Helper()
	damage := (*CorruptError)(nil)
	require.ErrorAs(t, err, &damage)
	require.Equal(t, indexPath(dir), damage.Path)
	require.Equal(t, page, damage.Offset)
}

// blamesIndex reads all keys: those that need a page fail, the others are right.
func blamesIndex(t testing.TB, db *Store, want model, page int64, kind byte) {
	t.Helper()
	failed := 0
	for key, value := range want {
		have, err := db.Get(key)
		if err == nil {
			require.Equal(t, value, string(have))
			continue
		}
		failed++
		damagedIndex(t, err, db.dir, page)
		damagedIndex(t, db.Put(key, []byte("new"), IfAbsent()), db.dir, page)
	}
	if kind == 2 {
		require.Zero(t, failed, "a key is found without inner pages")
		damagedIndex(t, firstError(db.Scan(Range{From: "key 1"})), db.dir, page)
		return
	}
	require.NotZero(t, failed)
	require.Less(t, failed, len(want)*3/4, "only some of the keys need this page")
	if kind == 1 {
		damagedIndex(t, firstError(db.Scan(Range{})), db.dir, page)
	} else {
		want.holds(t, db)
	}
}

// A key too long for a page lies in INDEX apart, and may lie in a segment that must
// be read again: then it has moved, and is not dead.
func TestKeyTooLongForAPageIsFoundInTheSegmentThatWasOpen(t *testing.T) {
	db := open(t, saving())
	long := strings.Repeat("k", 1001)
	put(t, db, long, "old")
	put(t, db, "short", "1")
	put(t, db, long, "1")
	put(t, db, long+"deleted", "1")
	save(t, db)
	del(t, db, long+"deleted")
	put(t, db, long+"later", "1")
	report := sameWithoutIndex(t, killed(t, db), saving())
	require.EqualValues(t, 4, report.Indexed)
	require.EqualValues(t, 6, report.Replayed)
	require.NoError(t, db.Close())
	again := openAt(t, db.dir, saving())
	require.Equal(t, []string{long + "=1", long + "later=1", "short=1"}, scan(t, again, Range{}))
	present(t, again, long, "1")
	require.Equal(t, 3, again.Stats().Keys)
}

// What damage has cost stays told when the log is not read any more.
func TestIndexDoesNotHideThatSamplesAreLost(t *testing.T) {
	dir, _, path := compactedSamples(t)
	flip(t, path, `"val":2`)
	for round := range 3 {
		db := openDamaged(t, dir, &Options{Checkpoint: 1, Compaction: Compaction{Off: true}})
		if round > 0 {
			require.NotZero(t, db.Recovery().Indexed)
		}
		require.ErrorIs(t, firstError(db.Series()), ErrCorrupt, "round %d", round)
		require.ErrorIs(t, firstError(db.Samples("s", Window{})), ErrCorrupt, "round %d", round)
		put(t, db, "a", fmt.Sprint(round))
		save(t, db)
		require.NoError(t, db.Close())
	}
}

// A key that INDEX knows is deleted or expires later, and compaction takes all that
// told so.
func TestNothingComesBackByAnOldIndex(t *testing.T) {
	clock := newFakeClock()
	opts := saving()
	opts.Now, opts.Compaction.Grace = clock.Now, time.Nanosecond
	db := open(t, opts)
	put(t, db, "deleted", "1")
	put(t, db, "overwritten", "1")
	put(t, db, "expires", "1", TTL(time.Hour))
	put(t, db, "expires later", "1", TTL(48*time.Hour))
	put(t, db, "moved", "1")
	put(t, db, strings.Repeat("long", 500), "1")
	compactAll(t, db)
	save(t, db)
	del(t, db, "deleted")
	del(t, db, strings.Repeat("long", 500))
	put(t, db, "overwritten", "2")
	left := []string{"expires later=1", "moved=1", "overwritten=2"}
	check := func(replayed int) {
		t.Helper()
		report := sameWithoutIndex(t, killed(t, db), opts)
		require.EqualValues(t, 6, report.Indexed)
		require.EqualValues(t, replayed, report.Replayed)
		require.Equal(t, left, scan(t, db, Range{}))
		again := openDamaged(t, killed(t, db), opts)
		require.Equal(t, left, scan(t, again, Range{}))
		absent(t, again, "deleted")
		absent(t, again, "expires")
		require.NoError(t, again.Close())
	}
	clock.move(24 * time.Hour)
	check(3)
	compactAll(t, db)
	require.Equal(t, 3, db.Stats().Keys, "the tombstones and what has expired are gone from the log")
	check(3)
	clock.move(48 * time.Hour)
	left = left[1:]
	check(3)
	save(t, db)
	require.NoError(t, db.Close())
	again := openAt(t, db.dir, opts)
	require.Equal(t, left, scan(t, again, Range{}))
	require.Zero(t, again.Recovery().Replayed)
	require.Equal(t, 3, again.Stats().Keys)
}

// A compaction of some of the segments leaves an INDEX that knows where half of all
// is; records of its outputs are no news, and no sample is counted twice.
func TestCompactionOfSegmentsThatIndexStandsFor(t *testing.T) {
	rng := seed.Rand(t)
	db := open(t, saving())
	want := model{}
	var all []Sample
	for range 6 {
		all = churn(t, rng, db, want, all, 200)
		if rng.IntN(2) == 0 {
			save(t, db)
		}
		var some []uint64
		for _, seg := range db.Stats().Segments {
			if !seg.Open && rng.IntN(2) == 0 {
				some = append(some, seg.Segment)
			}
		}
		db.compaction.job.Lock()
		_, err := db.compactLocked(t.Context(), some, func(context.Context, int) error { return nil }, true)
		db.compaction.job.Unlock()
		require.NoError(t, err)
		dir := withIndexOf(t, killed(t, db), db)
		sameWithoutIndex(t, dir, saving())
		want.holds(t, db)
		require.EqualValues(t, len(all), db.Stats().Samples)
		if rng.IntN(2) == 0 {
			db = reopen(t, db, saving())
		}
	}
}

func TestCheckpointThatIsNotWantedChangesNothing(t *testing.T) {
	db := open(t, saving())
	put(t, db, "k", "1")
	before := tree(t, db.dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, db.Checkpoint(ctx), context.Canceled)
	sameTree(t, before, tree(t, db.dir))
	save(t, db)
	put(t, db, "k", "2")
	before = tree(t, db.dir)
	require.ErrorIs(t, db.Checkpoint(ctx), context.Canceled)
	sameTree(t, before, tree(t, db.dir))
	require.NoError(t, db.Close())
	before = tree(t, db.dir)
	require.ErrorIs(t, db.Checkpoint(t.Context()), ErrClosed)
	sameTree(t, before, tree(t, db.dir))
}

// indexHook lets fail what is done to INDEX or a file that is to become it.
func indexHook(hook func(func(name string) error), err error) {
	hook(func(name string) error {
		if strings.Contains(filepath.Base(name), indexName) {
			return err
		}
		return nil
	})
}

func TestFullDiskOnlyCostsTheIndex(t *testing.T) {
	hooks := newHookFS()
	opts := saving()
	opts.FS = hooks
	for name, hook := range map[string]func(func(string) error){
		"open":  func(fn func(string) error) { hooks.onOpen.Store(&fn) },
		"write": func(fn func(string) error) { hooks.onWrite.Store(&fn) },
		"sync":  func(fn func(string) error) { hooks.onSync.Store(&fn) },
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t, opts)
			put(t, db, "k", "1")
			indexHook(hook, errNoRoom)
			require.ErrorIs(t, db.Checkpoint(t.Context()), errNoRoom)
			require.NoFileExists(t, indexPath(db.dir))
			put(t, db, "k", "2")
			present(t, db, "k", "2")
			require.Empty(t, db.Stats().Failed)
			require.NoError(t, db.Close(), "an index that can't be saved is no loss")
			names, err := os.ReadDir(db.dir)
			require.NoError(t, err)
			for _, e := range names {
				require.NotContains(t, e.Name(), indexName)
			}
			indexHook(hook, nil)
			again := openAt(t, db.dir, opts)
			present(t, again, "k", "2")
			require.EqualValues(t, 2, again.Recovery().Replayed)
			save(t, again)
			put(t, again, "k", "3")
			indexHook(hook, errNoRoom)
			require.ErrorIs(t, again.Checkpoint(t.Context()), errNoRoom)
			indexHook(hook, nil)
			require.NoError(t, again.Close())
			require.Zero(t, openAt(t, db.dir, opts).Recovery().Replayed, "Close has saved it")
		})
	}
}

func TestIndexIsSavedWhenEnoughHasChanged(t *testing.T) {
	fill := func(t *testing.T, db *Store, from, n int) {
		var b Batch
		for i := range n {
			b.Put(fmt.Sprintf("key %06d", from+i), []byte("1"))
		}
		_, err := db.Apply(&b)
		require.NoError(t, err)
	}
	quiet := Compaction{Off: true}
	t.Run("few changes are not worth it at Close", func(t *testing.T) {
		db := open(t, &Options{Compaction: quiet})
		fill(t, db, 0, fewAtClose-1)
		db = reopen(t, db, &Options{Compaction: quiet})
		require.EqualValues(t, fewAtClose-1, db.Recovery().Replayed)
		require.NoFileExists(t, indexPath(db.dir))
		fill(t, db, fewAtClose, 1)
		db = reopen(t, db, &Options{Compaction: quiet})
		require.Zero(t, db.Recovery().Replayed, "what was read counts too")
		require.EqualValues(t, fewAtClose, db.Recovery().Indexed)
		fill(t, db, 2*fewAtClose, 10)
		db = reopen(t, db, &Options{Compaction: quiet})
		require.EqualValues(t, 10, db.Recovery().Replayed)
	})
	t.Run("with Options.Checkpoint any change is", func(t *testing.T) {
		opts := &Options{Compaction: quiet, Checkpoint: 1000}
		db := open(t, opts)
		fill(t, db, 0, 1)
		require.NoFileExists(t, indexPath(db.dir))
		db = reopen(t, db, opts)
		require.EqualValues(t, 1, db.Recovery().Indexed)
		before := tree(t, db.dir)
		db = reopen(t, db, opts)
		require.Equal(t, before[indexName], tree(t, db.dir)[indexName], "nothing has changed")
		fill(t, db, 1, 2000)
		eventually(t, "INDEX is written while the store is open", func() bool {
			n, _ := db.index.Changes()
			return n == 0
		})
		require.EqualValues(t, 2001, sameWithoutIndex(t, killed(t, db), opts).Indexed)
	})
}

// Writers, readers, snapshots, compaction and checkpoints go on beside each other,
// and whatever a power cut leaves, at any moment, opens to whole commits.
func TestCheckpointsBesideEverythingElse(t *testing.T) {
	fsys := faultfs.New()
	opts := &Options{FS: fsys, SegmentSize: 16 << 10, Sync: SyncEvery(time.Millisecond), Checkpoint: 200, Compaction: Compaction{Rate: 1 << 30}}
	db := openDamaged(t, "/store", opts)
	const writers, keys = 3, 50
	deadline := time.Now().Add(2 * time.Second)
	if testing.Short() {
		deadline = time.Now().Add(time.Second / 2)
	}
	var wg sync.WaitGroup
	var counts [writers]int // each writer's rounds: its keys hold the round or the one before
	for w := range writers {
		wg.Go(func() {
			for n := 1; time.Now().Before(deadline); n++ {
				var b Batch
				for i := range keys {
					b.Put(fmt.Sprintf("%d/%02d", w, i), fmt.Append(nil, n))
				}
				b.Delete(fmt.Sprintf("%d/gone", w))
				b.Append(fmt.Sprint("s", w), fmt.Append(nil, n))
				if _, err := db.Apply(&b); err != nil {
					t.Error(err)
					return
				}
				counts[w] = n
			}
		})
	}
	beside := func(fn func() error) {
		wg.Go(func() {
			for time.Now().Before(deadline) {
				if err := fn(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	beside(func() error { return db.Checkpoint(context.Background()) })
	beside(func() error { _, err := db.Compact(context.Background(), nil); return err })
	beside(func() error { return wholeRounds(db, writers, keys) })
	taken := 0
	for n := 0; time.Now().Before(deadline); n++ {
		opts := *opts
		opts.FS = fsys.Crash(func(i int) bool { return n%2 == 0 || rand.IntN(2) == 0 })
		copied, err := Open("/store", &opts)
		if !assert.NoError(t, err) {
			break
		}
		if copied.Recovery().Indexed > 0 {
			taken++
		}
		assert.NoError(t, wholeRounds(copied, writers, keys))
		assert.NoError(t, copied.Close())
	}
	wg.Wait()
	require.NotZero(t, taken, "no crash has left an INDEX")
	for w := range writers {
		present(t, db, fmt.Sprintf("%d/%02d", w, keys-1), fmt.Sprint(counts[w]))
	}
	keysBefore, seriesBefore := scan(t, db, Range{}), series(t, db)
	require.NoError(t, db.Close())
	db = openDamaged(t, "/store", opts)
	require.NotZero(t, db.Recovery().Indexed)
	require.Equal(t, keysBefore, scan(t, db, Range{}))
	require.Equal(t, seriesBefore, series(t, db))
}

// wholeRounds looks at a snapshot: of each writer all keys are of one round, and so
// many samples are there.
func wholeRounds(db *Store, writers, keys int) error {
	return db.View(func(s *Snapshot) error {
		rounds := map[string]int{}
		for info, err := range s.Series() {
			if err != nil {
				return err
			}
			rounds[info.Name] = int(info.Samples)
		}
		for w := range writers {
			name, n := fmt.Sprint("s", w), 0
			for e, err := range s.Scan(Prefix(fmt.Sprint(w, "/"))) {
				if err != nil {
					return err
				}
				if string(e.Value) != fmt.Sprint(rounds[name]) {
					return fmt.Errorf("%s is of round %s, there are %d samples", e.Key, e.Value, rounds[name])
				}
				n++
			}
			if rounds[name] > 0 && n != keys {
				return fmt.Errorf("writer %d has %d keys", w, n)
			}
			last := 0
			for sample, err := range s.Samples(name, Window{}) {
				if last++; err != nil || string(sample.Value) != fmt.Sprint(last) {
					return fmt.Errorf("sample %d of %s is %s: %w", last, name, sample.Value, errors.Join(err))
				}
			}
			if last != rounds[name] {
				return fmt.Errorf("%d samples of %s, the sum says %d", last, name, rounds[name])
			}
		}
		return nil
	})
}

func TestSnapshotFromBeforeACheckpointReadsOn(t *testing.T) {
	db := open(t, saving())
	want, later := model{}, model{}
	for i := range 500 {
		key := fmt.Sprintf("k%03d", i)
		want[key], later[key] = "old", "old"
		put(t, db, key, "old")
	}
	var held []*Snapshot
	for round := range 4 {
		s := db.Snapshot()
		defer s.Close()
		want := maps.Clone(later)
		defer func() {
			want.holds(t, s)
			require.Equal(t, want.scan(Range{Reverse: true}), scan(t, s, Range{Reverse: true}), "round %d", round)
			for key, value := range want {
				present(t, s, key, value)
			}
			absent(t, s, fmt.Sprint("new ", round))
		}()
		held = append(held, s)
		for i := range 100 {
			key := fmt.Sprintf("k%03d", (i*7+round)%500)
			if i%5 == 0 {
				del(t, db, key)
				delete(later, key)
				continue
			}
			later[key] = fmt.Sprint(round)
			put(t, db, key, later[key])
		}
		put(t, db, fmt.Sprint("new ", round), "1")
		later[fmt.Sprint("new ", round)] = "1"
		save(t, db)
		if round%2 == 1 {
			compactAll(t, db)
			save(t, db)
		}
		want.holds(t, s)
		later.holds(t, db)
	}
	want.holds(t, held[0])
}

func TestBackupLeavesIndexOut(t *testing.T) {
	db, want, all := filled(t, &Options{Checkpoint: 1 << 30, Compaction: Compaction{Off: true}})
	save(t, db)
	dir := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, db.Backup(t.Context(), dir))
	require.NoFileExists(t, indexPath(dir))
	r := openReader(t, db.dir)
	fromReader := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, r.Backup(t.Context(), fromReader))
	require.NoFileExists(t, indexPath(fromReader))
	for _, dir := range []string{dir, fromReader} {
		copied := isCopy(t, dir, want, all)
		require.Zero(t, copied.Recovery().Indexed)
	}
}

func TestReaderTakesIndexAndFollows(t *testing.T) {
	db, want, all := filled(t, &Options{Checkpoint: 1 << 30, Compaction: Compaction{Off: true}})
	save(t, db)
	last := db.Stats().LastSeq
	put(t, db, "later", "1")
	want["later"] = "1"
	r := openReader(t, db.dir)
	require.Equal(t, last, r.Stats().Recovery.Indexed)
	require.Less(t, r.Stats().Recovery.Replayed, last)
	want.holds(t, r)
	require.Equal(t, plain(all), plain(samples(t, r, "s", Window{})))
	compactAll(t, db)
	save(t, db)
	put(t, db, "later", "2")
	want["later"] = "2"
	require.NoError(t, r.Refresh())
	again := openReader(t, db.dir)
	require.Equal(t, last+1, again.Stats().Recovery.Indexed)
	require.EqualValues(t, 1, again.Stats().Recovery.Replayed)
	for _, r := range []*Reader{r, again} {
		want.holds(t, r)
		require.Equal(t, plain(all), plain(samples(t, r, "s", Window{})))
	}
	require.FileExists(t, indexPath(db.dir))
}

// INDEX stands for segments that are not read at Open. That one of them is missing,
// or is not the file that MANIFEST means, is told nevertheless.
func TestSegmentsThatIndexStandsForAreLookedAt(t *testing.T) {
	fill := func(t *testing.T, store string) (dir string) {
		db := openDamaged(t, filepath.Join(t.TempDir(), "store"), saving())
		for i := range 100 {
			put(t, db, fmt.Sprintf("k%02d", i), store)
			_, err := db.Append("s", []byte("1"))
			require.NoError(t, err)
		}
		require.NoError(t, db.Close())
		return db.dir
	}
	from, other := fill(t, "ours"), fill(t, "else")
	paths := segmentsIn(t, from)
	require.Greater(t, len(paths), 2)
	name := filepath.Base(paths[1])
	t.Run("missing", func(t *testing.T) {
		dir := copyDir(t, from)
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
		refused(t, dir, ErrCorrupt)
		_, err := OpenReader(dir, nil)
		require.ErrorIs(t, err, ErrCorrupt)
	})
	replaced, err := os.ReadFile(filepath.Join(other, name))
	require.NoError(t, err)
	third, err := os.ReadFile(paths[2])
	require.NoError(t, err)
	for why, change := range map[string]func(text []byte) []byte{
		"cut":                func(text []byte) []byte { return text[:len(text)/2] },
		"too long":           func(text []byte) []byte { return append(text, '\n') },
		"empty":              func([]byte) []byte { return nil },
		"another store's":    func([]byte) []byte { return replaced },
		"another of ours":    func([]byte) []byte { return third },
		"no header any more": func(text []byte) []byte { text[0] ^= 1; return text },
	} {
		t.Run(why, func(t *testing.T) {
			dir := copyDir(t, from)
			path := filepath.Join(dir, name)
			edit(t, path, change)
			for range 2 { // saved again, it is told again
				db := openDamaged(t, dir, saving())
				require.NotZero(t, db.Recovery().Indexed)
				require.Contains(t, strings.Join(db.Stats().Damage, "\n"), name)
				require.ErrorIs(t, firstError(db.Series()), ErrCorrupt)
				require.ErrorIs(t, firstError(db.Samples("s", Window{})), ErrCorrupt)
				watchesAllOrBlames(t, db)
				readsOursOrBlames(t, db, path)
				put(t, db, "new", "1")
				require.NoError(t, db.Close())
			}
			require.NoError(t, os.Remove(indexPath(dir)))
			refused(t, dir, ErrCorrupt)
		})
	}
}

// watchesAllOrBlames watches to the end: no record is left out without an error.
func watchesAllOrBlames(t *testing.T, db *Store) {
	t.Helper()
	next := uint64(1)
	for rec, err := range db.Watch(t.Context(), 0) {
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Equal(t, next, rec.Seq)
		if next++; rec.Seq == db.Durable() {
			return
		}
	}
}

// readsOursOrBlames reads all keys: what is given is ours, and what is not is
// damage in a file. Some are there.
func readsOursOrBlames(t *testing.T, db *Store, path string) {
	t.Helper()
	good := 0
	for i := range 100 {
		value, err := db.Get(fmt.Sprintf("k%02d", i))
		if err == nil {
			require.Equal(t, "ours", string(value))
			good++
			continue
		}
		damage := (*CorruptError)(nil)
		require.ErrorAs(t, err, &damage)
		require.Equal(t, path, damage.Path)
	}
	require.Greater(t, good, 30)
}

// orderedFS calls a function before INDEX gets its name.
type orderedFS struct {
	replace.FS
	before func()
}

func (o orderedFS) Rename(oldname, newname string) error {
	if filepath.Base(newname) == indexName {
		o.before()
	}
	return o.FS.Rename(oldname, newname)
}

func TestIndexGetsItsNameOnceTheLogIsDurableUpToItsLast(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			fsys, opts, renamed := faultfs.New(), saving(), 0
			var db *Store
			opts.Sync = policy
			opts.FS = orderedFS{fsys, func() {
				renamed++
				if !db.log.Closed() {
					assert.Equal(t, db.index.Last(), db.Durable())
				}
				crashed := saving()
				crashed.FS = fsys.Crash(func(int) bool { return false })
				after, err := Open("/store", crashed)
				if assert.NoError(t, err) {
					assert.Equal(t, db.Stats().LastSeq, after.Stats().LastSeq, "what INDEX knows survives a power cut")
					assert.NoError(t, after.Close())
				}
			}}
			db = openDamaged(t, "/store", opts)
			for i := range 10 {
				put(t, db, fmt.Sprint(i), "1")
			}
			require.NoError(t, db.Checkpoint(t.Context()))
			put(t, db, "k", "1")
			require.NoError(t, db.Close())
			require.Equal(t, 2, renamed)
		})
	}
}

// While compaction has listed its outputs and moves entries to them, the index and
// MANIFEST do not fit together: a checkpoint waits. Entries that could not be moved
// end checkpoints until the store is opened again.
func TestNoCheckpointWhileEntriesAreMoved(t *testing.T) {
	db := open(t, saving())
	put(t, db, "k", "1")
	db.checkpoints.adopt.Lock()
	done := make(chan error, 1)
	go func() { done <- db.Checkpoint(context.Background()) }()
	select {
	case err := <-done:
		require.Fail(t, "the checkpoint did not wait", "%v", err)
	case <-time.After(50 * time.Millisecond):
	}
	db.checkpoints.astray = true
	db.checkpoints.adopt.Unlock()
	require.ErrorContains(t, <-done, "could not move")
	require.NoError(t, db.Close())
	require.NoFileExists(t, indexPath(db.dir))
	again := openAt(t, db.dir, saving())
	save(t, again)
}

// Close ends a checkpoint that is under way, and makes one itself.
func TestCloseSavesTheIndexThoughItEndsACheckpoint(t *testing.T) {
	hooks, opts := newHookFS(), saving()
	opts.FS, opts.Checkpoint = hooks, 2
	db := open(t, opts)
	put(t, db, "k", "1")
	var once sync.Once
	busy := make(chan struct{})
	wait := func(name string) error {
		if strings.Contains(name, indexName) {
			once.Do(func() {
				close(busy)
				<-db.checkpoints.ctx.Done()
			})
		}
		return nil
	}
	hooks.onWrite.Store(&wait)
	put(t, db, "l", "1") // the second change
	<-busy
	require.NoError(t, db.Close())
	again := openAt(t, db.dir, opts)
	require.EqualValues(t, 2, again.Recovery().Indexed)
}

func TestCheckpointOfAFailedStoreChangesNothing(t *testing.T) {
	hooks, opts := newHookFS(), saving()
	opts.FS = hooks
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), opts)
	put(t, db, "k", "1")
	set(&hooks.onSync, func(string) error { return errors.New("a sync that fails") })
	require.ErrorIs(t, db.Put("k", []byte("2")), ErrFailed)
	set(&hooks.onSync, nil)
	before := tree(t, db.dir)
	require.ErrorIs(t, db.Checkpoint(t.Context()), ErrFailed)
	require.ErrorIs(t, db.Close(), ErrFailed)
	sameTree(t, before, tree(t, db.dir))
}

// A page that is whole, in the place of another one of the same kind, or left over
// from an older INDEX, is damage.
func TestPagesOfIndexThatAreExchangedAreDamage(t *testing.T) {
	from, want := manyKeys(t)
	older, err := os.ReadFile(indexPath(from))
	require.NoError(t, err)
	rewriteIndex(t, indexPath(from), func(*indexHead) {}) // the same with another mark
	for _, kind := range []byte{1, 3} {
		pages := pagesOf(t, indexPath(from), kind)
		page, other := pages[1], pages[2]
		for _, source := range [][]byte{nil, older} {
			dir := copyDir(t, from)
			edit(t, indexPath(dir), func(text []byte) []byte {
				in, at := source, page
				if in == nil {
					in, at = append([]byte(nil), text...), other
				}
				copy(text[page:page+index.PageSize], in[at:])
				return text
			})
			db := openDamaged(t, dir, &Options{Compaction: Compaction{Off: true}})
			blamesIndex(t, db, want, page, kind)
			require.NoError(t, db.Close())
		}
	}
}

// A key is deleted while compaction copies it, and INDEX is made before the copy is
// listed: INDEX stands for the delete, and for all of its segment, and the copy is
// read again.
func TestRecordThatDiedWhileItWasCopiedStaysDead(t *testing.T) {
	hooks, opts := newHookFS(), saving()
	opts.FS = hooks
	db := open(t, opts)
	put(t, db, "deleted", "1")
	put(t, db, "overwritten", "1")
	put(t, db, "stays", "1")
	require.NoError(t, db.log.Rotate(t.Context()))
	inputs := []uint64{db.Stats().Segments[0].Segment}
	met := false
	set(&hooks.onSync, func(string) error { // of the copy
		set(&hooks.onSync, nil)
		met = true
		del(t, db, "deleted")
		put(t, db, "overwritten", "2")
		require.NoError(t, db.log.Rotate(t.Context()))
		save(t, db)
		return nil
	})
	db.compaction.job.Lock()
	stats, err := db.compactLocked(t.Context(), inputs, func(context.Context, int) error { return nil }, true)
	db.compaction.job.Unlock()
	require.NoError(t, err)
	require.True(t, met)
	require.EqualValues(t, 3, stats.Kept, "all were alive when they were copied")
	report := sameWithoutIndex(t, killed(t, db), saving())
	require.EqualValues(t, 5, report.Indexed)
	require.EqualValues(t, 3, report.Replayed, "the copies")
	db = reopen(t, db, saving())
	require.Equal(t, []string{"overwritten=2", "stays=1"}, scan(t, db, Range{}))
	absent(t, db, "deleted")
}

// What Open itself looks up in INDEX may meet a damaged page too: then the log is read.
func TestOpenThatMeetsADamagedPageReadsTheLog(t *testing.T) {
	from, want := manyKeys(t)
	opts := &Options{Compaction: Compaction{Off: true}}
	db := openAt(t, from, opts)
	for i := range 3000 {
		key := fmt.Sprintf("key %04d", i)
		want[key] = "new"
		put(t, db, key, want[key])
	}
	crashed := killed(t, db)
	require.NoError(t, db.Close()) // too little has changed for a new INDEX
	for why, dir := range map[string]string{"closed": from, "crashed": crashed} {
		for _, kind := range []byte{1, 3} {
			t.Run(fmt.Sprint(why, kind), func(t *testing.T) {
				dir := copyDir(t, dir)
				pages := pagesOf(t, indexPath(dir), kind)
				edit(t, indexPath(dir), func(text []byte) []byte { text[pages[0]+2000] ^= 1; return text })
				reader := openReader(t, dir)
				want.holds(t, reader)
				db := openAt(t, dir, opts)
				require.Zero(t, db.Recovery().Indexed)
				want.holds(t, db)
				require.Empty(t, db.Stats().Damage)
				require.NoFileExists(t, indexPath(dir))
			})
		}
	}
}

// A mapped INDEX that somebody cuts is an error for whoever needs what is gone, and
// no signal.
func TestIndexThatIsCutWhileItIsUsed(t *testing.T) {
	dir, want := manyKeys(t)
	db := openDamaged(t, dir, nil)
	require.NoError(t, os.Truncate(indexPath(dir), index.PageSize))
	failed := 0
	for key, value := range want {
		have, err := db.Get(key)
		if err == nil {
			require.Equal(t, value, string(have))
			continue
		}
		failed++
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, indexName)
	}
	if failed == 0 {
		want.holds(t, db) // it was not mapped
	} else {
		require.ErrorIs(t, firstError(db.Scan(Range{})), ErrCorrupt)
	}
	require.NoError(t, db.Close())
}

// INDEX does not stand for a segment that goes on growing: one in which much is, is
// ended before, so that little is read behind a crash.
func TestCheckpointEndsALongSegment(t *testing.T) {
	for _, kib := range []int{900, 1100} {
		opts := &Options{Sync: SyncNever, SegmentSize: 2 << 20}
		db := open(t, opts)
		for i := range kib {
			put(t, db, fmt.Sprint(i), strings.Repeat("v", 1024))
		}
		save(t, db)
		put(t, db, "behind", "1")
		_, err := db.Sync(t.Context())
		require.NoError(t, err)
		again := openAt(t, killed(t, db), opts)
		require.EqualValues(t, kib, again.Recovery().Indexed)
		if kib < 1024 {
			require.EqualValues(t, kib+1, again.Recovery().Replayed)
		} else {
			require.EqualValues(t, 1, again.Recovery().Replayed)
		}
		present(t, again, "behind", "1")
		require.Equal(t, kib+1, again.Stats().Keys)
	}
}
