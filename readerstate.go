package annals

import (
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"syscall"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
)

// readerState is a store as a Reader has read it, and goes on with it. Whoever reads
// takes core, which is made for that; all else belongs to the one refresh that runs.
type readerState struct {
	*core
	report RecoveryReport
	open   *growing // the open segment; nil if there is none
	sealed map[uint64]bool
	last   uint64 // no record above this was read
	maxSeq uint64 // the greatest number that was seen, in what a crash left behind too
	judged bool   // all that the open segment proves is read, and nobody writes to it
	skip   bool   // ReaderOptions.SkipDamage
	broken bool   // it can't go on: it must be read anew
	fresh  int    // changes that its index had when it was made

	shown atomic.Pointer[shown]
}

// shown is what a state shows, for those who don't refresh.
type shown struct {
	manifest segment.Manifest
	last     uint64 // no record above this is shown
	maxSeq   uint64 // no greater number was seen in the open segment
	open     *growing
	records  uint64 // of it that are shown
}

// show publishes what has been read.
func (st *readerState) show(m *segment.Manifest) {
	s := &shown{manifest: *m, last: st.last, maxSeq: max(st.last, st.maxSeq), open: st.open}
	if st.open != nil {
		s.records = st.open.records
	}
	st.shown.Store(s)
}

// load reads the store. A writer may replace MANIFEST and remove segments in
// between: then it begins again.
func (r *Reader) load() (*readerState, error) {
	for tries := 1; ; tries++ {
		state, generation, err := r.loadOnce()
		if err == nil || tries == maxLooks || errors.Is(err, ErrNotStore) {
			return state, err
		}
		if m, again := readManifest(r.opts.FS, r.dir); again != nil || m.Generation == generation {
			return nil, err
		}
	}
}

// readManifest reads MANIFEST and then looks what may be shown of it.
func (r *Reader) readManifest() (m segment.Manifest, s glimpse, err error) {
	for range maxLooks {
		if m, err = readManifest(r.opts.FS, r.dir); err != nil {
			return m, s, err
		}
		if s = r.lookout.look(); s.generation <= m.Generation {
			return m, s, nil
		}
	}
	return m, s, errors.New("annals: the writer replaces MANIFEST faster than it can be read")
}

// maxLooks is how often a reader begins again because a writer has changed MANIFEST in
// between, and how often MANIFEST is read until it is not older than what the writer
// says of it. It needs a few milliseconds to replace it.
const maxLooks = 100

func (r *Reader) loadOnce() (_ *readerState, generation uint64, err error) {
	exists, err := storeExists(r.opts.FS, r.dir)
	if err == nil && !exists {
		err = errNoStore(r.dir)
	}
	if err != nil {
		return nil, 0, err
	}
	op := &opening{opts: r.opts, dir: r.dir, skip: r.skip}
	op.findIndex()
	var s glimpse
	if op.manifest, s, err = r.readManifest(); err != nil {
		return nil, 0, err
	}
	generation = op.manifest.Generation
	state := &readerState{judged: s.writer == writerGone, skip: r.skip}
	m := op.manifest
	if s.writer == writerServes {
		op.verdict.Last = max(s.visible, m.Seq-1) // what lies in sealed segments is durable
	} else if err := op.judgeAll(); err != nil {
		return nil, generation, err
	} else if err := r.hardenNames(); err != nil {
		return nil, generation, err
	}
	op.startClock()
	missing := op.hold()
	defer op.letGo()
	if missing != nil { // at once, not when its turn comes: a writer that compacts all the time would be faster
		if now, err := readManifest(r.opts.FS, r.dir); err != nil || now.Generation != generation {
			return nil, generation, missing
		}
	}
	if err := op.replay(); err != nil {
		return nil, generation, err
	}
	last := op.verdict.Last
	if m.Open == 0 {
		last = m.Seq - 1
	}
	if err := state.replayOpen(r, op, s.writer == writerServes); err != nil {
		op.closeFiles()
		return nil, generation, err
	}
	op.builder.Reached(last)
	x, err := op.builder.Index()
	if err != nil {
		op.closeFiles()
		return nil, generation, err
	}
	state.core = &core{dir: r.dir, index: x, clock: op.clock, closed: r.closed, ended: &r.ended, lost: op.lost, files: newFiles(op.files, func(*segmentFile) {})}
	for _, e := range op.damage {
		state.noteDamage(e)
	}
	op.report.Clean = m.Open == 0
	state.report = op.report
	state.fresh, _ = x.Changes()
	state.sealed = map[uint64]bool{}
	for i := range m.Sealed {
		state.sealed[m.Sealed[i].Segment] = true
	}
	state.last, state.maxSeq = last, op.verdict.MaxSeq
	state.show(&m)
	return state, generation, nil
}

