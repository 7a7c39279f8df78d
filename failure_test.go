package annals

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/stretchr/testify/require"
)

func TestFailedSyncEndsWritingAndReadsGoOn(t *testing.T) {
	hooks := newHookFS()
	dir := t.TempDir() + "/store"
	db := openDamaged(t, dir, &Options{FS: hooks})
	put(t, db, "k", "1")
	set(&hooks.onSync, func(string) error { return syscall.EIO })
	err := db.Put("lost", []byte("2"))
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorIs(t, err, syscall.EIO)
	var failed *FailedError
	require.ErrorAs(t, err, &failed)
	require.True(t, failed.Unknown, "the outcome of this very write is unknown")
	absent(t, db, "lost")
	set(&hooks.onSync, nil) // the kernel reports such a loss only once
	err = db.Put("later", []byte("3"))
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorAs(t, err, &failed)
	require.False(t, failed.Unknown, "this one was certainly not made")
	present(t, db, "k", "1")
	require.Equal(t, []string{"k=1"}, scan(t, db, Range{}))
	require.NotEmpty(t, db.Stats().Failed)
	_, err = db.Compact(t.Context(), nil)
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorIs(t, db.Close(), ErrFailed)
	db = openAt(t, dir, nil)
	require.False(t, db.Recovery().Clean, "a store with a failed sync is never closed clean")
	present(t, db, "k", "1")
	put(t, db, "later", "3")
}

func TestFullDiskFailsTheWriteAndLosesNothing(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(5 * time.Millisecond), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			hooks := newHookFS()
			opts := &Options{FS: hooks, Sync: policy, SegmentSize: minSegment}
			db := open(t, opts)
			want := model{}
			write := func(i int) error {
				key := fmt.Sprintf("k%03d", i)
				err := db.Put(key, fmt.Append(nil, i))
				if err == nil {
					want[key] = fmt.Sprint(i)
				}
				return err
			}
			for i := range 100 {
				require.NoError(t, write(i))
			}
			var full atomic.Bool
			noRoom := func(string) error {
				if full.Load() {
					return syscall.ENOSPC
				}
				return nil
			}
			set(&hooks.onWrite, noRoom)
			set(&hooks.onOpen, noRoom)
			for round := range 5 {
				full.Store(true)
				i := 100 + round*100
				eventually(t, "a write fails", func() bool {
					i++
					err := write(i)
					if err != nil {
						require.ErrorIs(t, err, syscall.ENOSPC)
						require.NotErrorIs(t, err, ErrFailed)
					}
					return err != nil
				})
				full.Store(false) // what follows reads segments, which the hook would refuse
				full.Store(true)
				for key, value := range want {
					present(t, db, key, value)
				}
				full.Store(false)
				eventually(t, "writes go on once there is room", func() bool {
					i++
					return write(i) == nil
				})
				want.holds(t, db)
			}
			_, err := db.Sync(t.Context())
			require.NoError(t, err)
			want.holds(t, db)
			copied := openAt(t, killed(t, db), nil)
			want.holds(t, copied)
			db = reopen(t, db, nil)
			require.True(t, db.Recovery().Clean)
			want.holds(t, db)
		})
	}
}

func TestWritesBehindAFailedOneFailToo(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks})
	put(t, db, "k", "0")
	waiting, release := hooks.holdSyncs(t)
	var b Batch
	b.Put("a", []byte("1"))
	first := db.Submit(&b)
	<-waiting
	var writes atomic.Int64
	set(&hooks.onWrite, func(string) error {
		if writes.Add(1) <= 2 { // with padding and without
			return syscall.ENOSPC
		}
		return nil
	})
	b.Reset()
	b.Put("b", []byte("2"))
	second := db.Submit(&b)
	b.Reset()
	b.Put("c", make([]byte, 9<<20)) // in a batch of its own
	third := db.Submit(&b)
	update := make(chan error)
	ran := make(chan struct{})
	go func() {
		update <- db.Update(func(tx *Tx) error {
			defer close(ran)
			present(t, tx, "b", "2")
			return tx.Put("d", []byte("4"))
		})
	}()
	<-ran
	eventually(t, "it is queued", func() bool { next, _, _ := db.log.Next(); return next == 6 })
	release()
	_, err := first.Wait(t.Context())
	require.NoError(t, err)
	_, err = second.Wait(t.Context())
	require.ErrorIs(t, err, syscall.ENOSPC)
	_, err = third.Wait(t.Context())
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, <-update, syscall.ENOSPC, "it was decided by what was never written")
	require.Equal(t, []string{"a=1", "k=0"}, scan(t, db, Range{}))
	put(t, db, "e", "5")
	e, err := db.Lookup("e")
	require.NoError(t, err)
	require.EqualValues(t, 3, e.Seq, "the numbers are given back")
}

func TestCloseThatCannotWriteTheBufferSaysWhatIsLost(t *testing.T) {
	hooks := newHookFS()
	dir := t.TempDir() + "/store"
	db := openDamaged(t, dir, &Options{FS: hooks, Sync: SyncEvery(time.Hour)})
	put(t, db, "saved", "1")
	_, err := db.Sync(t.Context())
	require.NoError(t, err)
	set(&hooks.onWrite, func(string) error { return syscall.ENOSPC })
	put(t, db, "lost", "2")
	present(t, db, "lost", "2")
	err = db.Close()
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "records 2 to 2")
	db = openAt(t, dir, nil)
	require.Equal(t, []string{"saved=1"}, scan(t, db, Range{}))
}

