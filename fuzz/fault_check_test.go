package fuzz

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// errFaultNoLinks is what a file system without hard links says.
const errFaultNoLinks = syscall.EXDEV

// faultPardon is a fault that a call may meet and return nil nevertheless, because the
// outcome is as it would have been.
type faultPardon struct {
	calls string // start of their names, one after the other; "": all
	kind  func(faultfs.Kind) bool
	file  string // of the operation: LOCK, MANIFEST, temp, log, tail, dir; "": any
	lazy  bool   // only under SyncEvery and SyncNever
	why   string
}

var faultPardons = []faultPardon{
	{"", faultKinds(faultfs.Write), "LOCK", false, "what readers may see is advice"},
	{"", faultKinds(faultfs.Write), "log", false, "padding that finds no room is left out"},
	{"Put Delete Apply Append Update time.Sleep", faultNotSync, "", true, "what is buffered is written again"},
	{"Compact Put time.Sleep", faultKinds(faultfs.Remove), "log", false, "the next Open removes what compaction has left"},
	{"Compact Put time.Sleep", faultKinds(faultfs.Close), "log", false, "Close tells: what compaction is done with was only read, or synced before"},
	{"copy", faultKinds(faultfs.Link), "copied log", false, "what can't be linked is copied"},
	{"copy Repair", faultKinds(faultfs.Close), "", false, "it was only read"},
	{"Repair", faultKinds(faultfs.Lstat, faultfs.Read), "", false, "what can't be read is read again, and is listed; sizes are for progress only"},
	{"OpenReader Refresh", faultKinds(faultfs.Lstat, faultfs.ReadDir, faultfs.Open, faultfs.Read, faultfs.Stat, faultfs.Close), "", false,
		"a writer may have changed it meanwhile: it is read again"},
	{"Verify", faultKinds(faultfs.Lstat, faultfs.Open, faultfs.Read, faultfs.Stat, faultfs.Close), "LOCK", false, "where a writer can't be seen, what it has written is judged as if it had died"},
	{"Open", faultKinds(faultfs.Lstat, faultfs.Open, faultfs.Stat, faultfs.Read, faultfs.Close), "INDEX", false, "the log has all that is in it"},
	{"Close", faultAnyKind, "INDEX", false, "the next Open reads the log instead"},
	{"Checkpoint", faultKinds(faultfs.Close), "INDEX", false, "it was only read"},
}

// faultReplayed is what a report says of how much was read, which differs if INDEX
// could not be.
var faultReplayed = regexp.MustCompile(`\d+ records read`)

func faultNotSync(k faultfs.Kind) bool {
	return !faultKinds(faultfs.Sync, faultfs.SyncData, faultfs.SyncDir)(k)
}

func (p *faultPardon) covers(call string, op faultfs.Op, lazy bool) bool {
	first, _, _ := strings.Cut(strings.TrimSuffix(call, ":"), " ")
	return (p.calls == "" || slices.Contains(strings.Fields(p.calls), strings.TrimSuffix(first, ":"))) && p.kind(op.Kind) &&
		(p.file == "" || p.file == faultFileClass(op.Path)) && (!p.lazy || lazy)
}

// faultFileClass says what a path stands for.
func faultFileClass(path string) string {
	base := filepath.Base(path)
	switch {
	case base == "LOCK" || base == "MANIFEST":
		return base
	case base == "INDEX" || replace.IsTempOf(base, "INDEX"):
		return "INDEX"
	case strings.HasSuffix(base, ".tmp"):
		return "temp"
	case strings.HasSuffix(base, ".tail"):
		return "tail"
	}
	_, ok := segment.ParseName(base)
	switch {
	case ok && strings.HasPrefix(path, faultCopy):
		return "copied log"
	case ok:
		return "log"
	}
	return "dir"
}

