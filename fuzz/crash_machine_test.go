package fuzz

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

// steps are the operations of a workload.
var steps map[string]func(*machine)

func init() {
	steps = map[string]func(*machine){
		"put":     (*machine).put,
		"delete":  (*machine).delete,
		"batch":   (*machine).batch,
		"big":     (*machine).big,
		"rotate":  (*machine).rotate,
		"compact": (*machine).compact,
		"reopen":  (*machine).reopen,
		"expire":  (*machine).expire,

		"checkpoint": (*machine).checkpoint,

		"append": (*machine).append,
		"update": (*machine).update,
		"ttl":    (*machine).ttl,
		"burst":  (*machine).burst,
		"idle":   (*machine).idle,
		"sync":   (*machine).sync,
		"tidy":   (*machine).tidy,
	}
}

const (
	storeDir    = "/top/store"
	crashSeries = "s"
)

// machine runs a workload on a store and, before each change of the file system,
// has crashed copies of it judged. A fork of it does the same to the recovery of
// such a copy.
type machine struct {
	*testing.T
	ledger
	name   string // of the sequence; with the seed it says all
	rnd    *rand.Rand
	fs     *faultfs.FS
	db     *annals.Store // nil while it is being opened and closed
	policy annals.SyncPolicy
	now    time.Time
	sum    *sums

	depth  int    // 1: a store that is used; 2: one that recovers from its crash; ...
	origin *story // of a fork: the crash that it recovers from
	quiet  bool   // nothing is judged for now
	broken bool   // something was judged wrong
	rich   bool   // every key of a few, not always the same
	saves  bool   // Close saves the index, however little has changed
	kills  int    // at how many crash points, on average, the process is killed once
	values int    // for unique ones
	next   uint64 // the number of the next record
	spent  uint64 // no new record may have this number or a lower one
	floor  int    // a crash may take nothing of the first so many commits

	last struct { // crash point
		op, floor, effects int
	}
	seen   map[seenState]bool
	mu     sync.Mutex            // held by the hook
	gate   chan struct{}         // if not nil, what changes the file system waits for it ...
	gated  func(faultfs.Op) bool // ... if this is so
	merges bool                  // the store compacts by itself

	watch struct {
		sync.Mutex
		got  []annals.Record
		err  error
		stop context.CancelFunc
		done chan struct{}
		from int // index of its first record in the ledger
	}
}

func newMachine(t *testing.T, s sequence, sum *sums) *machine {
	m := &machine{T: t, ledger: newLedger(), name: s.String(), rnd: rand.New(rand.NewPCG(*crashSeed, s.hash())), fs: faultfs.New(), sum: sum,
		policy: policies[s.policy], depth: 1, rich: len(s.steps) >= 30, next: 1, seen: map[seenState]bool{}}
	m.now = time.Unix(1_750_000_000, 0)
	m.fs.Tear = s.tear
	m.fs.Hook(m.hook)
	m.saves = s.hash()>>8&1 > 0
	m.kills = 1 + *crashDeep/4
	if len(s.steps) == 1 {
		m.kills = min(m.kills, 3) // the only ones that are judged while the store is made
	}
	return m
}

// hook judges crashes before everything that changes the file system. It may run
// in any of the store's goroutines.
func (m *machine) hook(op faultfs.Op) {
	if !op.Kind.Changes() {
		return
	}
	if m.gate != nil && m.gated(op) {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.guard(func() { m.crash(op) })
}

// abort is what a failed judgement panics with. It may be in a goroutine in which
// FailNow would leave the others waiting for ever.
type abort struct{}

// guard runs a judgement. After the first that fails nothing is judged any more,
// and the workload ends.
func (m *machine) guard(fn func()) {
	if m.broken || m.quiet {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(abort); !ok {
				panic(r)
			}
			m.broken = true
		}
	}()
	fn()
}

func (m *machine) options(fs *faultfs.FS, policy annals.SyncPolicy) *annals.Options {
	opts := &annals.Options{FS: fs, Sync: policy, SegmentSize: 4096, Now: func() time.Time { return m.now },
		Compaction: annals.Compaction{Off: true, Grace: time.Nanosecond}}
	if m.saves {
		opts.Checkpoint = 1 << 30 // only at Close, and where a step says so
	}
	return opts
}

// open opens the store of a machine that is no fork.
func (m *machine) open() {
	opts := m.options(m.fs, m.policy)
	opts.Compaction.Off = !m.merges
	db, err := annals.Open(storeDir, opts)
	m.must(err)
	next, err := nextSeq(m.fs)
	m.must(err)
	m.expect(next == m.next, "a store that was closed goes on with number %d instead of %d", next, m.next)
	m.mu.Lock() // the hook of a compaction that Open has started may read both
	m.db = db
	m.startWatch()
	m.mu.Unlock()
	m.atRest()
}

