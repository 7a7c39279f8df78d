package annals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/annalsdb/annals/compact"
	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// compaction is the store's background work. One job runs at a time.
type compaction struct {
	job sync.Mutex // held by the job that runs

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wakeup chan struct{}
	done   chan struct{}

	mu    sync.Mutex
	stats CompactionStats

	brake brake

	retention *retention
}

const (
	compactEvery = time.Minute // how often to look without being woken: records expire by themselves
	maxLiveBytes = 16 << 20    // of memory, on each core, for what is alive in a job's inputs: 4 GiB of them
	moveSlice    = 100         // index entries moved at a time, so that readers wait for microseconds only
)

func (s *Store) startCompaction() {
	c := &s.compaction
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wakeup, c.done = make(chan struct{}, 1), make(chan struct{})
	if s.opts.Compaction.Off {
		close(c.done)
		return
	}
	c.wake()
	go s.compactInBackground()
}

func (c *compaction) wake() {
	select {
	case c.wakeup <- struct{}{}:
	default: // it will look anyway
	}
}

func (s *Store) stopCompaction() {
	s.compaction.cancel()
	<-s.compaction.done
	s.compaction.job.Lock() // a Compact by hand ends too
	defer s.compaction.job.Unlock()
}

// compactInBackground rewrites what is worth it, whenever a segment was sealed or
// much was written, when writing ends, and once a minute. After damage it stops for
// good, so that a person can look.
func (s *Store) compactInBackground() {
	c := &s.compaction
	defer close(c.done)
	defer c.brake.release()
	tick := time.NewTicker(compactEvery)
	defer tick.Stop()
	rested := uint64(0)
	for {
		rest, closed := s.resting(tick.C, &rested)
		if closed {
			return
		}
		for {
			done, err := s.compactNext(rest)
			if done {
				break
			}
			if errors.Is(err, ErrCorrupt) || s.log.Failure() != nil {
				return
			}
			if err != nil {
				break // no room, perhaps: again when woken
			}
		}
		c.brake.release()
	}
}

// compactNext runs the job that is worth most, if there is one.
func (s *Store) compactNext(rest bool) (done bool, err error) {
	c := &s.compaction
	c.job.Lock()
	defer c.job.Unlock()
	atRate := throttle(func() float64 { return float64(s.opts.Compaction.Rate) })
	if _, err := s.retain(c.ctx, atRate, false); err != nil {
		return false, err
	}
	b := s.balance()
	p := s.cleaning(b, rest)
	stats := s.segmentStats()
	inputs := compact.Pick(stats, p)
	if len(inputs) == 0 {
		ended, err := s.endOpenSegment(c.ctx, b, p, rest)
		return !ended, err
	}
	reserve := liveOf(stats, inputs)
	_, err = s.compactLocked(c.ctx, inputs, throttle(func() float64 { return s.adjust(reserve) }), false)
	return false, err
}

func (s *Store) policy() compact.Policy {
	return compact.Policy{MinLive: s.opts.Compaction.MinLive, SegmentSize: s.opts.SegmentSize, KeepFrom: s.keepFrom()}
}

// keepFrom is the number from which on Options.History keeps segments as they are.
func (s *Store) keepFrom() uint64 {
	if s.opts.History == 0 {
		return math.MaxUint64
	}
	last := s.index.Last()
	return last - min(last, uint64(s.opts.History)) + 1
}

// segmentStats describes the sealed segments to Pick.
func (s *Store) segmentStats() (stats []compact.Stat) {
	now := s.clock.trusted(s.opts.Compaction.Grace)
	v := s.files.acquire()
	if v == nil {
		return nil
	}
	defer v.release()
	retirable := s.compaction.retention.garbage()
	m := s.manifest.copy()
	for i := range m.Sealed {
		f := &m.Sealed[i]
		file := v.byID[f.Segment]
		if file == nil {
			continue // sealed or replaced just now
		}
		u := s.index.Usage(f.Segment)
		stat := compact.Stat{
			Segment: f.Segment, First: f.First, Last: f.Last, Bytes: f.Bytes - file.header,
			Live: u.Entries + u.Samples - min(retirable[f.Segment], u.Samples), Held: u.Tombstones,
		}
		if u.Expiring > 0 && u.LatestExpiry+s.opts.Compaction.Grace.Microseconds() < now {
			stat.Live -= u.Expiring
			stat.Held += u.Expiring
		}
		stats = append(stats, stat)
	}
	return stats
}