// judgeAll does what Open does before it reads: nobody else is at work, or nobody can
// tell.
func (o *opening) judgeAll() error {
	l, err := listDir(o.fs(), o.dir)
	if err == nil {
		err = o.judge(&l)
	}
	if err != nil || o.manifest.Open == 0 {
		return err
	}
	err = o.examine()
	if damage := (*CorruptError)(nil); o.skip && errors.As(err, &damage) && damage.LastSeq >= o.manifest.Seq {
		o.damage = append(o.damage, damage)
		o.verdict = segment.Verdict{Last: damage.LastSeq, MaxSeq: damage.LastSeq} // that much had been durable
		err = nil
	}
	return err
}

// replayOpen reads the good part of the open segment. Without a writer it is synced
// first, through our own descriptor: what a killed one left in the cache only might be
// gone after a power cut, and then nobody must have seen it.
func (st *readerState) replayOpen(r *Reader, op *opening, served bool) error {
	if op.manifest.Open == 0 {
		return nil
	}
	g, err := op.openGrowing()
	if err != nil {
		return err
	}
	st.open = g
	op.files = append(op.files, &segmentFile{number: g.number, path: g.path, ReaderAt: g, Closer: g})
	if !served {
		if err := r.harden(g); err != nil {
			return err
		}
	}
	pass := func(e *CorruptError) { op.damage = append(op.damage, e) }
	if !op.skip {
		pass = nil
	}
	if op.verdict.Last < g.first {
		return nil
	}
	feed := feed{to: op, segment: g.number, inOrder: true}
	err = g.read(op.verdict.Last, func(l *segment.Line) { _ = feed.add(l) }, pass)
	feed.end()
	if err == nil {
		op.clock.raise(g.clock)
	}
	return err
}

// harden makes what can be read of a segment durable. Once that has failed it is never
// tried again: the kernel tells of a lost write once, and a sync behind that finds
// nothing to do. What the segment holds is for the next writer to copy.
func (r *Reader) harden(g *growing) error {
	if err := r.unsynced[g.number]; err != nil {
		return err
	}
	err := onlyRead(g.SyncData())
	if err != nil {
		err = fmt.Errorf("annals: %q could not be made durable, so its end is not shown before a writer has recovered it: %w", g.path, err)
		if r.unsynced == nil {
			r.unsynced = map[uint64]error{}
		}
		r.unsynced[g.number] = err
	}
	return err
}

// hardenNames makes MANIFEST durable as it was read. Where the writer was killed that
// replaced it, or is not done yet, a power cut could bring the one before back: that of
// a recovery would take the copy away whose records we have shown.
func (r *Reader) hardenNames() error { return onlyRead(r.opts.FS.SyncDir(r.dir)) }

// onlyRead forgives that a sync is not for us: we have no right to it, or the file system
// is one that is only read and has no syncs. Then we show what is there. Not so EROFS: a
// file system says that which has failed and takes no more.
func onlyRead(err error) error {
	for _, fine := range []error{fs.ErrPermission, errors.ErrUnsupported, syscall.EINVAL} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	return err
}

