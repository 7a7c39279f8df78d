package fuzz

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/segment"
)

// faultWorkload is what a store does while operations fail.
type faultWorkload struct {
	name       string
	sync       annals.SyncPolicy
	start      func(*testing.T) *faultTemplate // what it begins with; nil: nothing
	background bool                            // compaction runs when it likes
	ragged     bool                            // goroutines meet in no fixed order, so that operation k differs
	noStore    bool                            // what it leaves is not for Open
	saves      bool                            // INDEX is written at Close, and by hand
	do         func(*faultRun)

	from *faultTemplate
	base struct { // the run without a fault
		trace []string
		kinds []faultfs.Kind
	}
	seen map[uint64]bool // crashes that were judged
}

// faultTemplate is a store on its file system, and what it holds.
type faultTemplate struct {
	fs      *faultfs.FS
	history faultHistory
}

// prepare makes what the workload begins with and runs it without a fault.
func (w *faultWorkload) prepare(t *testing.T, guard *faultGuard) {
	w.seen = map[uint64]bool{}
	if w.start != nil && w.from == nil {
		w.from = w.start(t)
	}
	r := runFaultCase(t, &faultCase{w: w, fault: &faultWays[0]}, guard)
	w.base.trace, w.base.kinds = r.trace, r.inject.kinds
	r.report(t)
	require.Empty(t, r.problems, "%s does not work even without a fault", w.name)
	require.NotEmpty(t, w.base.kinds, "%s does nothing that can fail", w.name)
}

const faultLazily = annals.SyncPolicy(10 * time.Millisecond)

var faultWorkloads = []faultWorkload{
	{name: "open-new", do: (*faultRun).open},
	{name: "open-clean", start: faultClean, do: (*faultRun).open},
	{name: "open-leftovers", start: faultLeftovers, do: (*faultRun).open},
	{name: "open-crashed", start: faultCrashed, do: (*faultRun).open},
	{name: "write-always", start: faultClean, do: (*faultRun).writes},
	{name: "write-every", sync: faultLazily, start: faultClean, do: (*faultRun).writes},
	{name: "write-never", sync: annals.SyncNever, start: faultClean, do: (*faultRun).writes},
	{name: "rotate-always", start: faultClean, do: (*faultRun).rotations},
	{name: "rotate-every", sync: faultLazily, start: faultClean, do: (*faultRun).rotations},
	{name: "rotate-never", sync: annals.SyncNever, start: faultClean, do: (*faultRun).rotations},
	{name: "submit", start: faultClean, do: (*faultRun).submits},
	{name: "idle-always", do: (*faultRun).idle},
	{name: "idle-every", sync: faultLazily, do: (*faultRun).idle},
	{name: "read", start: faultClean, do: (*faultRun).reads},
	{name: "read-never", sync: annals.SyncNever, start: faultClean, do: (*faultRun).reads},
	{name: "compact", start: faultClean, do: (*faultRun).compactions},
	{name: "compact-every", sync: faultLazily, start: faultClean, do: (*faultRun).compactions},
	{name: "background", start: faultClean, background: true, ragged: true, do: (*faultRun).backgroundCompactions},
	{name: "backup", start: faultClean, do: (*faultRun).backups},
	{name: "backup-copy", start: faultClean, do: (*faultRun).backupsToEmpty},
	{name: "backup-reader", start: faultCrashed, do: (*faultRun).readerBackups},
	{name: "verify", start: faultCrashed, do: (*faultRun).verifies},
	{name: "repair", start: faultCrashed, noStore: true, do: (*faultRun).repairs},
	{name: "repair-stale", start: faultStale, noStore: true, do: (*faultRun).repairs},
	{name: "repair-lost", start: faultNoManifest, noStore: true, do: (*faultRun).repairs},
	{name: "reader", start: faultCrashed, do: (*faultRun).readers},
	{name: "refresh", start: faultClean, do: (*faultRun).refreshes},
	{name: "close-always", start: faultClean, do: (*faultRun).closes},
	{name: "close-every", sync: faultLazily, start: faultClean, do: (*faultRun).closes},
	{name: "close-never", sync: annals.SyncNever, start: faultClean, do: (*faultRun).closes},
	{name: "close-empty", start: faultClean, do: (*faultRun).closeEmpty},
	{name: "index-open", start: faultIndexed, saves: true, do: (*faultRun).open},
	{name: "index-crashed", start: faultIndexedCrashed, saves: true, do: (*faultRun).open},
	{name: "index-refused", start: faultIndexRefused, saves: true, do: (*faultRun).open},
	{name: "index-reader", start: faultIndexedCrashed, do: (*faultRun).readers},
	{name: "index-saved", start: faultClean, saves: true, do: (*faultRun).checkpoints},
	{name: "index-saved-every", sync: faultLazily, start: faultIndexed, saves: true, do: (*faultRun).checkpoints},
	{name: "index-closed", start: faultIndexed, saves: true, do: (*faultRun).closes},
	{name: "index-closed-never", sync: annals.SyncNever, start: faultClean, saves: true, do: (*faultRun).closes},
}

