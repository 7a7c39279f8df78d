package annals

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/replace"
)

func openReader(t testing.TB, dir string) *Reader {
	t.Helper()
	r, err := OpenReader(dir, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// Closed, killed and killed with a torn tail, where nothing can be written.
func TestReaderShowsWhatOpenWouldAndChangesNothing(t *testing.T) {
	db, want, all := filled(t, &Options{Compaction: Compaction{Off: true}})
	open := killed(t, db)
	torn := copyDir(t, open)
	path, start, _ := lastLine(t, torn)
	edit(t, path, func(text []byte) []byte { return append(text[:start:start], `{"seq":201,"dur":199,"key":"k00","de`...) })
	tornWant := model{"k00": "value 60"}
	for key, value := range want {
		tornWant[key] = value
	}
	require.NoError(t, db.Close())
	for name, c := range map[string]struct {
		dir  string
		want model
	}{"closed": {copyDir(t, db.dir), want}, "killed": {open, want}, "torn": {torn, tornWant}} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.Remove(filepath.Join(c.dir, lockName)))
			require.NoError(t, os.Chmod(c.dir, 0o500))
			defer os.Chmod(c.dir, 0o700)
			before := tree(t, c.dir)
			r := openReader(t, c.dir)
			c.want.holds(t, r)
			require.Equal(t, plain(all), plain(samples(t, r, "s", Window{})))
			require.Len(t, series(t, r), 1)
			for key, value := range c.want {
				present(t, r, key, value)
			}
			absent(t, r, "none")
			records := int(r.Stats().LastSeq)
			require.Equal(t, 201-min(1, len(c.want)-len(want)), records)
			for i, record := range take(t, r.Watch(t.Context(), 0), records) {
				require.EqualValues(t, i+1, record.Seq)
			}
			require.Equal(t, name == "closed", r.Stats().Recovery.Clean)
			require.Equal(t, len(c.want), r.Stats().Keys)
			require.NoError(t, r.Refresh())
			c.want.holds(t, r)
			backup := filepath.Join(t.TempDir(), "backup")
			require.NoError(t, r.Backup(t.Context(), backup))
			isCopy(t, backup, c.want, all)
			require.NoFileExists(t, filepath.Join(c.dir, lockName))
			sameTree(t, before, tree(t, c.dir))

			require.NoError(t, os.Chmod(c.dir, 0o700))
			again := openAt(t, c.dir, nil)
			c.want.holds(t, again)
			require.Equal(t, uint64(records), again.Recovery().LastSeq+uint64(records)*b2u(name == "closed"))
		})
	}
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func TestRefreshShowsWhatWasWrittenSince(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	write := func(i int) {
		db, err := Open(dir, &Options{Compaction: Compaction{Off: true}})
		require.NoError(t, err)
		put(t, db, "k", fmt.Sprint(i))
		put(t, db, fmt.Sprint("k", i), "v")
		if i == 3 {
			compactAll(t, db)
		}
		require.NoError(t, db.Close())
	}
	write(0)
	r := openReader(t, dir)
	snapshot := r.Snapshot()
	defer snapshot.Close()
	for i := 1; i < 6; i++ {
		write(i)
		present(t, r, "k", fmt.Sprint(i-1))
		require.NoError(t, r.Refresh())
		present(t, r, "k", fmt.Sprint(i))
		require.Len(t, scan(t, r, Range{}), i+2)
		require.Equal(t, []string{"k=0", "k0=v"}, scan(t, snapshot, Range{}))
	}
}

func TestReaderWatchGoesOnWithWhatAnotherWrites(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	db, err := Open(dir, nil)
	require.NoError(t, err)
	put(t, db, "k", "1")
	require.NoError(t, db.Close())
	r := openReader(t, dir)
	seen := make(chan Record)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for record, err := range r.Watch(ctx, 1) {
			if err != nil {
				ended <- err
				return
			}
			seen <- record
		}
	}()
	require.EqualValues(t, 1, (<-seen).Seq)
	for i := 2; i < 5; i++ {
		db, err := Open(dir, nil)
		require.NoError(t, err)
		put(t, db, "k", fmt.Sprint(i))
		require.NoError(t, db.Close())
		within(t, "the next record", func() { require.EqualValues(t, i, (<-seen).Seq) })
	}
	cancel()
	within(t, "the end", func() { require.Equal(t, context.Canceled, <-ended) })
	require.ErrorIs(t, firstError(r.Watch(t.Context(), 9)), ErrAhead)
}

