package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

// hurtStore is a store with keys, samples and damage, so that Repair does all that
// it can do.
func hurtStore(t *testing.T) (*faultfs.FS, *original) {
	t.Helper()
	b := newBusy(t, rand.New(rand.NewPCG(1, 1)))
	for range 6 {
		var batch annals.Batch
		batch.Put("k2", b.value(0))
		b.commit(&batch, 2200)
		_, err := b.db.Apply(&batch)
		require.NoError(t, err)
	}
	require.NoError(t, b.db.Close())
	o := newOriginal(t, b.fs, b.now)
	for name := range o.live {
		text := strings.Replace(o.files[name], `"val":`, `"vax":`, 1)
		setText(t, b.fs, path.Join(brokenStore, name), text)
	}
	return b.fs, o
}

// inTop says what is in the directory above the stores.
func inTop(t *testing.T, fs *faultfs.FS) (names []string) {
	entries, err := fs.ReadDir("/top")
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Whatever operation fails, and whenever its context ends, Repair leaves nothing
// but what was there; and it says so.
func TestRepairThatFailsLeavesNothing(t *testing.T) {
	fs, _ := hurtStore(t)
	for what, stop := range map[string]func(fs *faultfs.FS, cancel func(), n int) (want error){
		"cancelled": func(fs *faultfs.FS, cancel func(), n int) error {
			ops := 0
			fs.Hook(func(faultfs.Op) {
				if ops++; ops == n {
					cancel()
				}
			})
			return context.Canceled
		},
		"failed": func(fs *faultfs.FS, _ func(), n int) error {
			first := fs.Ops()
			fs.Inject(func(op faultfs.Op) *faultfs.Fault {
				if op.N == first+n && op.Kind.Changes() {
					return &faultfs.Fault{Err: syscall.ENOSPC}
				}
				return nil
			})
			return syscall.ENOSPC
		},
	} {
		for _, there := range []bool{false, true} {
			stopped := 0
			for n := 1; ; n++ {
				again := fs.Clone()
				if there {
					require.NoError(t, again.Mkdir(repairedStore, 0o755))
				}
				before := again.Digest("")
				ctx, cancel := context.WithCancel(t.Context())
				first := again.Ops()
				want := stop(again, cancel, n)
				_, err := annals.RepairFS(ctx, again, brokenStore, repairedStore, nil)
				ops := again.Ops() - first
				again.Hook(nil)
				again.Inject(nil)
				cancel()
				require.Zero(t, again.OpenFiles(), "%s at operation %d", what, n)
				if err != nil {
					stopped++
					require.ErrorIs(t, err, want, "%s at operation %d", what, n)
					require.Equal(t, before, again.Digest(""), "%s at operation %d: %v: %v", what, n, err, inTop(t, again))
				} else {
					report, err := annals.VerifyFS(t.Context(), again, repairedStore, nil)
					require.NoError(t, err)
					require.Empty(t, report.Problems)
				}
				if n > ops {
					break
				}
			}
			require.Greater(t, stopped, 20, what)
			t.Logf("%s %d times", what, stopped)
		}
	}
}

// A process that dies, or a machine, leaves a store or none, never half of one, and
// the source as it was.
func TestRepairThatIsKilledLeavesNoHalfStore(t *testing.T) {
	fs, o := hurtStore(t)
	source := o.files
	for name := range source {
		source[name] = textOf(t, fs, path.Join(brokenStore, name))
	}
	again := fs.Clone()
	var after []*faultfs.FS
	rnd := rand.New(rand.NewPCG(2, 2))
	again.Hook(func(op faultfs.Op) {
		if !op.Kind.Changes() {
			return
		}
		after = append(after, again.Crash(func(int) bool { return false }), again.Crash(func(int) bool { return true }))
		for range 8 {
			after = append(after, again.Crash(func(int) bool { return rnd.IntN(2) == 0 }))
		}
	})
	report, err := annals.RepairFS(t.Context(), again, brokenStore, repairedStore, nil)
	require.NoError(t, err)
	again.Hook(nil)
	stores, halves := 0, 0
	for i, fs := range append(after, again.Crash(func(int) bool { return false })) {
		where := fmt.Sprintf("crash %d of %d", i, len(after))
		now := filesOf(t, fs, brokenStore)
		delete(now, "LOCK")
		require.Equal(t, source, now, where)
		if _, err := fs.Lstat(repairedStore); err != nil {
			continue
		}
		found, err := annals.VerifyFS(t.Context(), fs, repairedStore, nil)
		if err == nil {
			stores++
			require.Empty(t, found.Problems, where)
			require.Equal(t, report.Records, found.Records, where)
			continue
		}
		require.ErrorIs(t, err, annals.ErrNotStore, where)
		entries, err := fs.ReadDir(repairedStore)
		require.NoError(t, err)
		if len(entries) == 0 {
			continue
		}
		halves++
		_, err = annals.Open(repairedStore, &annals.Options{FS: fs})
		require.ErrorIs(t, err, annals.ErrNotStore, where)
		_, err = annals.RepairFS(t.Context(), fs, repairedStore, "/top/third", nil)
		require.ErrorIs(t, err, annals.ErrNotStore, where)
	}
	require.NotZero(t, halves)
	require.NotZero(t, stores)
	t.Logf("%d crashes: %d stores, %d halves of one", len(after), stores, halves)
}

// Sectors that can't be read cost the records in them, and no others.
func TestRepairReadsAroundBadSectors(t *testing.T) {
	fs, o := hurtStore(t)
	clean, err := annals.RepairFS(t.Context(), fs.Clone(), brokenStore, repairedStore, nil)
	require.NoError(t, err)
	for name := range o.live {
		again := fs.Clone()
		bad := path.Join(brokenStore, name)
		hit := false
		again.Inject(func(op faultfs.Op) *faultfs.Fault {
			if op.Kind == faultfs.Read && op.Path == bad && op.Off < 4096 && op.Off+int64(op.Len) > 0 {
				hit = true
				return &faultfs.Fault{Err: syscall.EIO}
			}
			return nil
		})
		report, err := annals.RepairFS(t.Context(), again, brokenStore, repairedStore, nil)
		require.NoError(t, err, name)
		require.True(t, hit)
		again.Inject(nil)
		require.Less(t, report.Records, clean.Records)
		said := false
		for _, e := range report.Lost {
			said = said || e.Path == bad && strings.Contains(e.Reason, syscall.EIO.Error())
		}
		require.True(t, said, "%+v", report)
		saved := 0
		for file, text := range filesOf(t, again, repairedStore) {
			if strings.HasSuffix(file, ".log") {
				saved += len(recordLines(t, text))
			}
		}
		require.EqualValues(t, report.Records, saved)
		want := 0 // of the lines that do not touch the sector
		for other := range o.live {
			text := textOf(t, fs, path.Join(brokenStore, other))
			for _, l := range recordLines(t, text) {
				if other != name || strings.Index(text, l.text) >= 4096 {
					want++
				}
			}
		}
		require.Equal(t, want, saved, name)
	}
	all := fs.Clone()
	all.Inject(func(op faultfs.Op) *faultfs.Fault {
		if op.Kind == faultfs.Read {
			return &faultfs.Fault{Err: syscall.EIO}
		}
		return nil
	})
	_, err = annals.RepairFS(t.Context(), all, brokenStore, repairedStore, nil)
	require.Error(t, err)
	require.True(t, errors.Is(err, annals.ErrNotStore) || errors.Is(err, syscall.EIO), "%v", err)
	require.NotContains(t, inTop(t, all), "repaired")
}