// close closes the store; everything is durable then.
func (m *machine) close() {
	db := m.db
	m.db = nil
	m.must(db.Close())
	m.stopWatch()
	m.floor = m.submitted()
	m.atRest()
}

// must ends the workload if one of its operations fails, which none does as long
// as nobody injects faults.
func (m *machine) must(err error) {
	m.Helper()
	m.expect(err == nil, "%v", err)
}

// expect ends the workload unless ok.
func (m *machine) expect(ok bool, format string, args ...any) {
	m.Helper()
	if m.broken {
		m.FailNow()
	}
	if !ok {
		m.Errorf("%s\n%s\n%s", fmt.Sprintf(format, args...), &story{m: m}, replay(m.name))
		m.FailNow()
	}
}

// atRest judges a crash now that nothing is under way, and what the watcher has
// seen.
func (m *machine) atRest() {
	m.Helper()
	if m.depth == 1 {
		synctest.Wait()
		m.expect(true, "")
		m.checkWatch()
	}
	m.guard(func() { m.crash(faultfs.Op{}) })
	if m.depth == 1 {
		m.expect(true, "")
	}
}

// submit notes a commit and returns it as a batch.
func (m *machine) submit(writes []write) (*annals.Batch, *state) {
	var b annals.Batch
	for _, w := range writes {
		switch {
		case w.kind == annals.KindDelete:
			b.Delete(w.name)
		case w.kind == annals.KindSample:
			b.Append(w.name, []byte(w.value))
		case w.expires.IsZero():
			b.Put(w.name, []byte(w.value))
		default:
			b.Put(w.name, []byte(w.value), annals.ExpiresAt(w.expires))
		}
	}
	s := m.ledger.submit(m.next, writes)
	m.next = s.last + 1
	return &b, s
}

// commit has the store make a commit.
func (m *machine) commit(writes ...write) {
	b, s := m.submit(writes)
	seq, err := m.db.Apply(b)
	m.acknowledged(s, seq, err)
}

// acknowledged checks what a write returned and what readers see from here on.
func (m *machine) acknowledged(s *state, seq uint64, err error) {
	m.Helper()
	if m.depth == 1 {
		synctest.Wait() // a lazy log may be writing what we were told is written
	}
	m.check(err == nil, "a write fails: %v", err)
	m.check(seq == s.last, "the last record of a commit has number %d instead of %d", seq, s.last)
	if m.policy == annals.SyncAlways {
		m.floor = m.submitted()
		m.spent = max(m.spent, seq)
	}
	m.showsAll()
	m.atRest()
}

// showsAll requires that readers see all that was submitted.
func (m *machine) showsAll() {
	m.Helper()
	shown, _, err := view(m.db)
	m.check(err == nil, "reading fails: %v", err)
	want := m.states[m.submitted()].show(m.now)
	m.check(shown == want, "the store shows:\n%s\ninstead of:\n%s", short(shown), short(want))
}

// check is expect where the machine may be a fork, which runs in the hook of
// another.
func (m *machine) check(ok bool, format string, args ...any) {
	m.Helper()
	if ok {
		return
	}
	if m.depth == 1 {
		m.expect(false, format, args...)
	}
	m.fail(m.origin, "after the recovery: "+format, args...)
}

func (m *machine) key() string {
	if !m.rich {
		return "k0" // so that a delete, or an expiry, meets a put
	}
	return fmt.Sprintf("k%d", m.rnd.IntN(3))
}

func (m *machine) value(size int) string {
	m.values++
	return fmt.Sprintf("%d-%d%s", m.depth, m.values, strings.Repeat("x", size))
}

func put(key, value string) write { return write{kind: annals.KindPut, name: key, value: value} }
func sample(value string) write {
	return write{kind: annals.KindSample, name: crashSeries, value: value}
}

func (m *machine) put()    { m.commit(put(m.key(), m.value(0))) }
func (m *machine) delete() { m.commit(write{kind: annals.KindDelete, name: m.key()}) }
func (m *machine) batch()  { m.commit(put("k0", m.value(0)), put("k1", m.value(0)), sample(m.value(0))) }
func (m *machine) append() { m.commit(sample(m.value(0))) }

// big is a commit of more than a page.
func (m *machine) big() {
	m.commit(put("k0", m.value(2200)), put("k1", m.value(2200)), sample(m.value(0)))
}

// rotate fills the segment, so that the next commit goes to another. There is room
// for one small put before it.
func (m *machine) rotate() { m.commit(put("full", m.value(3869))) }

