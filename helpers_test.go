package annals

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// childEnv makes a run of the test binary try to open the store that it names, and
// nothing else.
const childEnv = "ANNALS_TEST_OPEN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(childOpens(dir))
	}
	os.Exit(m.Run())
}

// open opens a new store. When the test ends it is closed and must verify.
func open(t testing.TB, opts *Options) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "store"), opts)
}

// openAt is open for a directory that the test knows.
func openAt(t testing.TB, dir string, opts *Options) *Store {
	t.Helper()
	db := openDamaged(t, dir, opts)
	t.Cleanup(func() {
		require.NoError(t, db.Close())
		verifyClean(t, dir)
	})
	return db
}

// openDamaged opens a store that need not verify when the test ends.
func openDamaged(t testing.TB, dir string, opts *Options) *Store {
	t.Helper()
	db, err := Open(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// reopen closes a store and opens it again.
func reopen(t testing.TB, db *Store, opts *Options) *Store {
	t.Helper()
	require.NoError(t, db.Close())
	return openAt(t, db.dir, opts)
}

// killed copies the directory of an open store, in which nobody writes now: what a
// kill leaves of it.
func killed(t testing.TB, db *Store) (dir string) {
	t.Helper()
	db.compaction.job.Lock() // or files go while they are copied
	defer db.compaction.job.Unlock()
	return copyDir(t, db.dir)
}

// copyDir copies a directory to a new one.
func copyDir(t testing.TB, from string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.Mkdir(dir, 0o700)) // CopyFS would leave it to the umask
	require.NoError(t, os.CopyFS(dir, os.DirFS(from)))
	return dir
}

// verifyClean makes sure that Verify finds nothing wrong.
func verifyClean(t testing.TB, dir string) Report {
	t.Helper()
	report, err := Verify(t.Context(), dir, nil)
	if t.Context().Err() != nil { // in Cleanup
		report, err = Verify(context.Background(), dir, nil)
	}
	require.NoError(t, err)
	require.True(t, report.OK(), "%v", report.Problems)
	return report
}

// tree returns the contents of every file below dir but LOCK, and every directory.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == lockName {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			files[name] = "a directory"
			return nil
		}
		text, err := os.ReadFile(path)
		files[name] = string(text)
		return err
	}))
	return files
}

// sameTree is require.Equal without printing whole files.
func sameTree(t testing.TB, want, have map[string]string) {
	t.Helper()
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(have)), "the files of the directory")
	for name := range want {
		require.True(t, want[name] == have[name], "%s has changed", name)
	}
}

// segmentsIn returns the paths of the segments in dir, by number.
func segmentsIn(t testing.TB, dir string) (paths []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if _, ok := segment.ParseName(e.Name()); ok {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// edit changes the contents of a file.
func edit(t testing.TB, path string, change func(text []byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, change(text), 0o600))
}

// flip damages the byte that begins at the first occurrence of mark.
func flip(t testing.TB, path, mark string) {
	t.Helper()
	edit(t, path, func(text []byte) []byte {
		i := strings.Index(string(text), mark)
		require.GreaterOrEqual(t, i, 0, "%q is not in %s", mark, path)
		text[i] ^= 1
		return text
	})
}

// withCRC ends an object with its checksum.
func withCRC(object string) string {
	return fmt.Sprintf("%s %08x\n", object, segment.Checksum(0, []byte(object)))
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			require.FailNow(t, "this did not happen within 20 s", what)
		}
	}
}

// within fails the test if fn takes too long: it would wait for ever.
func within(t testing.TB, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		buf := make([]byte, 1<<20)
		require.FailNow(t, "this did not end within 30 s: "+what, string(buf[:runtime.Stack(buf, true)]))
	}
}

func put(t testing.TB, db *Store, key, value string, opts ...PutOption) {
	t.Helper()
	require.NoError(t, db.Put(key, []byte(value), opts...))
}

func del(t testing.TB, db *Store, key string) {
	t.Helper()
	require.NoError(t, db.Delete(key))
}

// absent makes sure that a key is not there.
func absent(t testing.TB, g Getter, key string) {
	t.Helper()
	_, err := g.Get(key)
	require.ErrorIs(t, err, ErrNotFound, "key %q", key)
}

// present makes sure that a key has a value.
func present(t testing.TB, g Getter, key, value string) {
	t.Helper()
	have, err := g.Get(key)
	require.NoError(t, err, "key %q", key)
	require.Equal(t, value, string(have), "key %q", key)
}

// scanner is what has keys in order: a Store, Reader, Snapshot or Tx.
type scanner interface {
	Scan(Range) iter.Seq2[Entry, error]
}

// scan returns a range as key=value strings.
func scan(t testing.TB, s scanner, r Range) (list []string) {
	t.Helper()
	for e, err := range s.Scan(r) {
		require.NoError(t, err)
		list = append(list, e.Key+"="+string(e.Value))
	}
	return list
}

// sampler is what has series.
type sampler interface {
	Samples(string, Window) iter.Seq2[Sample, error]
	Series() iter.Seq2[SeriesInfo, error]
}

// samples returns a window of a series.
func samples(t testing.TB, s sampler, series string, w Window) (list []Sample) {
	t.Helper()
	for sample, err := range s.Samples(series, w) {
		require.NoError(t, err)
		list = append(list, sample)
	}
	return list
}