// judgeCalls requires the call that met the fault to have said so, or to be
// pardoned and as without the fault, and the calls before it to be as without one.
func (r *faultRun) judgeCalls() {
	fired, op := r.inject.met()
	if fired == 0 {
		return
	}
	base := r.w.base.trace
	plain := func(s string) string {
		if faultFileClass(op.Path) == "INDEX" {
			return faultReplayed.ReplaceAllString(s, "")
		}
		return s
	}
	same := func(i int) bool { return i < len(base) && i < len(r.trace) && plain(base[i]) == plain(r.trace[i]) }
	for i := range r.inCall {
		if !same(i) && !r.w.ragged {
			r.problem("call %d was %q, and is %q though nothing had failed yet", i, base[i], r.trace[i])
		}
	}
	told := r.surfaced // lazy stores, and what goes on beside the calls, may tell a later call
	beside := r.w.ragged || strings.HasPrefix(r.trace[r.inCall], "time.Sleep") || strings.HasPrefix(r.trace[r.inCall], "Wait")
	if r.w.sync == annals.SyncAlways && !beside {
		told = strings.Contains(r.trace[r.inCall], ": error: ")
	}
	if told || r.relaxed() {
		return
	}
	call := "the workload"
	if r.inCall >= 0 {
		call = r.trace[r.inCall]
	}
	lazy := r.w.sync != annals.SyncAlways
	if !slices.ContainsFunc(faultPardons, func(p faultPardon) bool { return p.covers(call, op, lazy) }) && !r.savingIndex(call) {
		r.problem("%q met the fault and said nothing", call)
		return
	}
	until := len(r.trace) // once it is as without the fault to the end
	if r.c.mode != faultOnce {
		until = r.inCall + 1
	}
	for i := range until {
		if !same(i) {
			r.problem("call %d met the fault, said nothing, and gave %q instead of %q", i, r.trace[i], base[i])
		}
	}
}

// savingIndex tells whether the fault has met the last look at LOCK, or the last sync
// of the directory, of a Close that saves INDEX: MANIFEST is durable by then, and
// INDEX need not be.
func (r *faultRun) savingIndex(call string) bool {
	_, op := r.inject.met()
	if !r.w.saves || !faultKinds(faultfs.SyncDir, faultfs.Stat, faultfs.Lstat)(op.Kind) || !strings.HasPrefix(call, "Close") {
		return false
	}
	hit := 0
	for i, k := range r.w.base.kinds {
		if r.c.fault.hits(k) {
			hit++
		}
		if hit == r.c.k {
			syncs := slices.DeleteFunc(slices.Clone(r.w.base.kinds[i:]), func(k faultfs.Kind) bool { return k != faultfs.SyncDir })
			return len(syncs) <= 1
		}
	}
	return false
}

// finish is the rest of the store's life: the fault is over.
func (r *faultRun) finish() {
	if r.db != nil {
		r.useStore()
	}
	if r.reader != nil {
		r.useReader()
	}
	r.mu.Lock()
	r.crashLocked("at the end")
	r.mu.Unlock()
	if r.db != nil {
		r.closeStore()
	}
	if n := r.fs.OpenFiles(); n != 0 {
		r.problem("%d files are open at the end", n)
	}
	if r.w.noStore {
		r.judgeCopies(r.fs, r.copies, "")
		return
	}
	for i := range r.crashes {
		c := &r.crashes[i]
		if r.w.isNew(c) {
			r.judgeCrash(c)
		}
	}
	r.restart()
}

// useStore requires reads to serve what is durable, and writes to go on unless the
// store has failed.
func (r *faultRun) useStore() {
	r.lookAt(r.db, "at the end")
	if d := r.db.Stats().Damage; len(d) > 0 && !r.mayBeUnreadable() {
		r.problem("an operation that failed was taken for damage: %v", d)
	}
	if err := r.put("after", "after"); err != nil && r.poison == nil {
		r.problem("the fault is over, and writing fails: %v", err)
	}
	fired, op := r.inject.met()
	if fired == 0 {
		return
	}
	if r.poison != nil && r.c.mode == faultOnce && op.Kind != faultfs.Sync && op.Kind != faultfs.SyncData && op.Kind != faultfs.SyncDir && op.Kind != faultfs.Stat && op.Kind != faultfs.Lstat && op.Kind != faultfs.Close {
		r.problem("one failed %v has ended all writing: %v", op.Kind, r.poison)
	}
}

