package fuzz

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

const (
	faultStore  = "/top/store"
	faultCopy   = "/top/copy" // where backups and repairs go
	faultMargin = 5           // problems that a case reports
)

// faultInjector makes operations fail as a case says. The file system asks it with its
// lock held.
type faultInjector struct {
	c *faultCase

	mu    sync.Mutex
	on    bool // operations count, and may fail
	links bool // hard links work
	count int  // operations that the fault could hit
	fired int
	kinds []faultfs.Kind // of all operations while on
	first faultfs.Op     // that met the fault
}

func (in *faultInjector) decide(op faultfs.Op) *faultfs.Fault {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.links && op.Kind == faultfs.Link {
		return &faultfs.Fault{Err: errFaultNoLinks}
	}
	if !in.on {
		return nil
	}
	in.kinds = append(in.kinds, op.Kind)
	f := in.c.fault
	if in.c.k == 0 || !f.hits(op.Kind) {
		return nil
	}
	in.count++
	switch {
	case in.count < in.c.k:
		return nil
	case in.count == in.c.k:
		in.first = op
	case in.c.mode == faultOnce, in.c.mode == faultKind && op.Kind != in.first.Kind:
		return nil
	}
	in.fired++
	fault := &faultfs.Fault{Err: f.err}
	if f.bytes != nil {
		fault.Bytes = f.bytes(op.Len)
	}
	return fault
}

// turn has operations count or not, and returns what was before.
func (in *faultInjector) turn(on bool) (before bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	before, in.on = in.on, on
	return before
}

func (in *faultInjector) met() (fired int, first faultfs.Op) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.fired, in.first
}

// faultState is what a store holds after some commit.
type faultState struct {
	keys    map[string]string
	samples []string
	seq     uint64 // of the last record; 0 if it is not known yet
}

func (s *faultState) with(change func(*faultState)) *faultState {
	next := &faultState{keys: map[string]string{}, samples: slices.Clone(s.samples)}
	for k, v := range s.keys {
		next.keys[k] = v
	}
	change(next)
	return next
}

func (s *faultState) dump() string {
	var lines []string
	for k, v := range s.keys {
		lines = append(lines, fmt.Sprintf("%s=%s\n", k, v))
	}
	slices.Sort(lines)
	return strings.Join(lines, "") + strings.Join(s.samples, "\n")
}

// faultHistory is what was submitted and what was promised of it at some moment.
type faultHistory struct {
	states []*faultState // after each commit that may have been made, in order
	acked  int           // the state that nothing may be lost of
}

func (h faultHistory) clone() faultHistory { return faultHistory{slices.Clone(h.states), h.acked} }

// faultCrash is a moment at which the machine may have stopped.
type faultCrash struct {
	what    string
	after   *faultfs.FS // what is left
	history faultHistory
	copies  []faultCopied
	relaxed bool // the file system has lied about a sync
}

// faultCopied is a backup or a repair, or the attempt.
type faultCopied struct {
	dir   string
	whole bool // the call has returned nil
	want  string
}

// faultRun is a case at work.
type faultRun struct {
	c      *faultCase
	w      *faultWorkload
	inject *faultInjector
	fs     *faultfs.FS
	rnd    *rand.Rand

	db     *annals.Store
	reader *annals.Reader
	n      int // for unique values

	mu       sync.Mutex
	history  faultHistory
	visible  int   // the state that readers see
	met      int   // the history's acked when the fault was met
	surfaced bool  // a call has returned an error
	inCall   int   // the call that met the fault
	poison   error // of the first write that found the store failed
	trace    []string
	copies   []faultCopied
	theirs   bool // the directory of the copy was there
	gate     atomic.Pointer[chan struct{}]
	crashes  []faultCrash
	captured bool
	problems []string
}

func newFaultRun(c *faultCase) *faultRun {
	return &faultRun{c: c, w: c.w, inject: &faultInjector{c: c, links: true}, rnd: rand.New(rand.NewPCG(uint64(c.k), 1)), inCall: -1}
}