// series returns all series.
func series(t testing.TB, s sampler) (list []SeriesInfo) {
	t.Helper()
	for info, err := range s.Series() {
		require.NoError(t, err)
		list = append(list, info)
	}
	return list
}

// firstError returns the first error of a loop.
func firstError[T any](loop iter.Seq2[T, error]) error {
	for _, err := range loop {
		if err != nil {
			return err
		}
	}
	return nil
}

// model is what a store should hold.
type model map[string]string

// scan is what Scan should yield.
func (m model) scan(r Range) (list []string) {
	keys := slices.Sorted(maps.Keys(m))
	if r.Reverse {
		slices.Reverse(keys)
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, r.Prefix) || key < r.From || r.To != "" && key >= r.To {
			continue
		}
		if r.Limit > 0 && len(list) == r.Limit {
			break
		}
		value := m[key]
		if r.KeysOnly {
			value = ""
		}
		list = append(list, key+"="+value)
	}
	return list
}

// holds makes sure that everything in s is as in the model.
func (m model) holds(t testing.TB, s scanner) {
	t.Helper()
	require.Equal(t, m.scan(Range{}), scan(t, s, Range{}))
}

// randomRange makes a range over keys of the letters a and b and the byte 0xFF.
func randomRange(rng *rand.Rand) Range {
	r := Range{Reverse: rng.IntN(2) == 0, KeysOnly: rng.IntN(4) == 0}
	if rng.IntN(2) == 0 {
		r.Prefix = randomKey(rng)
	}
	if rng.IntN(2) == 0 {
		r.From = randomKey(rng)
	}
	if rng.IntN(2) == 0 {
		r.To = randomKey(rng)
	}
	if rng.IntN(2) == 0 {
		r.Limit = 1 + rng.IntN(5)
	}
	return r
}

// randomKey makes one of 121 keys, so that they collide.
func randomKey(rng *rand.Rand) string {
	key := make([]byte, rng.IntN(5))
	for i := range key {
		key[i] = "ab\xFF"[rng.IntN(3)]
	}
	return string(key)
}

// fakeClock is a wall clock that the test moves, in either direction.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// hookFS is the real file system with a hook before what a test wants to hold up
// or let fail. A hook's error takes the place of the call.
type hookFS struct {
	replace.FS
	onSync  atomic.Pointer[func(name string) error] // of a file, Sync and SyncData
	onWrite atomic.Pointer[func(name string) error]
	onLink  atomic.Pointer[func(name string) error]
	onOpen  atomic.Pointer[func(name string) error]
}

func newHookFS() *hookFS { return &hookFS{FS: replace.OS} }

func runHook(hook *atomic.Pointer[func(string) error], name string) error {
	if fn := hook.Load(); fn != nil {
		return (*fn)(name)
	}
	return nil
}

func (h *hookFS) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	if err := runHook(&h.onOpen, name); err != nil {
		return nil, err
	}
	file, err := h.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &hookFile{file, h, name}, nil
}

func (h *hookFS) Link(oldname, newname string) error {
	if err := runHook(&h.onLink, newname); err != nil {
		return err
	}
	return h.FS.Link(oldname, newname)
}

type hookFile struct {
	replace.File
	fs   *hookFS
	name string
}

func (f *hookFile) WriteAt(p []byte, off int64) (int, error) {
	if err := runHook(&f.fs.onWrite, f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *hookFile) Sync() error {
	if err := runHook(&f.fs.onSync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *hookFile) SyncData() error {
	if err := runHook(&f.fs.onSync, f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

// set makes fn the hook for segments; nil takes it away.
func set(hook *atomic.Pointer[func(string) error], fn func(name string) error) {
	if fn == nil {
		hook.Store(nil)
		return
	}
	onlySegments := func(name string) error {
		if strings.HasSuffix(name, ".log") {
			return fn(name)
		}
		return nil
	}
	hook.Store(&onlySegments)
}

// holdSyncs makes every sync of a segment wait until release is called. waiting is
// closed when the first one waits.
func (h *hookFS) holdSyncs(t testing.TB) (waiting <-chan struct{}, release func()) {
	t.Helper()
	w, gate := make(chan struct{}), make(chan struct{})
	var once, open sync.Once
	set(&h.onSync, func(string) error {
		once.Do(func() { close(w) })
		<-gate
		return nil
	})
	release = func() {
		open.Do(func() {
			set(&h.onSync, nil)
			close(gate)
		})
	}
	t.Cleanup(release)
	return w, release
}

// child runs the test binary as a process that tries to open a store, and returns
// what it says.
func child(t testing.TB, dir string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func childOpens(dir string) int {
	db, err := Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return 0
	}
	fmt.Println("opened")
	if err := db.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// indexOf returns the offset of the first occurrence of mark.
func indexOf(t testing.TB, text []byte, mark string) int {
	t.Helper()
	i := strings.Index(string(text), mark)
	require.GreaterOrEqual(t, i, 0, "%q is missing", mark)
	return i
}

// tempOf returns the name of an unfinished file that is to become name.
func tempOf(t testing.TB, name string) (temp string) {
	t.Helper()
	dir := t.TempDir()
	p, err := replace.Begin(filepath.Join(dir, name))
	require.NoError(t, err)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	temp = entries[0].Name()
	require.NoError(t, p.Discard())
	return temp
}
