package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

// What a reader has shown does not disappear in a power cut that comes right behind it,
// wherever the writer was killed before: while it wrote, rotated, compacted, closed, or
// recovered what the one before it had left.
func TestPowerCutTakesNothingThatAReaderHasShown(t *testing.T) {
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			disk := faultfs.New()
			require.NoError(t, disk.Mkdir("/top", 0o700))
			looks := 0
			look := func(fs *faultfs.FS, op faultfs.Op) {
				if !op.Kind.Changes() {
					return
				}
				looks++
				shownStays(t, fs.Kill(), op)
			}
			for session := range 3 {
				disk.Hook(func(op faultfs.Op) { look(disk, op) })
				writeAndDie(t, disk, policy, session)
				disk.Hook(nil)
				disk = disk.Kill()
			}
			require.Greater(t, looks, 100)
		})
	}
}

// writeAndDie opens a store, which recovers it, and writes, rotates and compacts.
func writeAndDie(t *testing.T, disk *faultfs.FS, policy annals.SyncPolicy, session int) {
	t.Helper()
	opts := &annals.Options{FS: disk, Sync: policy, SegmentSize: 4 << 10, Compaction: annals.Compaction{Off: true}}
	db, err := annals.Open(storeDir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	for i := range 6 {
		require.NoError(t, db.Put(fmt.Sprint("key", session, i), make([]byte, 700)))
	}
	_, err = db.Compact(context.Background(), nil)
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, db.Put(fmt.Sprint("late", session, i), []byte("v")))
	}
	time.Sleep(20 * time.Millisecond) // until the buffer is in the file
}

// shownStays has a reader look at a store whose writer was killed, and then the power
// fail.
func shownStays(t *testing.T, fs *faultfs.FS, op faultfs.Op) {
	r, err := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: fs})
	if errors.Is(err, annals.ErrNotStore) {
		return
	}
	require.NoError(t, err, "killed before %v", op)
	shown := r.Stats().LastSeq
	require.NoError(t, r.Close())
	if shown == 0 {
		return
	}
	after := fs.Crash(func(int) bool { return false })
	again, err := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: after})
	require.NoError(t, err, "killed before %v", op)
	require.GreaterOrEqual(t, again.Stats().LastSeq, shown, "killed before %v, read, and the power failed", op)
	require.NoError(t, again.Close())
}

// A sync that fails says so once, and the next one, which has nothing to do, that all is
// well: a reader must not believe it.
func TestReaderBelievesNoSyncBehindAFailedOne(t *testing.T) {
	disk := faultfs.New()
	require.NoError(t, disk.Mkdir("/top", 0o700))
	db, err := annals.Open(storeDir, &annals.Options{FS: disk, Sync: annals.SyncNever})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	require.NoError(t, db.Put("key", []byte("durable")))
	_, err = db.Sync(context.Background())
	require.NoError(t, err)
	disk = disk.Kill()
	r, err := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: disk})
	require.NoError(t, err)
	defer r.Close()

	writeBehind(t, disk, `{"seq":2,"dur":1,"key":"key","txt":"in the cache"}`)
	disk.Inject(faultfs.FailAt(1, syscall.EIO, 0, false, faultfs.SyncData).Fault)
	for range 3 {
		require.ErrorIs(t, r.Refresh(), syscall.EIO)
		value, err := r.Get("key")
		require.NoError(t, err)
		require.Equal(t, "durable", string(value))
	}
	after := disk.Crash(func(int) bool { return false })
	again, err := annals.Open(storeDir, &annals.Options{FS: after})
	require.NoError(t, err)
	value, err := again.Get("key")
	require.NoError(t, err)
	require.Equal(t, "durable", string(value))
	require.NoError(t, again.Close())
	require.NoError(t, r.Close())

	db, err = annals.Open(storeDir, &annals.Options{FS: disk}) // copies it, and it is there
	require.NoError(t, err)
	defer db.Close()
	r, err = annals.OpenReader(storeDir, &annals.ReaderOptions{FS: disk})
	require.NoError(t, err)
	defer r.Close()
	value, err = r.Get("key")
	require.NoError(t, err)
	require.Equal(t, "in the cache", string(value))
}

// writeBehind writes a record behind the others of the first segment, and does not sync.
func writeBehind(t *testing.T, fs *faultfs.FS, record string) {
	t.Helper()
	name := path.Join(storeDir, "00000000000000000001.log")
	text, err := fs.ReadFile(name)
	require.NoError(t, err)
	file, err := fs.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	end := len(bytes.TrimRight(text, "\n")) + 1
	_, err = file.WriteAt(fmt.Appendf(nil, "%s %08x\n", record, crc32.ChecksumIEEE([]byte(record))), int64(end))
	require.NoError(t, err)
	require.NoError(t, file.Close())
}
