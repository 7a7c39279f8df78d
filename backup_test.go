package annals

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// filled returns a store of many segments, the last of them open, and what it
// holds.
func filled(t testing.TB, opts *Options) (*Store, model, []Sample) {
	t.Helper()
	o := *opts
	o.SegmentSize = minSegment
	db := open(t, &o)
	want := model{}
	var all []Sample
	for i := range 100 {
		key := fmt.Sprintf("k%02d", i%60)
		want[key] = fmt.Sprint("value ", i)
		put(t, db, key, want[key])
		s := Sample{Series: "s", At: time.UnixMicro(int64(i)), Value: []byte(want[key])}
		var err error
		s.Seq, err = db.Append(s.Series, s.Value, At(s.At))
		require.NoError(t, err)
		all = append(all, s)
	}
	del(t, db, "k00")
	delete(want, "k00")
	return db, want, all
}

// isCopy makes sure that a directory is a whole store with the same contents.
func isCopy(t testing.TB, dir string, want model, all []Sample) *Store {
	t.Helper()
	verifyClean(t, dir)
	db := openAt(t, dir, &Options{Compaction: Compaction{Off: true}})
	require.True(t, db.Recovery().Clean, "a backup is a cleanly closed store")
	want.holds(t, db)
	require.Equal(t, plain(all), plain(samples(t, db, "s", Window{})))
	return db
}

func TestBackupIsAStoreOfItsOwn(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			db, want, all := filled(t, &Options{Sync: policy, Compaction: Compaction{Off: true}})
			dir := filepath.Join(t.TempDir(), "backup")
			require.NoError(t, db.Backup(t.Context(), dir))
			last := db.Stats().LastSeq
			put(t, db, "later", "not in the copy")
			copied := isCopy(t, dir, want, all)
			require.Equal(t, last, copied.Stats().LastSeq)
			require.Equal(t, db.Stats().Store, copied.Stats().Store)
			put(t, copied, "only", "here")
			require.Greater(t, copied.Stats().LastSeq, last)
			absent(t, db, "only")
			require.Len(t, take(t, copied.Watch(t.Context(), 1), 201), 201)
			require.NoFileExists(t, filepath.Join(dir, "LOCK.tmp"))
		})
	}
}

func TestBackupOfAnEmptyStore(t *testing.T) {
	db := open(t, nil)
	dir := t.TempDir() // which is there already
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, db.Backup(t.Context(), dir))
	isCopy(t, dir, model{}, nil)
}

func TestBackupLinksSealedSegments(t *testing.T) {
	db, want, all := filled(t, &Options{Compaction: Compaction{Off: true}})
	dir := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, db.Backup(t.Context(), dir))
	sealed := db.manifest.copy().Sealed
	require.NotEmpty(t, sealed)
	for _, path := range segmentsIn(t, db.dir)[:len(sealed)] {
		a, err := os.Stat(path)
		require.NoError(t, err)
		b, err := os.Stat(filepath.Join(dir, filepath.Base(path)))
		require.NoError(t, err)
		require.True(t, os.SameFile(a, b), "%s is one file with two names", path)
	}
	for key := range want {
		put(t, db, key, "changed")
	}
	compactAll(t, db)
	copied := isCopy(t, dir, want, all)
	compactAll(t, copied)
	want.holds(t, copied)
	verifyClean(t, db.dir)
}

func TestBackupCopiesWhereLinksDoNotWork(t *testing.T) {
	hooks := newHookFS()
	db, want, all := filled(t, &Options{FS: hooks, Compaction: Compaction{Off: true}})
	set(&hooks.onLink, func(string) error { return errors.New("links are not for this file system") })
	dir := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, db.Backup(t.Context(), dir))
	isCopy(t, dir, want, all)
	a, err := os.Stat(segmentsIn(t, db.dir)[0])
	require.NoError(t, err)
	b, err := os.Stat(segmentsIn(t, dir)[0])
	require.NoError(t, err)
	require.False(t, os.SameFile(a, b))
}

// A segment that was cut is no backup, though it can be linked.
func TestBackupOfACutSegmentFails(t *testing.T) {
	db := open(t, &Options{SegmentSize: 4 << 10})
	for i := range 200 {
		put(t, db, fmt.Sprint("key", i), strings.Repeat("x", 50))
	}
	f := db.manifest.copy().Sealed[1]
	path := filepath.Join(db.dir, segment.Name(f.Segment))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, f.Size()-1))
	dest := filepath.Join(t.TempDir(), "copy")
	err = db.Backup(t.Context(), dest)
	var damage *CorruptError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, path, damage.Path)
	require.Equal(t, []uint64{f.First, f.Last}, []uint64{damage.FirstSeq, damage.LastSeq})
	left, err := os.ReadDir(dest)
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	require.NoError(t, db.Backup(t.Context(), dest))
}