func (m *machine) compact() {
	_, err := m.db.Compact(context.Background(), nil)
	m.check(err == nil, "compaction fails: %v", err)
	m.showsAll()
	m.atRest()
}

func (m *machine) reopen() {
	m.close()
	m.open()
	m.showsAll()
}

// ttl puts a key that will expire.
func (m *machine) ttl() {
	w := put(m.key(), m.value(0))
	w.expires = m.now.Add(time.Minute)
	m.commit(w)
}

// expire lets the time of such a key pass.
func (m *machine) expire() {
	m.ttl()
	m.now = m.now.Add(2 * time.Minute)
	m.showsAll()
	m.atRest()
}

// update is a transaction.
func (m *machine) update() {
	k, v := m.key(), m.value(0)
	_, s := m.submit([]write{put(k, v), sample(v)})
	var seq uint64
	err := m.db.Update(func(tx *annals.Tx) (err error) {
		if err := tx.Put(k, []byte(v)); err != nil {
			return err
		}
		seq, err = tx.Append(crashSeries, []byte(v))
		return err
	})
	m.acknowledged(s, seq, err)
}

// burst submits several commits before the first of them is written: what comes
// behind that one shares a write and a sync.
func (m *machine) burst() {
	m.gate, m.gated = make(chan struct{}), func(faultfs.Op) bool { return true }
	var commits []*annals.Commit
	for i := range 4 {
		writes := []write{put(m.key(), m.value(0))}
		if i%2 == 1 {
			writes = append(writes, sample(m.value(0)))
		}
		b, _ := m.submit(writes)
		commits = append(commits, m.db.Submit(b))
		synctest.Wait()
	}
	close(m.gate)
	for _, c := range commits {
		_, err := c.Wait(context.Background())
		m.must(err)
	}
	m.acknowledged(m.states[m.submitted()], m.next-1, nil)
	m.gate = nil
}

// tidy has the store compact by itself what is worth it, which is some of the
// segments, where compact takes all.
func (m *machine) tidy() {
	m.close()
	m.gate, m.gated = make(chan struct{}), func(op faultfs.Op) bool { // until we are ready to look
		_, err := m.fs.ReadFile(op.Path)
		return op.Kind == faultfs.Open && strings.HasSuffix(op.Path, ".log") && err != nil
	}
	m.merges = true
	m.open()
	close(m.gate)
	m.atRest()
	m.gate, m.merges = nil, false
	m.showsAll()
	m.reopen()
}

// idle lets the log rest for so long that it says that all is durable.
func (m *machine) idle() {
	m.handOver()
	time.Sleep(3 * time.Second)
	m.atRest()
}

// checkpoint saves the index.
func (m *machine) checkpoint() {
	m.must(m.db.Checkpoint(context.Background()))
	m.floor = m.submitted() // the log was synced first
	m.atRest()
}

// handOver tells the race detector that what a timer does comes after what we did.
func (m *machine) handOver() {
	m.mu.Lock()
	defer m.mu.Unlock()
}

// sync makes all durable that was written.
func (m *machine) sync() {
	seq, err := m.db.Sync(context.Background())
	m.must(err)
	m.expect(seq == m.next-1, "all is durable up to %d instead of %d", seq, m.next-1)
	m.floor = m.submitted()
	m.atRest()
}

// look raises the floor to what the store has shown to anybody by now. That is
// more than it has acknowledged: what a reader saw must not disappear either.
func (m *machine) look() {
	if m.db == nil {
		return
	}
	shown, seq, err := view(m.db)
	at := &story{m: m}
	m.require(at, err == nil, "reading the live store: %v", err)
	i, whole := m.at(seq)
	m.require(at, whole && m.states[i].show(m.now) == shown, "readers see part of a commit, up to %d:\n%s", seq, short(shown))

	lasting := m.db.Durable()
	m.require(at, lasting <= seq, "all is durable up to %d, but readers see only up to %d", lasting, seq)
	if m.policy == annals.SyncAlways {
		lasting = seq
	}
	if m.policy != annals.SyncNever {
		lasting = max(lasting, m.published(), m.watched())
	}
	i, whole = m.at(lasting)
	m.require(at, whole, "part of a commit is visible, or said to be durable: up to %d", lasting)
	m.floor = max(m.floor, i)
	m.spent = max(m.spent, lasting)
}

// published is what LOCK tells readers in other processes.
func (m *machine) published() uint64 {
	text, err := m.fs.ReadFile(storeDir + "/LOCK")
	if err != nil || len(text) < 520 {
		return 0
	}
	return binary.LittleEndian.Uint64(text[512:])
}

var manifestSeq = regexp.MustCompile(`"seq":(\d+)`)

