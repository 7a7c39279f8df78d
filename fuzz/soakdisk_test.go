package fuzz

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
)

// soakDisk is a file system that can fill up, fail and crash.
type soakDisk interface {
	replace.FS
	fill(full bool)
	breakSyncs()
	heal()
	// crash takes what a crash at this moment leaves of a directory, and returns a function
	// that makes a disk of it once the old one is no longer used.
	crash(t *testing.T, dir string) func() (soakDisk, string)
}

// soakFaults are switched on and off while a store runs.
type soakFaults struct{ full, broken atomic.Bool }

func (f *soakFaults) fill(full bool) { f.full.Store(full) }
func (f *soakFaults) breakSyncs()    { f.broken.Store(true) }
func (f *soakFaults) heal()          { f.full.Store(false); f.broken.Store(false) }

// memoryDisk is a disk in memory, for power cuts.
type memoryDisk struct {
	*faultfs.FS
	soakFaults
	rnd *rand.Rand
}

func newMemoryDisk(fsys *faultfs.FS, seed uint64) *memoryDisk {
	d := &memoryDisk{FS: fsys, rnd: rand.New(rand.NewPCG(seed, 0))}
	fsys.Failure = []faultfs.SyncFailure{faultfs.Ext4, faultfs.XFS, faultfs.Btrfs}[seed%3]
	fsys.Inject(func(op faultfs.Op) *faultfs.Fault {
		switch {
		case op.Kind == faultfs.Write && d.full.Load():
			return &faultfs.Fault{Err: syscall.ENOSPC, Bytes: op.Len / 2}
		case op.Kind == faultfs.SyncData && d.broken.Load():
			return &faultfs.Fault{Err: syscall.EIO}
		}
		return nil
	})
	return d
}

func (d *memoryDisk) crash(_ *testing.T, dir string) func() (soakDisk, string) {
	share := d.rnd.Float64()
	after := newMemoryDisk(d.FS.Crash(func(int) bool { return d.rnd.Float64() < share }), d.rnd.Uint64())
	return func() (soakDisk, string) { return after, dir }
}

// tapDisk is the real file system with a tap: while it is closed nothing changes, and what
// lies in a directory is what a process that is killed leaves.
type tapDisk struct {
	replace.FS
	soakFaults
	tap sync.RWMutex // held for reading by each change
}

func newTapDisk() *tapDisk { return &tapDisk{FS: replace.OS} }

// change makes one change of the file system.
func (d *tapDisk) change(fn func() error) error {
	d.tap.RLock()
	defer d.tap.RUnlock()
	return fn()
}

func (d *tapDisk) Rename(a, b string) error {
	return d.change(func() error { return d.FS.Rename(a, b) })
}
func (d *tapDisk) Link(a, b string) error { return d.change(func() error { return d.FS.Link(a, b) }) }
func (d *tapDisk) Remove(name string) error {
	return d.change(func() error { return d.FS.Remove(name) })
}

func (d *tapDisk) Mkdir(name string, perm fs.FileMode) error {
	return d.change(func() error { return d.FS.Mkdir(name, perm) })
}

func (d *tapDisk) OpenFile(name string, flag int, perm fs.FileMode) (f replace.File, err error) {
	err = d.change(func() error { f, err = d.FS.OpenFile(name, flag, perm); return err })
	if err != nil {
		return nil, err
	}
	return &tapFile{File: f, disk: d, name: name}, nil
}

// crash copies a directory as it is between two changes. The copy takes the place of the
// original once nobody uses that any more.
func (d *tapDisk) crash(t *testing.T, dir string) func() (soakDisk, string) {
	d.tap.Lock()
	defer d.tap.Unlock()
	copied := filepath.Join(filepath.Dir(dir), "copy")
	require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
	return func() (soakDisk, string) {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Rename(copied, dir))
		return newTapDisk(), dir
	}
}

// tapFile is a file of a tapDisk.
type tapFile struct {
	replace.File
	disk *tapDisk
	name string
}

func (f *tapFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.disk.change(func() error {
		if f.disk.full.Load() {
			n, err = f.File.WriteAt(p[:len(p)/2], off)
			if err == nil {
				err = &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
			}
			return err
		}
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

func (f *tapFile) Truncate(size int64) error {
	return f.disk.change(func() error { return f.File.Truncate(size) })
}

func (f *tapFile) SyncData() error {
	if f.disk.broken.Load() && strings.HasSuffix(f.name, ".log") {
		return &fs.PathError{Op: "fdatasync", Path: f.name, Err: syscall.EIO}
	}
	return f.File.SyncData()
}