func (r *faultRun) useReader() {
	if err := r.reader.Refresh(); err != nil {
		r.problem("Refresh without a fault: %v", err)
	} else {
		r.lookAt(r.reader, "the reader at the end")
	}
	if err := r.reader.Close(); err != nil {
		r.problem("closing the reader: %v", err)
	}
}

func (r *faultRun) closeStore() {
	err := r.db.Close()
	switch {
	case r.poison == nil && err != nil && !r.relaxed() && !r.closeFailed():
		r.problem("Close without a fault: %v", err)
	case r.poison != nil && !errors.Is(err, annals.ErrFailed):
		r.problem("Close of a failed store: %v", err)
	case err == nil:
		r.history.acked = r.visible
	}
	r.db = nil
}

// closeFailed tells whether the fault has met a segment that compaction was done
// with: what only Close can tell.
func (r *faultRun) closeFailed() bool {
	_, op := r.inject.met()
	first := faultFileClass(op.Path)
	return first == "log" && op.Kind == faultfs.Close || (first == "log" || first == "LOCK") && r.c.mode != faultOnce
}

// restart opens the store as the next process finds it, and crashes that: what it
// has shown must not go, even where the kernel showed bytes that a failed sync had
// not written.
func (r *faultRun) restart() {
	shown := r.reopen(r.fs, r.history, r.relaxed(), "after a restart")
	if shown < 0 {
		return
	}
	h := r.history.clone()
	h.states, h.acked = h.states[:shown+1], shown
	r.crashAgain("after a restart and a crash", h)
	r.writeOn(r.fs, r.history, r.relaxed(), "after a restart")
	h.states = []*faultState{h.states[shown].with(func(s *faultState) { s.keys["new"] = "" })}
	h.acked = 0
	if !r.nameless() {
		r.crashAgain("after a restart, a write and a crash", h)
	}
	r.judgeCopies(r.fs, r.copies, "after a restart: ")
}

// nameless tells whether the name of a directory, of a new store or of a copy,
// could not be synced and is there nevertheless, because it could not be removed
// either, or because somebody else has made it. Whoever finds it can't know.
func (r *faultRun) nameless() bool {
	_, op := r.inject.met()
	return op.Kind == faultfs.SyncDir && op.Path != faultStore && (r.c.mode == faultEver || r.theirs)
}

func (r *faultRun) crashAgain(when string, h faultHistory) {
	for what, keep := range r.crashWays() {
		c := faultCrash{what: when + ", with " + what + " of what was pending", after: r.fs.Crash(keep), history: h, relaxed: r.relaxed()}
		if r.w.isNew(&c) {
			r.judgeCrash(&c)
		}
	}
}

func (r *faultRun) judgeCrash(c *faultCrash) {
	if r.reopen(c.after, c.history, c.relaxed, c.what) >= 0 {
		r.writeOn(c.after, c.history, c.relaxed, c.what)
	}
	if !c.relaxed {
		r.judgeCopies(c.after, c.copies, c.what+": ")
	}
}

// isNew tells whether this crash leaves something that no case of the workload has
// met with the same promises.
func (w *faultWorkload) isNew(c *faultCrash) bool {
	h := fnv.New64a()
	fmt.Fprint(h, c.after.Digest("LOCK"), c.relaxed, c.copies)
	for _, s := range c.history.states[c.history.acked:] {
		io.WriteString(h, s.dump())
	}
	sum := h.Sum64()
	known := w.seen[sum]
	w.seen[sum] = true
	return !known
}