func TestBackupThatFailsLeavesNoFile(t *testing.T) {
	hooks := newHookFS()
	db, want, all := filled(t, &Options{FS: hooks, Compaction: Compaction{Off: true}})
	dir := filepath.Join(t.TempDir(), "backup")
	set(&hooks.onLink, func(string) error { return errors.New("no links") })
	for failing := range len(db.Stats().Segments) {
		writes := 0
		set(&hooks.onWrite, func(string) error {
			if writes++; writes > failing {
				return errNoRoom
			}
			return nil
		})
		require.ErrorIs(t, db.Backup(t.Context(), dir), errNoRoom)
		require.Empty(t, segmentsIn(t, dir), "write %d failed", failing)
		require.NoFileExists(t, filepath.Join(dir, manifestName))
	}
	set(&hooks.onWrite, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, db.Backup(ctx, dir), context.Canceled)
	require.NoError(t, db.Backup(t.Context(), dir), "the directory is still empty")
	isCopy(t, dir, want, all)
}

func TestBackupOverwritesNothing(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "letter.txt"), []byte("dear"), 0o600))
	before := tree(t, dir)
	require.Error(t, db.Backup(t.Context(), dir))
	sameTree(t, before, tree(t, dir))
	require.Error(t, db.Backup(t.Context(), db.dir))
	require.Error(t, db.Backup(t.Context(), filepath.Join(dir, "letter.txt")))
	sameTree(t, before, tree(t, dir))
}

// Each commit writes the same number to both keys, so a copy that cuts a commit in
// two shows.
func TestBackupWhileWritingHoldsWholeCommits(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Millisecond), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			db := open(t, &Options{SegmentSize: minSegment, Sync: policy, Compaction: Compaction{Rate: 1 << 30}})
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					var b Batch
					b.Put("a", fmt.Append(nil, i))
					b.Append("s", fmt.Append(nil, i))
					b.Put("b", fmt.Append(nil, i))
					if _, err := db.Apply(&b); err != nil {
						t.Error(err)
						return
					}
					if i%50 == 49 { // or a lazy store buffers more than the test has time to write
						if _, err := db.Sync(t.Context()); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
			eventually(t, "a record", func() bool { return db.Stats().LastSeq > 0 })
			for i := range 8 {
				durable, err := db.Sync(t.Context())
				require.NoError(t, err)
				dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
				require.NoError(t, db.Backup(t.Context(), dir))
				verifyClean(t, dir)
				copied, err := Open(dir, nil)
				require.NoError(t, err)
				require.GreaterOrEqual(t, copied.Stats().LastSeq, durable)
				a, err := copied.Get("a")
				require.NoError(t, err)
				present(t, copied, "b", string(a))
				list := samples(t, copied, "s", Window{})
				require.Equal(t, string(a), string(list[len(list)-1].Value))
				require.Equal(t, string(a), fmt.Sprint(len(list)-1))
				require.NoError(t, copied.Close())
			}
			close(stop)
			wg.Wait()
		})
	}
}

// unsyncedDirFS fails the sync of a directory in which there is a MANIFEST.
type unsyncedDirFS struct {
	replace.FS
	dir string
}

func (f unsyncedDirFS) SyncDir(name string) error {
	if _, err := os.Stat(filepath.Join(name, manifestName)); name == f.dir && err == nil {
		return syscall.EIO
	}
	return f.FS.SyncDir(name)
}

// The last step of a backup is the sync of the directory behind the rename of
// MANIFEST. When it failed the segments were removed and MANIFEST stayed: a store
// that was all damage. Now the copy stays, and the error says what it is worth.
func TestBackupWhoseLastSyncFailsIsWhole(t *testing.T) {
	db, want, all := filled(t, &Options{Compaction: Compaction{Off: true}})
	r, err := OpenReader(db.dir, &ReaderOptions{FS: unsyncedDirFS{replace.OS, filepath.Join(t.TempDir(), "backup")}})
	require.NoError(t, err)
	defer r.Close()
	dir := r.opts.FS.(unsyncedDirFS).dir
	err = r.Backup(t.Context(), dir)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, "done, but perhaps not durable")
	isCopy(t, dir, want, all)
}