func TestReaderIsSafeForConcurrentUse(t *testing.T) {
	db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	put(t, db, "k", "v")
	r := openReader(t, db.dir)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(fn func() error) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := fn(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range 3 {
		loop(func() error { _, err := r.Get("k"); return err })
	}
	loop(func() error { return firstError(r.Scan(Range{})) })
	loop(func() error { return r.View(func(s *Snapshot) error { _, err := s.Get("k"); return err }) })
	loop(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		for _, err := range r.Watch(ctx, 0) {
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
		return nil
	})
	for i := range 100 {
		put(t, db, "k", fmt.Sprint("v", i))
		require.NoError(t, r.Refresh())
	}
	close(stop)
	wg.Wait()
}

func TestClosedReaderSaysSoEverywhere(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	require.NoError(t, db.Close())
	r := openReader(t, db.dir)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	_, err := r.Get("k")
	for name, err := range map[string]error{
		"Get":     err,
		"Scan":    firstError(r.Scan(Range{})),
		"Samples": firstError(r.Samples("s", Window{})),
		"Series":  firstError(r.Series()),
		"Watch":   firstError(r.Watch(t.Context(), 0)),
		"Refresh": r.Refresh(),
		"Backup":  r.Backup(t.Context(), t.TempDir()),
	} {
		t.Run(name, func(t *testing.T) { require.ErrorIs(t, err, ErrClosed) })
	}
}

func TestReaderHidesWhatExpiresByItsOwnClock(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{Now: clock.Now})
	put(t, db, "k", "v", TTL(time.Minute))
	require.NoError(t, db.Close())
	r, err := OpenReader(db.dir, &ReaderOptions{Now: clock.Now})
	require.NoError(t, err)
	defer r.Close()
	present(t, r, "k", "v")
	clock.move(time.Hour)
	absent(t, r, "k")
}

// sealingFS cuts the padding of a segment off between the moment when a reader asks for
// its size and the moment when it reads: as a writer does that seals it just then.
type sealingFS struct{ replace.FS }

func (s sealingFS) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	file, err := s.FS.OpenFile(name, flag, perm)
	return &sealingFile{file, name}, err
}

type sealingFile struct {
	replace.File
	name string
}

func (f *sealingFile) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil || !strings.HasSuffix(f.name, ".log") {
		return info, err
	}
	text, err := os.ReadFile(f.name)
	if err != nil {
		return nil, err
	}
	return info, os.Truncate(f.name, int64(len(bytes.TrimRight(text, "\n"))+1))
}

func TestSegmentThatIsBeingSealedIsReadAndVerified(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	t.Run("reader", func(t *testing.T) {
		r, err := OpenReader(killed(t, db), &ReaderOptions{FS: sealingFS{replace.OS}})
		require.NoError(t, err)
		defer r.Close()
		present(t, r, "k", "v")
	})
	t.Run("verify", func(t *testing.T) {
		report, err := VerifyFS(t.Context(), sealingFS{replace.OS}, killed(t, db), nil)
		require.NoError(t, err)
		require.Empty(t, report.Problems)
		require.EqualValues(t, 1, report.Records)
	})
	t.Run("a reader's backup", func(t *testing.T) {
		dir := killed(t, db)
		r, err := OpenReader(dir, &ReaderOptions{FS: sealingFS{replace.OS}})
		require.NoError(t, err)
		defer r.Close()
		segments := segmentsIn(t, dir)
		edit(t, segments[len(segments)-1], func(text []byte) []byte { return append(text, newlines(64<<10)...) }) // as it was
		copied := filepath.Join(t.TempDir(), "backup")
		require.NoError(t, r.Backup(t.Context(), copied))
		present(t, openReader(t, copied), "k", "v")
	})
}

func newlines(n int) []byte { return bytes.Repeat([]byte{'\n'}, n) }

// unsyncableFS is a file system that can only be read, such as squashfs, which has no
// syncs at all.
type unsyncableFS struct {
	replace.FS
	err error
}

func (f unsyncableFS) SyncDir(string) error { return f.err }

func (f unsyncableFS) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	return unsyncableFile{file, f.err}, err
}

type unsyncableFile struct {
	replace.File
	err error
}

func (f unsyncableFile) SyncData() error { return f.err }

func TestReaderOfWhatCannotBeWritten(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	dir := killed(t, db)
	for _, err := range []error{syscall.EINVAL, syscall.EACCES, errors.ErrUnsupported} {
		r, err := OpenReader(dir, &ReaderOptions{FS: unsyncableFS{replace.OS, &fs.PathError{Op: "sync", Path: dir, Err: err}}})
		require.NoError(t, err)
		present(t, r, "k", "v")
		require.NoError(t, r.Refresh())
		require.NoError(t, r.Close())
	}
	for _, want := range []error{syscall.EIO, syscall.EROFS} { // the latter from one that has failed
		_, err := OpenReader(dir, &ReaderOptions{FS: unsyncableFS{replace.OS, want}})
		require.ErrorIs(t, err, want)
	}
}