// refresh brings the state up to date with the store, and tells whether anything has
// changed. It returns errAnew if the state must be read anew.
func (st *readerState) refresh(r *Reader) (moved bool, err error) {
	was := st.shown.Load()
	if changes, _ := st.index.Changes(); st.broken || changes-st.fresh > max(manyChanges, 2*st.index.Len()) {
		return true, errAnew
	}
	s := r.lookout.look()
	if s.writer == writerServes && s.generation == was.manifest.Generation {
		return st.extend(&was.manifest, s.visible)
	}
	m, s, err := r.readManifest()
	if err != nil {
		return false, err
	}
	switch {
	case s.writer == writerUnknown:
		return r.unchanged(st, &m)
	case m.Store != was.manifest.Store || m.Generation < was.manifest.Generation:
		return false, errAnew
	case m.Generation != was.manifest.Generation:
		err := st.advance(r, &m, s)
		st.broken = err != nil
		return true, err
	case s.writer == writerServes:
		return st.extend(&m, s.visible)
	}
	return st.judge(r, &m)
}

// manyChanges is how many may come, at the least, until a reader begins anew: its
// index takes memory for each of them, and INDEX, which the writer saves now and then,
// for none.
const manyChanges = 1 << 20

// errAnew says that a state can't be brought up to date and must be read anew.
var errAnew = errors.New("annals: to be read anew")

// extend shows the records of the open segment up to a number.
func (st *readerState) extend(m *segment.Manifest, last uint64) (moved bool, err error) {
	if last <= st.last {
		return false, nil
	}
	if st.open == nil {
		return false, errAnew
	}
	err = st.take(last)
	st.show(m)
	return true, err
}

// take takes the next records of the open segment into the index, commit by commit.
func (st *readerState) take(last uint64) error {
	g := st.open
	var list []index.Change
	whole := 0
	apply := func(n int) {
		if n > 0 {
			st.index.Apply(list[:n])
		}
		list, whole = list[:0], 0
	}
	var pass func(*CorruptError)
	if st.skip {
		pass = st.noteDamage
	}
	err := g.read(last, func(l *segment.Line) {
		list = append(list, change(&l.View, g.number, l.Offset, int(l.Size)))
		if !l.View.More {
			if whole = len(list); whole >= applyAtOnce {
				apply(whole)
			}
		}
	}, pass)
	apply(whole)
	st.last = max(st.last, g.next-1)
	st.clock.raise(g.clock)
	if damage := (*CorruptError)(nil); errors.As(err, &damage) {
		st.noteDamage(damage)
	}
	return err
}

// judge looks at the open segment that a writer has left.
func (st *readerState) judge(r *Reader, m *segment.Manifest) (moved bool, err error) {
	if st.open == nil || st.judged {
		return false, nil
	}
	v, err := examineBesideWriter(st.open.File, st.open.path, m.Store, st.open.number)
	if err != nil {
		return false, err
	}
	if v.Last < st.last {
		return false, errAnew
	}
	if err := r.harden(st.open); err != nil {
		return false, err
	}
	st.clock.raise(v.Clock)
	moved, err = st.extend(m, v.Last)
	if err == nil {
		st.judged = true
		st.maxSeq = max(st.maxSeq, v.MaxSeq)
		st.show(m)
	}
	return moved, err
}

// unchanged tells, where nothing is known of a writer, whether the store is as it was
// read.
func (r *Reader) unchanged(st *readerState, m *segment.Manifest) (moved bool, err error) {
	was := st.shown.Load()
	if m.Generation != was.manifest.Generation {
		return true, errAnew
	}
	if m.Open == 0 {
		return false, nil
	}
	op := opening{opts: r.opts, dir: r.dir}
	file, _, err := op.open(m.Open)
	if err != nil {
		return true, errAnew // load says what is wrong
	}
	defer file.Close()
	v, err := examineBesideWriter(file, op.path(m.Open), m.Store, m.Open)
	if err != nil || v.Last != was.last {
		return true, errAnew
	}
	return false, nil
}

// close lets go of the files.
func (st *readerState) close() error { return st.files.close() }