// Compact rewrites all segments at once, the one being written included, so that
// only what is alive is left, in the order of keys. Samples that may go by
// Options.Retention do. What Options.History keeps is left alone. It goes on beside reads and writes; ctx stops it, with nothing
// changed. progress, if not nil, is called now and then with bytes.
func (s *Store) Compact(ctx context.Context, progress func(done, total int64)) (CompactStats, error) {
	s.compaction.job.Lock()
	defer s.compaction.job.Unlock()
	if s.compaction.ctx.Err() != nil {
		return CompactStats{}, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return CompactStats{}, err
	}
	if err := s.log.Rotate(ctx); err != nil {
		return CompactStats{}, err
	}
	unlinked, err := s.retain(ctx, func(ctx context.Context, _ int) error { return cmp.Or(ctx.Err(), s.compaction.ctx.Err()) }, true)
	if err != nil && s.compaction.ctx.Err() != nil {
		return unlinked, ErrClosed
	}
	if err != nil {
		return unlinked, err
	}
	v := s.files.acquire()
	if v == nil {
		return CompactStats{}, ErrClosed
	}
	inputs, total, settled := s.all(v)
	v.release() // that the inputs are removed when the job is done
	if settled {
		return unlinked, nil
	}
	stats, err := s.compactLocked(ctx, inputs, pace(4*total, progress), true)
	return stats.and(unlinked), err
}

// all returns the sealed segments that may be rewritten, how many bytes they have, and
// whether that would change nothing.
func (s *Store) all(v *version) (inputs []uint64, total int64, settled bool) {
	retirable := s.compaction.retention.garbage()
	settled = true
	m := s.manifest.copy()
	for i := range m.Sealed {
		if f := &m.Sealed[i]; f.Last < s.keepFrom() {
			inputs = append(inputs, f.Segment)
			total += f.Bytes
			settled = settled && s.settled(v, f) && retirable[f.Segment] == 0
		}
	}
	return inputs, total, settled
}

// pace reports progress: bytes are read, copied, read again and moved.
func pace(total int64, progress func(done, total int64)) func(context.Context, int) error {
	const slice = 1 << 20
	done, told := int64(0), int64(0)
	return func(ctx context.Context, n int) error {
		done += int64(n)
		if progress != nil && done-told >= slice {
			told = done
			progress(min(done, total), total)
		}
		return nil
	}
}

// settled tells whether a segment is an output of compaction in which nothing has
// died since, or will by itself.
func (s *Store) settled(v *version, f *segment.Footer) bool {
	file := v.byID[f.Segment]
	u := s.index.Usage(f.Segment)
	return file != nil && file.compacted && u.Expiring == 0 && u.Entries+u.Samples == f.Bytes-file.header
}

// compactLocked runs one job, from its inputs to a store that does not need them.
func (s *Store) compactLocked(ctx context.Context, inputs []uint64, pace func(context.Context, int) error, flatOut bool) (stats CompactStats, err error) {
	c := &s.compaction
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()

	c.note(func(st *CompactionStats) { st.Running = true })
	defer func() {
		c.note(func(st *CompactionStats) { st.add(stats, err) })
		s.logCompaction(stats, err)
		s.checkpoints.note(int(stats.Kept), s.opts.noteEvery()) // once the inputs are removed, which takes the processors too
	}()
	v := s.files.acquire()
	if v == nil {
		return stats, ErrClosed
	}
	defer v.release()
	var lost atomic.Pointer[error]
	gone := &retiring{gone: map[string]index.Gone{}}
	moves := s.beginMoves(inputs, flatOut)
	if moves != nil {
		defer moves.End()
	}
	job, footers, err := s.plan(v, inputs, flatOut, &lost, gone)
	if err != nil || len(footers) == 0 {
		return stats, err
	}
	copied := &copies{index: s.index, moves: moves}
	job.Pace, job.Parallel, job.Samples = pace, flatOut, copied.of
	if moves != nil {
		job.Keys = copied.keysOf
	}
	result, err := compact.Run(ctx, job)
	if err != nil {
		if c.ctx.Err() != nil {
			return stats, ErrClosed
		}
		if damage := (*CorruptError)(nil); errors.As(err, &damage) {
			s.noteDamage(damage)
		}
		if unsynced := (*replace.SyncError)(nil); errors.As(err, &unsynced) {
			s.log.Fail(err)
		}
		return stats, err
	}
	if err := lost.Load(); err != nil {
		return stats, s.abandon(result, nil, *err)
	}
	stats = statsOf(footers, result)
	stats.Retired, stats.RetiredBytes = gone.sum()
	return stats, s.adopt(ctx, footers, result, copied, gone.gone, pace)
}