// quietly does what is no part of the case: nothing counts, nothing fails.
func (r *faultRun) quietly(fn func()) {
	defer r.inject.turn(r.inject.turn(false))
	fn()
	synctest.Wait()
}

func (r *faultRun) value(size int) string {
	r.n++
	return fmt.Sprintf("%d%s", r.n, strings.Repeat("x", size))
}

func (r *faultRun) put(key, value string) error {
	return r.commit("Put "+key, func(s *faultState) { s.keys[key] = value }, func() (uint64, error) {
		var b annals.Batch
		b.Put(key, []byte(value))
		return r.db.Apply(&b)
	})
}

func (r *faultRun) putOnce(key, value string) {
	r.commit("Put "+key, func(s *faultState) { s.keys[key] = value }, func() (uint64, error) {
		var b annals.Batch
		b.Put(key, []byte(value), annals.IfAbsent(), annals.TTL(time.Hour))
		return r.db.Apply(&b)
	})
}

func (r *faultRun) delete(key string) {
	r.commit("Delete "+key, func(s *faultState) { delete(s.keys, key) }, func() (uint64, error) {
		var b annals.Batch
		b.Delete(key)
		return r.db.Apply(&b)
	})
}

func (r *faultRun) sample(value string) {
	r.commit("Append", func(s *faultState) { s.samples = append(s.samples, value) }, func() (uint64, error) {
		return r.db.Append("s", []byte(value))
	})
}

// batch writes two keys and a sample, or none of them.
func (r *faultRun) batch(size int) {
	v, b := r.batchOf(size)
	r.commit("Apply", v, func() (uint64, error) { return r.db.Apply(b) })
}

func (r *faultRun) batchOf(size int) (func(*faultState), *annals.Batch) {
	v, w := r.value(size), r.value(size)
	var b annals.Batch
	b.Put("k0", []byte(v))
	b.Put("k1", []byte(w))
	b.Append("s", []byte(v))
	return func(s *faultState) {
		s.keys["k0"], s.keys["k1"] = v, w
		s.samples = append(s.samples, v)
	}, &b
}

// errOwnFault marks an error of a transaction's function: the store passes it on.
var errOwnFault = errors.New("the function's own")

func (r *faultRun) update() {
	v := r.value(0)
	r.commit("Update", func(s *faultState) {
		s.keys["k2"] = v
		s.samples = append(s.samples, v)
	}, func() (seq uint64, err error) {
		err = r.db.Update(func(tx *annals.Tx) error {
			if _, err := tx.Get("k0"); err != nil {
				return fmt.Errorf("%w: %w", errOwnFault, err)
			}
			if err := tx.Put("k2", []byte(v)); err != nil {
				return err
			}
			seq, err = tx.Append("s", []byte(v))
			return err
		})
		return seq, err
	})
}

func (r *faultRun) sync() {
	if r.db == nil {
		return
	}
	visible := r.visible
	err := r.call("Sync", func() (string, error) {
		seq, err := r.db.Sync(context.Background())
		return fmt.Sprint("number ", seq), err
	})
	if err == nil {
		r.history.acked = max(r.history.acked, visible)
	}
}