// nextSeq reads from MANIFEST which number the next record gets.
func nextSeq(fs *faultfs.FS) (uint64, error) {
	text, err := fs.ReadFile(storeDir + "/MANIFEST")
	if err != nil {
		return 0, err
	}
	m := manifestSeq.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("MANIFEST without seq: %s", text)
	}
	return strconv.ParseUint(string(m[1]), 10, 64)
}

var footerLast = regexp.MustCompile(`"last":(\d+)`)

// lastSeq reads from MANIFEST the greatest number in a sealed segment.
func lastSeq(fs *faultfs.FS) (last uint64) {
	text, _ := fs.ReadFile(storeDir + "/MANIFEST")
	for _, m := range footerLast.FindAllSubmatch(text, -1) {
		n, _ := strconv.ParseUint(string(m[1]), 10, 64)
		last = max(last, n)
	}
	return last
}

// startWatch has a watcher follow the log.
func (m *machine) startWatch() {
	ctx, stop := context.WithCancel(context.Background())
	w := &m.watch
	w.got, w.err, w.stop, w.done, w.from = nil, nil, stop, make(chan struct{}), len(m.records)
	db, from, done := m.db, m.next, w.done
	go func() {
		defer close(done)
		for r, err := range db.Watch(ctx, from) {
			w.Lock()
			if err != nil {
				w.err = err
			} else {
				w.got = append(w.got, r)
			}
			w.Unlock()
		}
	}()
}

func (m *machine) stopWatch() {
	m.watch.stop()
	<-m.watch.done
}

// watched is the last number that the watcher has seen.
func (m *machine) watched() uint64 {
	m.watch.Lock()
	defer m.watch.Unlock()
	if n := len(m.watch.got); n > 0 && !m.watch.got[n-1].More {
		return m.watch.got[n-1].Seq
	}
	return 0
}

// checkWatch requires that the watcher has seen the records that were submitted,
// in order, each once, and under SyncAlways all of them.
func (m *machine) checkWatch() {
	if m.db == nil {
		return
	}
	w := &m.watch
	w.Lock()
	defer w.Unlock()
	if m.policy != annals.SyncAlways && errors.Is(w.err, annals.ErrCompacted) {
		w.err = nil // compaction has taken what became durable only in its own course
	}
	m.expect(w.err == nil, "the watcher ends: %v", w.err)
	want := m.records[w.from:]
	m.expect(len(w.got) <= len(want), "the watcher has seen %d records of %d", len(w.got), len(want))
	for i, got := range w.got {
		differs := want[i].differs(got)
		m.expect(differs == "", "the watcher has seen another record: %s", differs)
	}
	m.expect(m.policy != annals.SyncAlways || len(w.got) == m.states[m.floor].records-w.from, "the watcher has seen %d records, %d are acknowledged", len(w.got), m.states[m.floor].records-w.from)
	m.expect(len(w.got) == 0 || !w.got[len(w.got)-1].More, "the watcher has seen half a commit")
}

// end closes what a workload that failed has left open, so that nobody waits for it.
func (m *machine) end() {
	m.quiet = true
	if m.gate != nil && m.Failed() {
		select {
		case <-m.gate:
		default:
			close(m.gate)
		}
	}
	if m.db != nil {
		m.db.Close()
		m.stopWatch()
	}
}

// run does the steps of a sequence. A short one is judged in its last step only:
// shorter sequences cover the rest.
func (m *machine) run(names []string) {
	defer m.end()
	short := len(names) <= shortest
	m.quiet = short && len(names) > 1
	m.open()
	for i, name := range names {
		m.quiet = short && i < len(names)-1
		steps[name](m)
	}
	m.quiet = short && len(names) < shortest // for a sequence that goes on with reopen
	m.close()
	m.quiet = false
	m.fs.Hook(nil)
	m.expect(m.fs.OpenFiles() == 0, "%d files are left open", m.fs.OpenFiles())
	m.withoutManifest()
}

// withoutManifest takes MANIFEST away, which no crash does: segments without it
// are no new store.
func (m *machine) withoutManifest() {
	if m.submitted() == 0 {
		return
	}
	fs := m.fs.Clone()
	m.must(fs.Remove(storeDir + "/MANIFEST"))
	before := fs.Digest("LOCK")
	db, err := annals.Open(storeDir, m.options(fs, annals.SyncAlways))
	if err == nil {
		db.Close()
	}
	entries, lerr := fs.ReadDir(storeDir)
	m.must(lerr)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".log") {
			m.expect(err != nil, "segments without MANIFEST are taken for a new store")
			m.expect(before == fs.Digest("LOCK"), "a refused directory was changed")
			return
		}
	}
}
