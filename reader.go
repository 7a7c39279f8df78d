package annals

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"sync"
	"time"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// ReaderOptions tune a Reader. The zero value, and nil, mean the defaults.
type ReaderOptions struct {
	// FS is where the store lives. Default: replace.OS.
	FS replace.FS

	// Now is the wall clock. Default: time.Now.
	Now func() time.Time
}

// Reader reads a store without locking or changing it, and without the right to
// write. It shows what Open would accept at the moment of OpenReader, or of the
// last Refresh. It is safe for concurrent use.
type Reader struct {
	dir  string
	opts Options

	mu     sync.RWMutex
	state  *readerState
	closed chan struct{}
	shut   bool
}

// readerState is what one Refresh has read.
type readerState struct {
	*core
	manifest segment.Manifest
	verdict  segment.Verdict // of the open segment, if there is one
	openSize int64           // of its file, to see that it has grown
	report   RecoveryReport
}

// OpenReader opens the store in dir for reading. A store that was not closed is
// read as Open would recover it. Errors are those of Open; nothing is ever
// changed.
func OpenReader(dir string, opts *ReaderOptions) (*Reader, error) {
	var o Options
	if opts != nil {
		o.FS, o.Now = opts.FS, opts.Now
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	r := &Reader{dir: dir, opts: o, closed: make(chan struct{})}
	if r.state, err = r.load(); err != nil {
		return nil, err
	}
	return r, nil
}

// load reads the store. A writer may replace MANIFEST and remove segments in
// between: then it begins again.
func (r *Reader) load() (*readerState, error) {
	for tries := 1; ; tries++ {
		state, generation, err := r.loadOnce()
		if err == nil || tries == maxTries || errors.Is(err, ErrNotStore) {
			return state, err
		}
		if m, again := readManifest(r.opts.FS, r.dir); again != nil || m.Generation == generation {
			return nil, err
		}
	}
}

func (r *Reader) loadOnce() (_ *readerState, generation uint64, err error) {
	exists, err := storeExists(r.opts.FS, r.dir)
	if err == nil && !exists {
		err = errNoStore(r.dir)
	}
	if err != nil {
		return nil, 0, err
	}
	op := &opening{opts: r.opts, dir: r.dir}
	op.findIndex()
	if op.manifest, err = readManifest(r.opts.FS, r.dir); err != nil {
		return nil, 0, err
	}
	generation = op.manifest.Generation
	l, err := listDir(r.opts.FS, r.dir)
	if err == nil {
		err = op.judge(&l)
	}
	if err != nil {
		return nil, generation, err
	}
	state := &readerState{manifest: op.manifest}
	if op.manifest.Open != 0 {
		if err := op.examine(); err != nil {
			return nil, generation, err
		}
	}
	op.startClock()
	if err := op.replay(); err != nil {
		return nil, generation, err
	}
	if err := state.replayOpen(op); err != nil {
		op.closeFiles()
		return nil, generation, err
	}
	x, err := op.builder.Index()
	if err != nil {
		op.closeFiles()
		return nil, generation, err
	}
	state.core = &core{dir: r.dir, index: x, clock: op.clock, closed: r.closed, lost: op.lost, files: newFiles(op.files, func(*segmentFile) {})}
	for _, e := range op.damage {
		state.noteDamage(e)
	}
	op.report.Clean = op.manifest.Open == 0
	state.verdict, state.report = op.verdict, op.report
	return state, generation, nil
}

// replayOpen reads the good part of the open segment. It is synced first, through
// our own descriptor: what a killed writer left in the cache only might be gone
// after a power cut, and then nobody must have seen it.
func (st *readerState) replayOpen(op *opening) error {
	m := &op.manifest
	if m.Open == 0 {
		op.builder.Reached(m.Seq - 1)
		return nil
	}
	op.builder.Reached(op.verdict.Last)
	file, size, err := op.open(m.Open)
	if err != nil {
		return err
	}
	good := io.NewSectionReader(file, 0, op.verdict.End) // what lies behind it, the writer may cut off
	op.files = append(op.files, &segmentFile{number: m.Open, path: op.path(m.Open), ReaderAt: good, Closer: file})
	st.openSize = size
	if err := file.SyncData(); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	scan := segment.NewScanner(good, 0, good.Size())
	for scan.Scan() {
		if l := scan.Line(); l.Kind == segment.RecordLine && l.View.Seq <= op.verdict.Last {
			if err := op.add(m.Open, l, true); err != nil {
				return err
			}
		}
	}
	return scan.Err()
}

// now returns the present state.
func (r *Reader) now() *readerState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state
}

// Refresh shows what has been written since. Snapshots and loops that are under
// way keep what they have.
func (r *Reader) Refresh() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shut {
		return ErrClosed
	}
	if same, err := r.unchanged(); err != nil || same {
		return err
	}
	state, err := r.load()
	if err != nil {
		return err
	}
	old := r.state
	r.state = state
	return old.files.close()
}