// writes are all ways to write, in one segment.
func (r *faultRun) writes() {
	r.quietly(r.open)
	r.put("k0", r.value(0))
	r.putOnce("once", r.value(0))
	r.delete("k1")
	r.sample(r.value(0))
	r.sync()
	r.batch(300)
	r.update()
	r.sleep(50 * time.Millisecond)
	r.put("k0", r.value(0))
	r.sync()
}

// rotations fill segments.
func (r *faultRun) rotations() {
	r.quietly(func() {
		r.open()
		r.put("k0", r.value(0))
	})
	r.put("full", r.value(3900))
	r.put("k0", r.value(0))
	r.batch(1500)
	r.sleep(50 * time.Millisecond)
	r.batch(700)
	r.put("k0", r.value(0))
	r.sync()
	r.put("k1", r.value(0))
}

// submits has commits in flight behind each other: the first waits for the disk
// until the others have queued.
func (r *faultRun) submits() {
	r.quietly(r.open)
	gate := make(chan struct{})
	r.gate.Store(&gate)
	var states []*faultState
	var commits []*annals.Commit
	for range 4 {
		change, b := r.batchOf(400)
		states = append(states, r.submitted(change))
		commits = append(commits, r.db.Submit(b))
		synctest.Wait()
	}
	for i, c := range commits {
		var seq uint64
		name := fmt.Sprint("Wait ", i)
		err := r.write(name, func() (_ string, err error) {
			if i == 0 {
				r.gate.Store(nil)
				close(gate)
			}
			seq, err = c.Wait(context.Background())
			return fmt.Sprint("number ", seq), err
		})
		r.settle(name, states[i], seq, err)
	}
}

// idle leaves the log at rest until it writes its mark.
func (r *faultRun) idle() {
	r.quietly(func() {
		r.open()
		r.put("k0", r.value(0))
	})
	r.sleep(3 * time.Second)
	r.put("k1", r.value(0))
	r.sleep(3 * time.Second)
	r.put("k2", r.value(0))
	r.sync()
}

// reads are all ways to read.
func (r *faultRun) reads() {
	r.quietly(func() {
		r.open()
		r.put("k0", r.value(0))
		r.batch(200)
		r.sync()
		r.put("k3", r.value(0))
	})
	r.readAll(r.db)
	_ = r.call("View", func() (got string, err error) {
		return got, r.db.View(func(s *annals.Snapshot) error {
			v, err := s.Get("k1")
			got = string(v)
			return err
		})
	})
	_ = r.call("Update", func() (got string, err error) {
		return got, r.db.Update(func(tx *annals.Tx) error {
			v, err := tx.Get("k0")
			for e, err := range tx.Scan(annals.Prefix("k")) {
				if err != nil {
					return err
				}
				got += string(e.Value)
			}
			for s, err := range tx.Samples("s", annals.Window{}) {
				if err != nil {
					return err
				}
				got += string(s.Value)
			}
			got += string(v)
			return err
		})
	})
	_ = r.call("Stats", func() (string, error) {
		st := r.db.Stats()
		return fmt.Sprint(st.Keys, st.Samples, len(st.Damage)), nil
	})
}

// everything is what Store and Reader have for reading.
type faultReads interface {
	annals.Getter
	faultView
	Lookup(key string) (annals.Entry, error)
}

func (r *faultRun) readAll(db faultReads) {
	_ = r.call("Get", func() (string, error) {
		v, err := db.Get("k0")
		return string(v), err
	})
	_ = r.call("Lookup", func() (string, error) {
		e, err := db.Lookup("old")
		return string(e.Value), err
	})
	_ = r.call("Scan, Samples", func() (string, error) { return dumpFault(db) })
	_ = r.call("Watch", func() (got string, err error) {
		if s, ok := db.(*annals.Store); ok {
			return watchFault(s, s.Durable())
		}
		return watchFault(r.reader, r.reader.Stats().LastSeq)
	})
}

func watchFault(db interface {
	Watch(ctx context.Context, from uint64) iter.Seq2[annals.Record, error]
}, last uint64) (got string, err error) {
	for rec, err := range db.Watch(context.Background(), 0) {
		if err != nil {
			return "", err
		}
		got += fmt.Sprint(rec.Seq, " ", rec.Key, "=", string(rec.Value), " ")
		if rec.Seq >= last {
			break
		}
	}
	return got, nil
}