// reopen opens a store without faults, requires it to hold a prefix of what was
// submitted with all that was acknowledged, and closes it. It returns the number
// of the state, -1 if there is none to go on with.
func (r *faultRun) reopen(fsys *faultfs.FS, h faultHistory, relaxed bool, when string) int {
	db, err := annals.Open(faultStore, r.optionsOn(fsys))
	if err != nil {
		if !relaxed || !errors.Is(err, annals.ErrCorrupt) {
			r.problem("%s: Open: %v", when, err)
		}
		r.filesClosed(fsys, when)
		return -1
	}
	shown := r.judgeState(db, h, relaxed, when)
	if err := db.Close(); err != nil {
		r.problem("%s: Close: %v", when, err)
	}
	r.filesClosed(fsys, when)
	report, err := annals.VerifyFS(context.Background(), fsys, faultStore, nil)
	if err != nil || !report.OK() && !relaxed {
		r.problem("%s: Verify: %v, %v", when, report.Problems, err)
	}
	return shown
}

func (r *faultRun) judgeState(db *annals.Store, h faultHistory, relaxed bool, when string) int {
	got, err := dumpFault(db)
	if err != nil {
		if !relaxed {
			r.problem("%s: reading: %v", when, err)
		}
		return -1
	}
	least := h.acked
	if relaxed {
		least = min(least, r.met)
	}
	for i := len(h.states) - 1; i >= least; i-- {
		if h.states[i].dump() == got {
			return i
		}
	}
	if relaxed && r.w.background {
		return -1 // compaction has dropped what the lost records had made dead
	}
	r.problem("%s: the store holds\n%s\nwhich is none of the %d allowed states, from\n%s\nto\n%s", when, got, len(h.states)-least,
		h.states[least].dump(), h.states[len(h.states)-1].dump())
	return -1
}

// writeOn writes to a recovered store: the number must be a new one.
func (r *faultRun) writeOn(fsys *faultfs.FS, h faultHistory, relaxed bool, when string) {
	db, err := annals.Open(faultStore, r.optionsOn(fsys))
	if err != nil {
		r.problem("%s: Open again: %v", when, err)
		return
	}
	if !db.Recovery().Clean {
		r.problem("%s: the store was closed, and Open finds it unclean", when)
	}
	var b annals.Batch
	b.Put("new", nil)
	seq, err := db.Apply(&b)
	if err != nil {
		r.problem("%s: writing on: %v", when, err)
	}
	if last := h.states[h.acked].seq; seq <= last && !relaxed {
		r.problem("%s: number %d was given twice, %d had been acknowledged", when, seq, last)
	}
	if err := db.Close(); err != nil {
		r.problem("%s: Close again: %v", when, err)
	}
	r.filesClosed(fsys, when)
}

func (r *faultRun) optionsOn(fsys *faultfs.FS) *annals.Options {
	o := r.options()
	o.FS = fsys
	return o
}

func (r *faultRun) filesClosed(fsys *faultfs.FS, when string) {
	if n := fsys.OpenFiles(); n != 0 {
		r.problem("%s: %d files are left open", when, n)
	}
}

// judgeCopies requires a backup or repair that was reported as done to be whole,
// and one that was not to be refused, or whole all the same.
func (r *faultRun) judgeCopies(fsys *faultfs.FS, copies []faultCopied, when string) {
	for _, c := range copies {
		db, err := annals.OpenReader(c.dir, &annals.ReaderOptions{FS: fsys})
		if err != nil {
			if c.whole || !errors.Is(err, annals.ErrNotStore) && !errors.Is(err, annals.ErrCorrupt) {
				r.problem("%sopening the copy in %s: %v", when, c.dir, err)
			}
			continue
		}
		got, err := dumpFault(db)
		if err != nil || got != c.want {
			r.problem("%sthe copy in %s opens and holds\n%s\n(%v) instead of\n%s", when, c.dir, got, err, c.want)
		}
		if err := db.Close(); err != nil {
			r.problem("%sclosing the copy in %s: %v", when, c.dir, err)
		}
		if report, err := annals.VerifyFS(context.Background(), fsys, c.dir, nil); err != nil || !report.OK() {
			r.problem("%sthe copy in %s: Verify: %v, %v", when, c.dir, report.Problems, err)
		}
	}
	r.filesClosed(fsys, when)
}