func TestSegmentThatSomebodyElseChangedEndsWriting(t *testing.T) {
	dir := t.TempDir() + "/store"
	db := openDamaged(t, dir, nil)
	put(t, db, "k", "1")
	edit(t, segmentsIn(t, dir)[0], func(text []byte) []byte { return append(text, "vim was here\n"...) })
	err := db.Put("k", []byte("2"))
	require.ErrorIs(t, err, ErrFailed)
	var failed *FailedError
	require.True(t, errors.As(err, &failed))
	present(t, db, "k", "1")
}

// A read finds another line than the index meant, or none: that is damage, never
// another key's value.
func TestReadNoticesAnotherRecordInItsPlace(t *testing.T) {
	db := openDamaged(t, t.TempDir()+"/store", nil)
	for _, key := range []string{"first", "a", "b"} {
		put(t, db, key, "1")
	}
	path := segmentsIn(t, db.dir)[0]
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	a, b := indexOf(t, text, `{"seq":2`), indexOf(t, text, `{"seq":3`)
	rest := bytes.TrimRight(text[b:], "\n")
	require.Len(t, rest, b-a-1, "the two lines are of one length")
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer file.Close()
	_, err = file.WriteAt(text[b:b+len(rest)], int64(a))
	require.NoError(t, err)
	var damage *CorruptError
	_, err = db.Get("a")
	require.ErrorAs(t, err, &damage)
	require.Equal(t, CorruptError{Path: path, Offset: int64(a), FirstSeq: 2, LastSeq: 2, Reason: damage.Reason}, *damage)
	for e, err := range db.Scan(Range{}) {
		if e.Key != "a" {
			require.NoError(t, err)
			require.Equal(t, "1", string(e.Value))
			continue
		}
		var scanned *CorruptError
		require.ErrorAs(t, err, &scanned)
		require.Equal(t, damage, scanned)
		require.Nil(t, e.Value)
	}
	present(t, db, "b", "1")
	present(t, db, "first", "1")

	require.NoError(t, file.Truncate(int64(b)))
	_, err = db.Get("b")
	require.ErrorAs(t, err, &damage)
	require.EqualValues(t, 3, damage.FirstSeq)
	present(t, db, "first", "1")
	require.Len(t, db.Stats().Damage, 2)
}

// After a failed sync the kernel shows bytes that are not on the disk, and another
// sync of them does nothing. What the next Open shows must have been written anew.
func TestWhatOnlyTheCacheHoldsIsCopied(t *testing.T) {
	for name, kind := range map[string]faultfs.SyncFailure{"ext4": faultfs.Ext4, "xfs": faultfs.XFS} {
		t.Run(name, func(t *testing.T) {
			fs := faultfs.New()
			fs.Failure = kind
			opts := &Options{FS: fs}
			db, err := Open("/store", opts)
			require.NoError(t, err)
			put(t, db, "a", "1")
			fs.Inject(func(op faultfs.Op) *faultfs.Fault {
				if op.Kind == faultfs.SyncData {
					return &faultfs.Fault{Err: syscall.EIO}
				}
				return nil
			})
			require.ErrorIs(t, db.Put("b", []byte("2")), ErrFailed)
			fs.Inject(nil)
			require.ErrorIs(t, db.Close(), ErrFailed)

			db, err = Open("/store", opts)
			require.NoError(t, err)
			shown := scan(t, db, Range{})
			require.Equal(t, []string{"a=1", "b=2"}, shown, "the cache shows it")
			for _, all := range []bool{false, true} {
				crashed, err := Open("/store", &Options{FS: fs.Crash(func(int) bool { return all })})
				require.NoError(t, err)
				require.Equal(t, shown, scan(t, crashed, Range{}))
				require.NoError(t, crashed.Close())
			}
			require.NoError(t, db.Close())
		})
	}
}

// LOCK was replaced and nobody else has written yet, so there is no other file to
// stumble over: only the lock itself tells.
func TestReplacedLockEndsWritingBeforeAnybodyElseWrites(t *testing.T) {
	db := openDamaged(t, t.TempDir()+"/store", &Options{Compaction: Compaction{Off: true}})
	put(t, db, "k", "v")
	path := db.dir + "/" + lockName
	require.NoError(t, os.Remove(path))
	_, err := db.Compact(t.Context(), nil)
	require.ErrorIs(t, err, ErrFailed, "LOCK is gone")

	db = openDamaged(t, t.TempDir()+"/store", &Options{Compaction: Compaction{Off: true}})
	put(t, db, "k", "v")
	path = db.dir + "/" + lockName
	require.NoError(t, os.Rename(path, path+".old"))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	before := tree(t, db.dir)[manifestName]
	_, err = db.Compact(t.Context(), nil)
	require.ErrorIs(t, err, ErrFailed, "LOCK is another file")
	require.ErrorIs(t, db.Put("k", []byte("w")), ErrFailed)
	require.ErrorIs(t, db.Close(), ErrFailed)
	require.Equal(t, before, tree(t, db.dir)[manifestName], "MANIFEST is left alone")
}