// compactions rewrite all segments.
func (r *faultRun) compactions() {
	r.quietly(func() {
		r.open()
		r.put("k0", r.value(0))
		r.delete("k1")
		r.batch(1000)
	})
	for range 2 {
		_ = r.write("Compact", func() (string, error) {
			stats, err := r.db.Compact(context.Background(), nil)
			return fmt.Sprintf("%+v", stats), err
		})
		r.lookAt(r.db, "after Compact")
	}
	r.put("k2", r.value(0))
}

// checkpoints save the index, before and after the log has changed.
func (r *faultRun) checkpoints() {
	r.quietly(func() {
		r.open()
		r.put("k0", r.value(0))
		r.delete("k1")
		r.batch(1000)
	})
	for range 2 {
		_ = r.write("Checkpoint", func() (string, error) { return "", r.db.Checkpoint(context.Background()) })
		r.lookAt(r.db, "after Checkpoint")
		r.put("k2", r.value(0))
	}
}

// backgroundCompactions write until compaction finds something worth its while.
func (r *faultRun) backgroundCompactions() {
	r.quietly(r.open)
	for range 4 {
		r.put("k0", r.value(2500))
	}
	r.sleep(time.Second)
	r.put("k1", r.value(0))
	_ = r.call("Stats", func() (string, error) {
		if e := r.db.Stats().Compaction.LastError; e != "" {
			return "", fmt.Errorf("%s: %w", e, r.c.fault.err)
		}
		return "", nil
	})
}

// backups copy a store to a directory that is missing, or to one that somebody
// has made without a sync. One that failed is tried again.
func (r *faultRun) backups() { r.backup(faultCopy + "/deeper/still") }

func (r *faultRun) backupsToEmpty() {
	r.quietly(func() {
		if err := r.fs.Mkdir(faultCopy, 0o700); err != nil {
			r.problem("Mkdir: %v", err)
		}
	})
	r.inject.links, r.theirs = false, true
	r.backup(faultCopy)
}

func (r *faultRun) backup(dir string) {
	r.quietly(func() {
		r.open()
		r.put("full", r.value(3900))
		r.batch(100)
		r.put("k0", r.value(0))
	})
	if r.copyTo("copy", dir, r.db.Backup) == nil {
		return
	}
	r.quietly(func() {
		again := len(r.copies) - 1
		err := r.db.Backup(context.Background(), dir)
		r.copies[again].whole = err == nil && !r.nameless()
		if err != nil && !errors.Is(err, annals.ErrFailed) && !strings.Contains(err.Error(), "is not empty") {
			r.problem("Backup again, without a fault: %v", err)
		}
	})
}

func (r *faultRun) readerBackups() {
	r.quietly(func() { r.openReader() })
	r.copyTo("copy", faultCopy, r.reader.Backup)
}

func (r *faultRun) openReader() {
	_ = r.call("OpenReader", func() (string, error) {
		db, err := annals.OpenReader(faultStore, &annals.ReaderOptions{FS: r.fs})
		if err != nil {
			if n := r.fs.OpenFiles(); r.db == nil && n > 0 {
				r.problem("OpenReader failed and left %d files open", n)
			}
			return "", err
		}
		r.reader = db
		return "", nil
	})
}

func (r *faultRun) readers() {
	r.openReader()
	if r.reader == nil {
		return
	}
	r.readAll(r.reader)
	_ = r.call("Refresh", func() (string, error) { return "", r.reader.Refresh() })
}

func (r *faultRun) refreshes() {
	r.quietly(func() {
		r.open()
		r.put("k0", r.value(0))
		r.openReader()
		r.put("k1", r.value(0))
	})
	for range 2 {
		err := r.call("Refresh", func() (string, error) { return "", r.reader.Refresh() })
		if err == nil {
			r.lookAt(r.reader, "after Refresh")
		}
		r.quietly(func() { r.put("full", r.value(3900)) })
	}
}