// plan makes a job of the inputs that are still there.
func (s *Store) plan(v *version, inputs []uint64, flatOut bool, lost *atomic.Pointer[error], gone *retiring) (*compact.Job, []segment.Footer, error) {
	m := s.manifest.copy()
	slices.SortFunc(m.Sealed, func(a, b segment.Footer) int { return int(int64(a.First) - int64(b.First)) })
	job := &compact.Job{
		FS: s.opts.FS, Dir: s.dir, Store: m.Store, SegmentSize: s.opts.SegmentSize,
		NewSegment: (*host)(s).NewSegment,
	}
	outside := uint64(math.MaxUint64) // the least seq outside the inputs
	var footers []segment.Footer
	apart := false
	for i := range m.Sealed {
		f := &m.Sealed[i]
		if !slices.Contains(inputs, f.Segment) {
			outside = min(outside, f.First)
			apart = apart || s.index.Usage(f.Segment).Samples > 0
			continue
		}
		file := v.byID[f.Segment]
		if file == nil {
			return nil, nil, fmt.Errorf("annals: segment %d is gone", f.Segment)
		}
		job.Inputs = append(job.Inputs, compact.Input{Footer: *f, Path: file.path, R: file, Mapped: file.part(0, int(f.Size())), Apart: apart})
		footers = append(footers, *f)
		apart = false
	}
	live, err := s.live(footers, flatOut)
	if err != nil {
		return nil, nil, err
	}
	job.Judge = s.judge(outside, live, lost, gone)
	return job, footers, nil
}

// live finds out at once which lines of the inputs are alive, if that costs less than
// to look each of them up.
func (s *Store) live(inputs []segment.Footer, flatOut bool) (*index.Live, error) {
	sizes, bytes := map[uint64]int64{}, int64(0)
	for i := range inputs {
		sizes[inputs[i].Segment] = inputs[i].Bytes
		bytes += inputs[i].Bytes
	}
	if !flatOut || index.LiveBytes(bytes) > maxLiveBytes || s.checkpoints.isAstray() {
		return nil, nil
	}
	live, err := s.index.Live(sizes, flatOut)
	return live, s.indexError(err)
}

// judge returns what becomes of a record. A tombstone, or a key that expired, may
// go only when no segment outside the inputs can hold an older record of the key:
// none begins below its number. lost is set if the index can't tell: then the job
// must come to nothing. A sample goes if Options.Retention says so, and gone counts it.
// Lines are judged by several goroutines.
//
// Of puts live knows which were alive when the job began, or it is nil and each is
// looked up. Either may be late by what is put meanwhile: then a line is copied that is
// dead by now. A line that is dead stays so.
func (s *Store) judge(outside uint64, live *index.Live, lost *atomic.Pointer[error], gone *retiring) func(uint64, *segment.Line) compact.Verdict {
	grace := s.opts.Compaction.Grace.Microseconds()
	now := s.clock.trusted(s.opts.Compaction.Grace)
	mayGo := s.compaction.retention.judge(now)
	newest := func(v *segment.View) (seq uint64, err error) { // of the key's entry; 0: it has none
		e, _, err := s.index.Get(v.Name())
		if err != nil {
			err = s.indexError(err)
			lost.Store(&err)
		}
		return e.Seq, err
	}
	return func(input uint64, l *segment.Line) compact.Verdict {
		v := &l.View
		oldest := v.Seq <= outside
		switch v.Kind {
		case segment.Sample:
			if name := v.Name(); mayGo(v, name) {
				gone.add(name, l.Size)
				return compact.Drop
			}
			return compact.Keep
		case segment.Delete:
			if oldest {
				return compact.Drop
			}
			if seq, err := newest(v); err == nil && seq > v.Seq {
				return compact.Drop
			}
			return compact.Keep
		}
		if live != nil {
			if !live.Has(input, l.Offset) {
				return compact.Drop
			}
		} else if seq, err := newest(v); err == nil && seq != v.Seq {
			return compact.Drop
		}
		if v.Expires != 0 && oldest && v.Expires+grace < now {
			return compact.Expire
		}
		return compact.Keep
	}
}