func (r *faultRun) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// report fails the test if the case has problems.
func (r *faultRun) report(t *testing.T) bool {
	if len(r.problems) == 0 {
		return true
	}
	fired, op := r.inject.met()
	list := r.problems[:min(len(r.problems), faultMargin)]
	t.Errorf("%v (met %d times, first by operation %d, %v %s):\n  %s\ncalls:\n  %s\nreplay: go test ./fuzz -run FaultAnywhere -fault.only=%q", r.c, fired, op.N, op.Kind,
		op.Path, strings.Join(list, "\n  "), strings.Join(r.trace, "\n  "), r.c)
	return false
}

// run is the case from its first file to its last check.
func (r *faultRun) run() {
	w := r.w
	r.fs, r.history = faultfs.New(), faultHistory{states: []*faultState{{}}}
	if w.from != nil {
		r.fs, r.history = w.from.fs.Clone(), w.from.history.clone()
	}
	r.visible = r.history.acked
	r.fs.Failure = r.c.fault.failure
	r.fs.Inject(r.inject.decide)
	r.fs.Hook(r.before)
	r.inject.turn(true)
	w.do(r)
	r.inject.turn(false)
	r.fs.Hook(nil)
	if r.c.k > 0 {
		r.judgeCalls()
	}
	r.finish()
}

// before holds up an operation while the gate is shut. At the first one behind
// that which failed it takes what a crash leaves.
func (r *faultRun) before(faultfs.Op) {
	if gate := r.gate.Load(); gate != nil {
		<-*gate
	}
	fired, _ := r.inject.met()
	r.mu.Lock()
	defer r.mu.Unlock()
	if fired == 0 || r.captured {
		return
	}
	r.captured = true
	r.met = r.history.acked
	r.crashLocked("right behind the fault")
}

// crashLocked notes what a crash at this moment can leave.
func (r *faultRun) crashLocked(when string) {
	for what, keep := range r.crashWays() {
		r.crashes = append(r.crashes, faultCrash{
			what:  fmt.Sprintf("after a crash %s, with %s of what was pending", when, what),
			after: r.fs.Crash(keep), history: r.history.clone(), copies: slices.Clone(r.copies), relaxed: r.relaxed(),
		})
	}
}

// crashWays are what a crash keeps of what is pending. Behind a write that was cut
// short it may keep all but one effect: that of taking it back, for one.
func (r *faultRun) crashWays() func(yield func(string, func(int) bool) bool) {
	short := 0
	if _, op := r.inject.met(); r.c.fault.bytes != nil && op.Kind == faultfs.Write {
		short = r.fs.Pending()
	}
	return func(yield func(string, func(int) bool) bool) {
		_ = yield("nothing", func(int) bool { return false }) &&
			yield("all", func(int) bool { return true }) &&
			yield("some", func(int) bool { return r.rnd.IntN(2) == 0 })
		for i := range short {
			if !yield(fmt.Sprint("all but ", i), func(j int) bool { return i != j }) {
				return
			}
		}
	}
}

// relaxed tells whether the fault is a sync that was lost and reported as done, as
// ext4 does with data=journal until the next sync: then what was acknowledged since
// may be gone after a crash (DURABILITY.md, what cannot be promised, 8).
func (r *faultRun) relaxed() bool {
	fired, op := r.inject.met()
	return fired > 0 && r.c.fault.failure == faultfs.Ext4Data && (op.Kind == faultfs.Sync || op.Kind == faultfs.SyncData)
}