func (r *faultRun) verifies() {
	for range 2 {
		_ = r.call("Verify", func() (string, error) {
			report, err := annals.VerifyFS(context.Background(), r.fs, faultStore, nil)
			if len(report.Problems) > 0 {
				r.problem("an operation that failed was taken for damage: %v", report.Problems)
			}
			return fmt.Sprintf("%d %d %v %v", report.Records, report.LastSeq, report.Tail != nil, report.Leftover), err
		})
	}
}

// repairs make a new store of one that is only read.
func (r *faultRun) repairs() {
	var before map[string]string
	r.quietly(func() { before = r.source() })
	r.copyTo("Repair", faultCopy, func(ctx context.Context, dir string) error {
		report, err := annals.RepairFS(ctx, r.fs, faultStore, dir, nil)
		for _, e := range slices.Concat(report.Lost, report.Damage) {
			if err == nil && strings.Contains(e.Reason, "can't be read") {
				err = fmt.Errorf("%w: %w: %s", errReportedLoss, r.c.fault.err, e.Reason)
			}
		}
		return err
	})
	r.quietly(func() {
		if !maps.Equal(before, r.source()) {
			r.problem("Repair has changed its source")
		}
	})
}

func (r *faultRun) source() map[string]string {
	all, err := faultFilesIn(r.fs, faultStore)
	if err != nil {
		r.problem("reading the source: %v", err)
	}
	return all
}

// closes end a store with something in its log.
func (r *faultRun) closes() {
	r.quietly(func() {
		r.open()
		r.put("k0", r.value(0))
		r.batch(2000)
	})
	r.put("k1", r.value(0))
	r.closeUnderFault()
}

// closeEmpty ends a store whose open segment holds nothing.
func (r *faultRun) closeEmpty() {
	r.quietly(func() {
		r.open()
		r.put("k0", r.value(0))
		_, err := r.db.Compact(context.Background(), nil)
		if err != nil {
			r.problem("Compact without a fault: %v", err)
		}
	})
	r.closeUnderFault()
}

func (r *faultRun) closeUnderFault() {
	visible := r.visible
	err := r.call("Close", func() (string, error) { return "", r.db.Close() })
	r.db = nil
	if err == nil {
		r.history.acked = visible
	}
	if n := r.fs.OpenFiles(); n > 0 {
		r.problem("Close left %d files open", n)
	}
}

// faultClean is a store of two segments that was closed.
func faultClean(t *testing.T) *faultTemplate { return buildFault(t, true, nil) }

// faultCrashed is one whose process was killed in the middle of a write, while a
// compaction, a recovery and a replacement of MANIFEST were under way before.
func faultCrashed(t *testing.T) *faultTemplate {
	return buildFault(t, false, func(t *testing.T, fsys *faultfs.FS, m *segment.Manifest) {
		addFaultLeftovers(t, fsys, m)
		path := filepath.Join(faultStore, segment.Name(m.Open))
		file, err := fsys.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		text := make([]byte, 64<<10)
		n, _ := file.ReadAt(text, 0)
		end := len(strings.TrimRight(string(text[:n]), "\n")) + 1
		torn := segment.AppendLine(nil, 1000, 0, true, segment.AppendBody(nil, &segment.Record{Kind: segment.Put, Name: "torn", Value: []byte("1")}))
		_, err = file.WriteAt(torn[:len(torn)-5], int64(end))
		require.NoError(t, err)
		require.NoError(t, file.Close())
	})
}

func faultLeftovers(t *testing.T) *faultTemplate { return buildFault(t, true, addFaultLeftovers) }

// addFaultLeftovers leaves what interrupted jobs leave.
func addFaultLeftovers(t *testing.T, fsys *faultfs.FS, m *segment.Manifest) {
	from := m.Open
	if from == 0 {
		from = m.Sealed[0].Segment
	}
	h := segment.Header{Store: m.Store, Segment: m.Next + 3, First: m.Seq, From: []uint64{from}}
	writeFaultFile(t, fsys, segment.Name(h.Segment), h.AppendLine(nil))
	h = segment.Header{Store: m.Store, Segment: m.Next + 4, From: []uint64{m.Sealed[0].Segment}, Order: segment.ByKey}
	writeFaultFile(t, fsys, segment.Name(h.Segment), h.AppendLine(nil))
	writeFaultFile(t, fsys, ".MANIFEST.0123456789abcdef.tmp", []byte("{"))
}