// unchanged tells whether the store is as it was read.
func (r *Reader) unchanged() (bool, error) {
	m, err := readManifest(r.opts.FS, r.dir)
	if err != nil || m.Generation != r.state.manifest.Generation || m.Open == 0 {
		return err == nil && m.Generation == r.state.manifest.Generation, err
	}
	op := opening{opts: r.opts, dir: r.dir}
	file, size, err := op.open(m.Open)
	if err != nil {
		return false, nil // load says what is wrong
	}
	defer file.Close()
	verdict, err := segment.Examine(file, size, op.path(m.Open), m.Store, m.Open)
	return err == nil && verdict.Last == r.state.verdict.Last, nil
}

// Close ends all loops with ErrClosed. Closing twice does nothing.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shut {
		return nil
	}
	r.shut = true
	close(r.closed)
	return r.state.files.close()
}

// Get returns the value of a key, or ErrNotFound. The slice is the caller's.
func (r *Reader) Get(key string) ([]byte, error) {
	e, err := r.Lookup(key)
	return e.Value, err
}

// Lookup returns the value of a key with its sequence number and expiry, or
// ErrNotFound.
func (r *Reader) Lookup(key string) (Entry, error) {
	r.mu.RLock() // Refresh closes the files of the state that it replaces
	defer r.mu.RUnlock()
	return r.state.Lookup(key)
}

// Scan yields the keys of a range with their values, as Store.Scan does.
func (r *Reader) Scan(rg Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		s := r.Snapshot()
		defer s.Close()
		s.Scan(rg)(yield)
	}
}

// Samples yields the samples of a series in a window, as Store.Samples does.
func (r *Reader) Samples(series string, w Window) iter.Seq2[Sample, error] {
	return func(yield func(Sample, error) bool) {
		s := r.Snapshot()
		defer s.Close()
		s.Samples(series, w)(yield)
	}
}

// Series yields all series by name, as Store.Series does.
func (r *Reader) Series() iter.Seq2[SeriesInfo, error] {
	return func(yield func(SeriesInfo, error) bool) {
		s := r.Snapshot()
		defer s.Close()
		s.Series()(yield)
	}
}

// Snapshot returns the present state, which Refresh does not change.
func (r *Reader) Snapshot() *Snapshot {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.Snapshot()
}

// View calls fn with a snapshot and closes it. It returns fn's error.
func (r *Reader) View(fn func(*Snapshot) error) error {
	s := r.Snapshot()
	defer s.Close()
	return fn(s)
}

// Stats describes the store as it was read. What a store counts since Open is 0.
func (r *Reader) Stats() Stats {
	state := r.now()
	st := state.core.stats(state.manifest)
	if m, v := &state.manifest, &state.verdict; m.Open != 0 {
		st.add(state.core, SegmentStats{Segment: m.Open, First: v.Header.First, Last: v.Last, Records: v.Records, Open: true},
			func() int64 { return state.openSize })
	}
	st.Recovery = state.report
	return st
}

// Backup makes directory dir a copy of the store, as Store.Backup does.
func (r *Reader) Backup(ctx context.Context, dir string) error {
	r.mu.RLock()
	state := r.state
	v := state.files.acquire()
	r.mu.RUnlock()
	if v == nil {
		return ErrClosed
	}
	defer v.release()
	m := state.manifest
	m.Sealed = append([]segment.Footer(nil), m.Sealed...)
	m.Seq = max(m.Seq, state.verdict.MaxSeq+1)
	m.Clock = state.clock.now()
	b := backup{fs: r.opts.FS, version: v, manifest: m, last: state.verdict.Last}
	return b.run(ctx, dir)
}

// pollEvery is how often Watch looks for news.
const pollEvery = 100 * time.Millisecond

// Watch yields every record from number from on, as Store.Watch does, and goes on
// with what another process writes. It refreshes the reader.
func (r *Reader) Watch(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		next := from
		for first := true; ; first = false {
			err := r.pass(ctx, &next, first, yield)
			if err == errStopped {
				return
			}
			if err == nil {
				err = r.news(ctx)
			}
			if err != nil {
				yield(Record{}, err)
				return
			}
		}
	}
}

// errStopped says that the loop over a Watch was left.
var errStopped = errors.New("stopped")

// pass yields what the present state holds from next on.
func (r *Reader) pass(ctx context.Context, next *uint64, first bool, yield func(Record, error) bool) error {
	state := r.now()
	var news signal
	last := max(state.index.Last(), state.manifest.Seq-1)
	news.published.Store(last)
	history := func() uint64 { return state.manifest.History }
	w := watcher{core: state.core, news: &news, history: history, durable: func() uint64 { return last }, ctx: ctx, next: *next}
	if err := w.start(); err != nil && (first || !errors.Is(err, ErrAhead)) {
		return err
	}
	for w.next <= last {
		records, err := w.more()
		for _, rec := range records {
			if !yield(rec, nil) {
				return errStopped
			}
		}
		*next = max(*next, w.next)
		if err == ErrClosed && r.now() != state {
			return nil // somebody has refreshed the reader; news goes on from there
		}
		if err != nil {
			return err
		}
	}
	*next = max(*next, w.next)
	return nil
}

// news waits a moment and looks again.
func (r *Reader) news(ctx context.Context) error {
	select {
	case <-time.After(pollEvery):
		return r.Refresh()
	case <-r.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