// adopt puts the outputs in the place of the inputs: steps 5 to 8 of package
// compact.
func (s *Store) adopt(ctx context.Context, footers []segment.Footer, result *compact.Result, copied *copies, gone map[string]index.Gone, pace func(context.Context, int) error) error {
	var inputs []uint64
	for i := range footers {
		inputs = append(inputs, footers[i].Segment)
	}
	outputs, err := s.openOutputs(result)
	if err == nil {
		_, err = s.log.Sync(ctx) // 5
	}
	var retired *index.Retirement
	if len(gone) > 0 {
		retired = &index.Retirement{Inputs: inputs, Gone: gone}
	}
	if err == nil {
		err = s.saveRetirement(ctx, retired)
	}
	s.checkpoints.adopt.Lock()
	defer s.checkpoints.adopt.Unlock()
	if err == nil {
		err = s.manifest.change(s, func(m *segment.Manifest) { // 6
			m.Sealed = slices.DeleteFunc(m.Sealed, func(f segment.Footer) bool { return slices.Contains(inputs, f.Segment) })
			for i := range result.Outputs {
				m.Sealed = insertFooter(m.Sealed, result.Outputs[i].Footer)
			}
			for i := range footers {
				m.History = max(m.History, footers[i].Last+1)
			}
		})
	}
	if err != nil {
		s.index.Retiring(nil)
		return s.abandon(result, outputs, err)
	}
	s.files.add(outputs...)
	err = s.moveEntries(inputs, result, outputs, copied, func(n int) { _ = pace(ctx, n) }) // 7
	if retired != nil {
		s.index.Retired(retired)
	}
	s.compaction.retention.forget(inputs)
	if err != nil {
		// The index points to inputs still, which stay readable. The outputs hold the
		// same records, so the next compaction of them moves what is left. Until the
		// store is opened again the index must not be saved: it knows too little of them.
		s.checkpoints.astray = true
		return s.indexError(err)
	}
	s.files.retire(inputs) // 8
	return nil
}

// openOutputs opens the outputs for reading.
func (s *Store) openOutputs(result *compact.Result) (files []*segmentFile, err error) {
	op := opening{opts: s.opts, dir: s.dir}
	for i := range result.Outputs {
		number := result.Outputs[i].Footer.Segment
		file, size, err := op.open(number)
		if err != nil {
			return files, err
		}
		header := int64(len(result.Outputs[i].Header.AppendLine(nil)))
		f := &segmentFile{number: number, path: op.path(number), header: header, compacted: true, ReaderAt: file, Closer: file}
		f.mapFile(file, size)
		files = append(files, f)
	}
	return files, nil
}

// abandon removes the outputs of a job that did not reach MANIFEST. If it is not
// known whether it did, because a sync failed, they stay, and the store takes no
// more writes.
func (s *Store) abandon(result *compact.Result, outputs []*segmentFile, err error) error {
	for _, f := range outputs {
		err = errors.Join(err, f.Close())
	}
	if unsynced := (*replace.SyncError)(nil); errors.As(err, &unsynced) {
		s.log.Fail(err)
		return err
	}
	for i := range result.Outputs {
		path := filepath.Join(s.dir, segment.Name(result.Outputs[i].Footer.Segment))
		err = errors.Join(err, s.opts.FS.Remove(path))
	}
	return err
}

// moveEntries points the index to the outputs, while inputs and outputs are open: all at
// once, if the moves were made beside it, or in small slices. Then the keys are read from
// the outputs once more: in memory there may be too many.
func (s *Store) moveEntries(inputs []uint64, result *compact.Result, outputs []*segmentFile, copied *copies, pace func(int)) (err error) {
	var keys []uint64 // the outputs that hold them
	for i := range result.Outputs {
		out := &result.Outputs[i]
		if out.Header.Order != segment.ByKey {
			continue
		}
		if keys = append(keys, out.Footer.Segment); copied.moves == nil {
			err = errors.Join(err, s.moveKeys(outputs[i], out.Footer.Bytes, pace))
		}
	}
	if copied.moves != nil {
		copied.moves.Adopt(keys)
	}
	for slice := range slices.Chunk(result.Expired, moveSlice) {
		list := make([]index.Change, len(slice))
		for i, dead := range slice {
			list[i] = index.Change{Op: index.Put, Name: dead.Name, Seq: dead.Seq}
		}
		err = errors.Join(err, s.index.Drop(list))
	}
	s.index.Replace(inputs, copied.samples) // samples are in the outputs, whatever became of keys
	return err
}