func writeFaultFile(t *testing.T, fsys *faultfs.FS, name string, text []byte) {
	file, err := fsys.OpenFile(filepath.Join(faultStore, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err)
	_, err = file.WriteAt(text, 0)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

// faultStale has a MANIFEST that is older than its log: only repair takes it.
func faultStale(t *testing.T) *faultTemplate {
	var old []byte
	clean := faultClean(t)
	all, err := faultFilesIn(clean.fs, faultStore)
	require.NoError(t, err)
	old = []byte(all["MANIFEST"])
	tmpl := buildFaultOn(t, clean, false, nil)
	require.NoError(t, tmpl.fs.Remove(faultStore+"/MANIFEST"))
	writeFaultFile(t, tmpl.fs, "MANIFEST", old)
	return tmpl
}

func faultNoManifest(t *testing.T) *faultTemplate {
	tmpl := buildFault(t, true, nil)
	require.NoError(t, tmpl.fs.Remove(faultStore+"/MANIFEST"))
	return tmpl
}

// faultIndexed is faultClean with an INDEX.
func faultIndexed(t *testing.T) *faultTemplate {
	tmpl := faultClean(t)
	synctest.Test(t, func(t *testing.T) {
		db, err := annals.Open(faultStore, &annals.Options{FS: tmpl.fs, Checkpoint: 1 << 30, Compaction: annals.Compaction{Off: true}})
		require.NoError(t, err)
		require.NoError(t, db.Close())
	})
	all, err := faultFilesIn(tmpl.fs, faultStore)
	require.NoError(t, err)
	require.Contains(t, all, "INDEX")
	return tmpl
}

func faultIndexedCrashed(t *testing.T) *faultTemplate {
	return buildFaultOn(t, faultIndexed(t), false, nil)
}

// faultIndexRefused has an INDEX that is none.
func faultIndexRefused(t *testing.T) *faultTemplate {
	tmpl := faultClean(t)
	writeFaultFile(t, tmpl.fs, "INDEX", []byte("INDEX\n"))
	return tmpl
}

func buildFault(t *testing.T, closed bool, more func(*testing.T, *faultfs.FS, *segment.Manifest)) *faultTemplate {
	return buildFaultOn(t, nil, closed, more)
}

// buildFaultOn writes to a store, new or not, and closes it or leaves it as a process
// that was killed does.
func buildFaultOn(t *testing.T, from *faultTemplate, closed bool, more func(*testing.T, *faultfs.FS, *segment.Manifest)) (tmpl *faultTemplate) {
	synctest.Test(t, func(t *testing.T) {
		r := newFaultRun(&faultCase{w: &faultWorkload{name: "start", from: from}, fault: &faultWays[0]})
		r.fs, r.history = faultfs.New(), faultHistory{states: []*faultState{{}}}
		if from != nil {
			r.fs, r.history, r.n = from.fs.Clone(), from.history.clone(), 100
		}
		r.open()
		for _, k := range []string{"old", "k0", "k1", "k2"} {
			r.put(k, r.value(0))
		}
		r.sample(r.value(0))
		r.batch(1000)
		r.batch(1000)
		r.delete("k2")
		r.put("k3", r.value(0))
		crashed := r.fs.Clone()
		require.NoError(t, r.db.Close())
		require.Empty(t, r.problems)
		last := r.history.states[len(r.history.states)-1]
		tmpl = &faultTemplate{fs: r.fs.Clone(), history: faultHistory{states: []*faultState{last}}}
		if !closed {
			tmpl.fs = crashed
		}
		if more == nil {
			return
		}
		all, err := faultFilesIn(tmpl.fs, faultStore)
		require.NoError(t, err)
		m, err := segment.ParseManifest("MANIFEST", []byte(all["MANIFEST"]))
		require.NoError(t, err)
		more(t, tmpl.fs, &m)
	})
	return tmpl
}