// call makes one call of the API, and waits until all that it has set going is at
// rest. What fn returns is compared with the run without a fault.
func (r *faultRun) call(name string, fn func() (string, error)) error {
	before, _ := r.inject.met()
	got, err := fn()
	synctest.Wait()
	after, _ := r.inject.met()
	if before == 0 && after > 0 {
		r.inCall = len(r.trace)
	}
	if err != nil {
		got = "error: " + err.Error()
		r.surfaced = true
		if r.c.k == 0 || after == 0 {
			r.problem("%s failed without a fault: %v", name, err)
		} else {
			r.judgeError(name, err)
		}
	}
	r.trace = append(r.trace, name+": "+got)
	if r.db != nil {
		r.advance()
		r.surfaced = r.surfaced || r.db.Stats().Compaction.LastError != ""
	}
	return err
}

// advance raises what is promised to what the store says is durable.
func (r *faultRun) advance() {
	r.mu.Lock()
	defer r.mu.Unlock()
	durable := r.db.Durable()
	for i, s := range r.history.states {
		if s.seq > 0 && s.seq <= durable {
			r.history.acked = max(r.history.acked, i)
		}
	}
}

// judgeError requires an error to name the fault, and to be no excuse.
func (r *faultRun) judgeError(name string, err error) {
	if r.mayBeUnreadable() && errors.Is(err, annals.ErrCorrupt) {
		return
	}
	if !errors.Is(err, r.c.fault.err) {
		r.problem("%s: the error does not name %v: %v", name, r.c.fault.err, err)
	}
	for _, wrong := range []error{annals.ErrCorrupt, annals.ErrNotStore, annals.ErrNotFound, annals.ErrLocked} {
		if errors.Is(err, wrong) {
			r.problem("%s: an operation that failed was taken for %q: %v", name, wrong, err)
		}
	}
}

// write makes a call that writes. The first that finds the store failed decides
// what all others must say.
func (r *faultRun) write(name string, fn func() (string, error)) error {
	err := r.call(name, fn)
	var failed *annals.FailedError
	isFailed := errors.As(err, &failed)
	switch {
	case errors.Is(err, errOwnFault):
	case r.poison != nil && !isFailed:
		r.problem("%s: the store had failed, and this write got %v", name, err)
	case r.poison != nil && failed.Err.Error() != r.poison.Error():
		r.problem("%s: the store had failed with %v, and now says %v", name, r.poison, failed.Err)
	case isFailed:
		r.poison = failed.Err
	}
	return err
}

// outcomeUnknown tells whether the outcome of a write is open.
func outcomeUnknown(err error) bool {
	var failed *annals.FailedError
	return errors.As(err, &failed) && failed.Unknown
}

// commit submits a commit whose effect is change, and notes what may have become
// of it: an error that does not say that the outcome is unknown says that it was
// not made.
func (r *faultRun) commit(name string, change func(*faultState), fn func() (uint64, error)) error {
	if r.db == nil {
		return nil
	}
	s := r.submitted(change)
	var seq uint64
	err := r.write(name, func() (string, error) {
		var err error
		seq, err = fn()
		return fmt.Sprint("number ", seq), err
	})
	r.settle(name, s, seq, err)
	if r.inCall == len(r.trace)-1 {
		r.mu.Lock()
		r.crashLocked("once the call had returned")
		r.mu.Unlock()
	}
	return err
}

func (r *faultRun) submitted(change func(*faultState)) *faultState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.history.states[len(r.history.states)-1].with(change)
	r.history.states = append(r.history.states, s)
	return s
}

func (r *faultRun) settle(name string, s *faultState, seq uint64, err error) {
	r.mu.Lock()
	at := slices.Index(r.history.states, s)
	switch {
	case at < 0: // one before it was not made, and took it along
		if err == nil {
			r.mu.Unlock()
			r.problem("%s: it was made, though one queued before it was not", name)
			return
		}
	case err == nil:
		s.seq, r.visible = seq, at
		if r.w.sync == annals.SyncAlways {
			r.history.acked = at
		}
	case !outcomeUnknown(err):
		r.history.states = r.history.states[:at]
	}
	r.mu.Unlock()
	if err == nil {
		r.advance()
	}
}

