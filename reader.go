package annals

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/annalsdb/annals/replace"
)

// ReaderOptions tune a Reader. The zero value, and nil, mean the defaults.
type ReaderOptions struct {
	// Follow keeps the reader up to date in the background, within milliseconds of
	// what becomes durable, until Close. Default: false, it shows what was there at
	// OpenReader, and goes on at Refresh and while a Watch waits.
	Follow bool

	// SkipDamage reads on behind damage that OpenReader and Refresh would otherwise
	// refuse with a *CorruptError: lines of segments with keys that are bad, segments
	// that are missing. All of it is listed in Stats, and Watch and Samples tell it where
	// they meet it. Get and Scan then give the newest value that can be read, and can't
	// tell that a newer one was lost. Default: false.
	SkipDamage bool

	// FS is where the store lives. Default: replace.OS.
	FS replace.FS

	// Now is the wall clock. Default: time.Now.
	Now func() time.Time
}

// Reader reads a store without locking or changing it, and without the right to
// write, while another process may be writing it. It never holds up the writer.
//
// Beside a writer it shows what is durable and nothing else: under SyncEvery what
// was synced, under SyncNever what was written. Without one it shows what Open would
// accept, made durable first. (Where a writer can't be seen, because LOCK can't be read
// or the file system has no such locks, it always does the latter, and may then show what
// a writer has not yet acknowledged.) It goes on by Refresh, Watch or
// ReaderOptions.Follow, one whole commit after another; a Snapshot stays as it is, and
// keeps its segments when compaction has removed them. The writer may be killed and
// come again.
//
// It is safe for concurrent use.
type Reader struct {
	dir    string
	opts   Options
	skip   bool
	state  atomic.Pointer[readerState]
	news   signal // of what is shown, of failures and of closing
	failed atomic.Pointer[error]
	closed chan struct{}
	ended  atomic.Bool // before closed is

	mu       sync.Mutex       // held by a refresh
	lookout  lookout          // guarded by mu
	unsynced map[uint64]error // segments that could not be made durable; guarded by mu
	shut     bool             // guarded by mu

	follower follower
}

// OpenReader opens the store in dir for reading. A store that was not closed is
// read as Open would recover it. Errors are those of Open; nothing is ever
// changed.
func OpenReader(dir string, opts *ReaderOptions) (*Reader, error) {
	var o Options
	if opts == nil {
		opts = &ReaderOptions{}
	}
	o.FS, o.Now = opts.FS, opts.Now
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	r := &Reader{dir: dir, opts: o, skip: opts.SkipDamage, closed: make(chan struct{})}
	r.lookout = lookout{fs: o.FS, path: filepath.Join(dir, lockName)}
	state, err := r.load()
	if err != nil {
		r.lookout.close()
		return nil, err
	}
	r.state.Store(state)
	r.news.published.Store(state.shown.Load().last)
	if opts.Follow {
		r.followOn()
	}
	return r, nil
}

// now returns the present state.
func (r *Reader) now() *readerState { return r.state.Load() }

// Refresh shows what has become durable since. Snapshots and loops that are under
// way keep what they have. After an error the reader shows what it did, or later
// commits, and Refresh tries again. Damage is a *CorruptError: see
// ReaderOptions.SkipDamage.
func (r *Reader) Refresh() error {
	_, err := r.refresh()
	return err
}

func (r *Reader) refresh() (moved bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shut {
		return false, ErrClosed
	}
	st := r.now()
	moved, err = st.refresh(r)
	if errors.Is(err, errAnew) {
		moved, err = true, r.renew(st)
	}
	if err != nil {
		r.failed.Store(&err)
		r.news.broadcast()
	} else {
		r.failed.Store(nil)
	}
	if last := r.now().shown.Load().last; last != r.news.published.Load() {
		r.news.publish(last)
	}
	return moved, err
}

// renew reads the store anew, beside the state that readers have. The old one's files
// are closed when nobody reads them any more.
func (r *Reader) renew(old *readerState) error {
	state, err := r.load()
	if err != nil {
		return err
	}
	r.state.Store(state)
	return old.close()
}

// Close ends all loops with ErrClosed. Closing twice does nothing.
func (r *Reader) Close() error {
	r.mu.Lock()
	if r.shut {
		r.mu.Unlock()
		return nil
	}
	r.shut = true
	r.lookout.close()
	r.mu.Unlock()
	r.ended.Store(true)
	close(r.closed)
	r.news.broadcast()
	r.follower.end()
	return r.now().close()
}

// Get returns the value of a key, or ErrNotFound. The slice is the caller's.
func (r *Reader) Get(key string) ([]byte, error) {
	e, err := r.Lookup(key)
	return e.Value, err
}

// Lookup returns the value of a key with its sequence number and expiry, or
// ErrNotFound.
func (r *Reader) Lookup(key string) (Entry, error) {
	for {
		state := r.now()
		e, err := state.Lookup(key)
		if err == ErrClosed && r.now() != state {
			continue // it was read anew meanwhile
		}
		return e, err
	}
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
	for {
		state := r.now()
		s := state.Snapshot()
		if s.version == nil && r.now() != state {
			continue // it was read anew meanwhile
		}
		return s
	}
}

// View calls fn with a snapshot and closes it. It returns fn's error.
func (r *Reader) View(fn func(*Snapshot) error) error {
	s := r.Snapshot()
	defer s.Close()
	return fn(s)
}

// Stats describes the store as it is shown. What a store counts since Open is 0.
// Failed says why the last Refresh came to nothing.
func (r *Reader) Stats() Stats {
	state := r.now()
	now := state.shown.Load()
	st := state.core.stats(now.manifest)
	if g := now.open; g != nil {
		st.add(state.core, SegmentStats{Segment: g.number, First: g.first, Last: now.last, Records: now.records, Open: true}, g.size.Load)
	}
	st.Recovery = state.report
	if err := r.failed.Load(); err != nil {
		st.Failed = (*err).Error()
	}
	return st
}

// Backup makes directory dir a copy of the store as it is shown, as Store.Backup
// does.
func (r *Reader) Backup(ctx context.Context, dir string) error {
	b, err := r.backup()
	if err != nil {
		return err
	}
	defer b.version.release()
	return b.run(ctx, dir)
}

// backup holds all segments of what is shown.
func (r *Reader) backup() (*backup, error) {
	r.mu.Lock() // MANIFEST, segments and records are of one moment
	defer r.mu.Unlock()
	state := r.now()
	if r.shut {
		return nil, ErrClosed
	}
	v := state.files.acquire()
	if v == nil {
		return nil, ErrClosed
	}
	now := state.shown.Load()
	m := now.manifest
	m.Sealed = slices.Clone(m.Sealed)
	m.Seq = max(m.Seq, now.maxSeq+1)
	m.Clock = state.clock.now()
	b := &backup{fs: r.opts.FS, version: v, manifest: m, last: now.last}
	if !b.complete() {
		v.release()
		return nil, fmt.Errorf("annals: the last Refresh of the reader has failed, so there is no one state to copy: %s", r.Stats().Failed)
	}
	return b, nil
}