// moveKeys points the index to the keys of one output.
func (c *core) moveKeys(f *segmentFile, end int64, pace func(int)) error {
	var list []index.Change
	var names []byte
	var err error
	bytes := 0
	move := func() {
		all := string(names) // one allocation for all names
		for i := range list {
			n := int(list[i].At) // the length, until now
			list[i].Name, list[i].At, all = all[:n], 0, all[n:]
		}
		err = errors.Join(err, c.index.Move(list))
		list, names = list[:0], names[:0]
	}
	scan := segment.NewScanner(f, f.header, end)
	for scan.Scan() {
		l := scan.Line()
		if l.Kind != segment.RecordLine {
			return &CorruptError{Path: f.path, Offset: l.Offset, Reason: "the line that was written here is bad"}
		}
		before, op := len(names), index.Put
		if l.View.Kind == segment.Delete {
			op = index.Delete
		}
		names = l.View.AppendName(names)
		list = append(list, index.Change{
			Op: op, Seq: l.View.Seq, Expires: l.View.Expires, At: int64(len(names) - before),
			Pos: index.Pos{Segment: f.number, Offset: uint32(l.Offset), Len: uint32(l.Size)},
		})
		bytes += int(l.Size)
		if len(list) == moveSlice {
			move()
			pace(bytes) // its error comes too late
			bytes = 0
		}
	}
	move()
	return errors.Join(err, scan.Err())
}

// beginMoves begins what the index takes in at once when the job is done, if it is flat
// out. In the background there may be many small jobs between two checkpoints, and each
// would leave a level in the index.
func (s *Store) beginMoves(inputs []uint64, flatOut bool) *index.Moves {
	if !flatOut {
		return nil
	}
	keys := int64(0)
	for _, n := range inputs {
		keys += s.index.Usage(n).Keys
	}
	return s.index.NewMoves(int(keys))
}

// copies notes what a job has copied, as the index takes it.
type copies struct {
	index *index.Index
	moves *index.Moves // of keys; nil: they are moved one by one

	mu      sync.Mutex
	samples []*index.Stretch
}

// of returns what is called with each sample of an output.
func (c *copies) of(output uint64) (add func(series []byte, l *segment.Line), done func()) {
	t := c.index.NewStretch(output)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.samples = append(c.samples, t)
	return func(series []byte, l *segment.Line) {
		t.Add(series, l.View.Seq, l.View.At, uint32(l.Offset), uint32(l.Size))
	}, t.Done
}

// keysOf returns what is called with each key of an output.
func (c *copies) keysOf(output uint64) (add func(key []byte, l *segment.Line), done func()) {
	t := c.moves.Output(output)
	return func(key []byte, l *segment.Line) {
		e := index.Entry{Seq: l.View.Seq, Expires: l.View.Expires, Pos: index.Pos{Offset: uint32(l.Offset), Len: uint32(l.Size)}}
		t.Add(key, l.View.Kind == segment.Delete, e)
	}, t.Done
}

func statsOf(inputs []segment.Footer, result *compact.Result) CompactStats {
	st := CompactStats{Inputs: len(inputs), Outputs: len(result.Outputs), Kept: result.Kept, Dropped: result.Dropped}
	for i := range inputs {
		st.Before += inputs[i].Size()
	}
	for i := range result.Outputs {
		st.After += result.Outputs[i].Footer.Size()
	}
	return st
}

// and adds up two jobs.
func (st CompactStats) and(other CompactStats) CompactStats {
	st.Inputs += other.Inputs
	st.Outputs += other.Outputs
	st.Before += other.Before
	st.After += other.After
	st.Kept += other.Kept
	st.Dropped += other.Dropped
	st.Retired += other.Retired
	st.RetiredBytes += other.RetiredBytes
	st.Unlinked += other.Unlinked
	return st
}

func (c *compaction) note(edit func(*CompactionStats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	edit(&c.stats)
}

func (st *CompactionStats) add(job CompactStats, err error) {
	st.Running = false
	if err != nil {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
			st.LastError = err.Error()
		}
		return
	}
	st.Runs++
	st.Read += job.Before
	st.Written += job.After
	st.Reclaimed += job.Before - job.After
	st.Retired += uint64(job.Retired)
	st.RetiredBytes += job.RetiredBytes
	st.Unlinked += uint64(job.Unlinked)
	st.LastError = ""
}

func (s *Store) logCompaction(stats CompactStats, err error) {
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed):
	case err != nil:
		s.opts.Logger.Warn("annals: compaction stopped, nothing was changed", "dir", s.dir, "err", err)
	default:
		s.opts.Logger.Info("annals: compacted", "dir", s.dir, "inputs", stats.Inputs, "outputs", stats.Outputs,
			"before", stats.Before, "after", stats.After, "dropped", stats.Dropped, "retired", stats.Retired)
	}
}