// open opens the store.
func (r *faultRun) open() {
	err := r.call("Open", func() (string, error) {
		db, err := annals.Open(faultStore, r.options())
		if err != nil {
			if n := r.fs.OpenFiles(); n > 0 {
				r.problem("Open failed and left %d files open", n)
			}
			return "", err
		}
		r.db = db
		report := db.Recovery()
		report.Took = ""
		return report.String(), nil
	})
	if err == nil {
		r.lookAt(r.db, "after Open")
	}
}

func (r *faultRun) options() *annals.Options {
	o := &annals.Options{FS: r.fs, SegmentSize: 4096, Sync: r.w.sync, Compaction: annals.Compaction{Off: !r.w.background, Grace: time.Nanosecond}}
	if r.w.saves {
		o.Checkpoint = 1 << 30
	}
	return o
}

// faultView is a Store or a Reader.
type faultView interface{ Snapshot() *annals.Snapshot }

// dumpFault is what a store shows.
func dumpFault(db faultView) (string, error) {
	s := db.Snapshot()
	defer s.Close()
	var b strings.Builder
	for e, err := range s.Scan(annals.Range{}) {
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s=%s\n", e.Key, e.Value)
	}
	var samples []string
	for sample, err := range s.Samples("s", annals.Window{}) {
		if err != nil {
			return "", err
		}
		samples = append(samples, string(sample.Value))
	}
	return b.String() + strings.Join(samples, "\n"), nil
}

// lookAt requires a store to show what is visible. Nothing fails meanwhile.
func (r *faultRun) lookAt(db faultView, when string) {
	defer r.inject.turn(r.inject.turn(false))
	got, err := dumpFault(db)
	if err != nil {
		if !r.mayBeUnreadable() {
			r.problem("%s: reading: %v", when, err)
		}
		return
	}
	if want := r.history.states[r.visible].dump(); got != want {
		r.problem("%s: the store shows\n%s\ninstead of\n%s", when, got, want)
	}
}

// mayBeUnreadable tells whether records that were never durable may have gone from
// the cache: btrfs shows a file's old contents after a failed sync.
func (r *faultRun) mayBeUnreadable() bool {
	return r.c.fault.failure == faultfs.Btrfs && r.visible > r.history.acked
}

func (r *faultRun) sleep(d time.Duration) {
	_ = r.call("time.Sleep", func() (string, error) {
		time.Sleep(d)
		return "", nil
	})
}

// faultFilesIn are all files of a directory.
func faultFilesIn(fsys *faultfs.FS, dir string) (map[string]string, error) {
	all := map[string]string{}
	entries, err := fsys.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			all[e.Name()] = "a directory"
			continue
		}
		file, err := fsys.OpenFile(filepath.Join(dir, e.Name()), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		info, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		text := make([]byte, info.Size())
		if _, err := file.ReadAt(text, 0); err != nil && len(text) > 0 {
			return nil, errors.Join(err, file.Close())
		}
		all[e.Name()] = string(text)
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return all, err
}

// copyTo makes a backup or a repair.
func (r *faultRun) copyTo(verb, dir string, fn func(context.Context, string) error) error {
	want := r.history.states[r.visible].dump()
	r.mu.Lock()
	r.copies = append(slices.Clone(r.copies), faultCopied{dir: dir, want: want})
	made := len(r.copies) - 1
	r.mu.Unlock()
	err := r.call(verb+" to "+dir, func() (string, error) { return "", fn(context.Background(), dir) })
	r.mu.Lock()
	r.copies = slices.Clone(r.copies)
	r.copies[made].whole = err == nil
	if errors.Is(err, errReportedLoss) {
		r.copies = slices.Delete(r.copies, made, made+1)
	}
	r.mu.Unlock()
	return err
}

// errReportedLoss is what a Repair is said to have met that went on without what it
// could not read: its copy holds less, and says so.
var errReportedLoss = errors.New("the report lists what could not be read")
