package annals

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
	"github.com/annalsdb/annals/wal"
)

// Store is an open store: the one writer of its directory. It is safe for
// concurrent use.
//
// Locks, outermost first: submit, manifest.mu, the log's, pending, the files' and
// the index's. None but submit is held while anything waits for a sync, except
// manifest.mu for that of MANIFEST.
type Store struct {
	*core
	opts     Options
	id       string // of the store, in every header
	lock     *dirLock
	log      *wal.Log
	recovery RecoveryReport

	closing  sync.Once
	submit   sync.Mutex // held while a write is decided and queued, and while Update's function runs
	shut     bool       // no more writes; guarded by submit
	pending  pending    // records that are queued and not yet visible
	manifest manifestState
	news     signal // of published and of closing

	batches sync.Pool      // *Batch, empty: what one write needs, for the next
	changes []index.Change // Visible's, for the next call

	compaction  compaction
	checkpoints checkpoints
}

// Open opens the store in directory dir for writing, or makes a new one there if
// the directory is missing or empty. It fails at once, with ErrLocked, if another
// writer holds the store. After a crash it recovers what was acknowledged, without
// asking; Recovery says what it did. Damage to data known to be durable, where Open
// meets it, is a *CorruptError, and nothing is changed. What INDEX stands for is not
// read: damage there is found by the reads that need it, and by Verify.
func Open(dir string, opts *Options) (*Store, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	begun := time.Now()
	lock, err := prepareDir(dir, &o)
	if err != nil {
		return nil, err
	}
	op := &opening{opts: o, dir: dir}
	if err := op.look(); err != nil {
		return nil, errors.Join(err, lock.release())
	}
	if err := op.act(); err != nil {
		op.closeFiles()
		return nil, errors.Join(fmt.Errorf("annals: opening %q: %w", dir, err), lock.release())
	}
	op.builder.Reached(op.manifest.Seq - 1)
	if op.index, err = op.builder.Index(); err != nil {
		op.closeFiles()
		return nil, errors.Join(err, lock.release())
	}
	op.report.Took = time.Since(begun).Round(time.Microsecond).String()
	s := newStore(op, lock)
	for _, q := range s.recovery.Quarantined {
		o.Logger.Warn("annals: a torn tail was moved away", "path", q.Path, "segment", q.Segment, "offset", q.Offset, "bytes", q.Bytes, "reason", q.Reason)
	}
	o.Logger.Info("annals: opened", "dir", dir, "recovery", s.recovery.String(), "keys", s.index.Len())
	return s, nil
}

// prepareDir makes the directory if it is missing and takes its lock, touching
// nothing that is no store.
func prepareDir(dir string, o *Options) (*dirLock, error) {
	exists, err := storeExists(o.FS, dir)
	if err != nil {
		return nil, err
	}
	if !exists {
		if err := replace.MkdirAll(o.FS, dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	if err := refuseNetworkFS(dir, o); err != nil {
		return nil, err
	}
	if err := refuseExposed(dir, o); err != nil {
		return nil, err
	}
	return lockDir(o.FS, dir)
}

// refuseExposed refuses a directory in which others can plant or swap files. All
// the care that is taken with a name's last element, never to follow a link there,
// is for a directory that only its owner can change.
func refuseExposed(dir string, o *Options) error {
	if o.AllowSharedDir {
		return nil
	}
	info, err := o.FS.Lstat(dir + string(filepath.Separator) + ".") // what a link leads to
	if err != nil {
		return err
	}
	if why, fix := replace.Exposed(info); why != "" {
		return fmt.Errorf("%w: %q %s; %s %[2]q makes it this user's alone, Options.AllowSharedDir opens it nevertheless", ErrSharedDir, dir, why, fix)
	}
	return nil
}

// refuseNetworkFS refuses file systems on which a lock or a sync may not mean
// what the promises need.
func refuseNetworkFS(dir string, o *Options) error {
	if o.AllowNetworkFS || o.FS != replace.OS {
		return nil
	}
	kind, err := replace.NetworkFS(dir)
	if err == nil && kind != "" {
		err = fmt.Errorf("annals: %q is on %s, where locks and syncs can't be relied on; Options.AllowNetworkFS opens it nevertheless", dir, kind)
	}
	return err
}

func newStore(op *opening, lock *dirLock) *Store {
	s := &Store{
		core:     &core{dir: op.dir, index: op.index, clock: op.clock, closed: make(chan struct{}), ended: new(atomic.Bool), lost: op.lost},
		opts:     op.opts,
		id:       op.manifest.Store,
		lock:     lock,
		recovery: op.report,
	}
	for _, e := range op.damage {
		s.noteDamage(e)
	}
	s.files = newFiles(op.files, s.unlink)
	s.checkpoints.patchy = op.patchy
	s.compaction.retention = newRetention(op.opts.Retention)
	s.checkpoints.exists, s.checkpoints.retiring = op.table != nil, op.builder.Retiring()
	if op.table != nil {
		s.checkpoints.sealed = lastOf(&op.manifest, op.head.Segments)
	}
	s.manifest.Manifest = op.manifest
	s.manifest.next.Store(op.manifest.Next)
	s.log = wal.New(wal.Options{
		FS: op.opts.FS, Dir: op.dir, Store: op.manifest.Store, SegmentSize: op.opts.SegmentSize,
		Sync: time.Duration(op.opts.Sync), Seq: op.manifest.Seq, Now: s.clock.now, Host: (*host)(s),
	})
	s.news.published.Store(op.manifest.Seq - 1)
	lock.publish(generationAt, op.manifest.Generation)
	lock.publish(visibleAt, op.manifest.Seq-1)
	s.startCheckpoints() // first: compaction may be done with its first job at once, and wakes them
	s.startCompaction()
	return s
}

// unlink removes a segment that compaction has replaced. If that fails the file is
// a leftover for the next Open.
func (s *Store) unlink(f *segmentFile) {
	if s.isClosed() {
		return // without the lock nothing may be removed; the next Open does it
	}
	if err := s.opts.FS.Remove(f.path); err != nil {
		s.opts.Logger.Warn("annals: a dead segment could not be removed", "path", f.path, "err", err)
	}
}

// Recovery says what Open found and did.
func (s *Store) Recovery() RecoveryReport { return s.recovery }

// Durable returns the number up to which every record survives a power cut.
func (s *Store) Durable() uint64 { return s.log.Durable() }

// Close refuses new calls, finishes the writes that are queued, ends watchers and
// iterators with ErrClosed, and leaves a cleanly closed store. Its error says what
// could not be saved; nothing that was acknowledged as durable depends on it.
// Closing again waits for the first Close and does nothing.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		s.submit.Lock()
		s.shut = true
		s.submit.Unlock()

		s.stopCompaction()
		s.stopCheckpoints()
		if err = s.log.Close(); err == nil {
			s.checkpointAtClose()
		}
		s.ended.Store(true)
		close(s.closed)
		s.news.broadcast()
		err = errors.Join(err, s.files.close(), s.lock.release())
		s.opts.Logger.Info("annals: closed", "dir", s.dir, "err", err)
	})
	return err
}

// host is the Store as its log sees it.
type host Store

func (h *host) NewSegment() uint64 { return h.manifest.next.Add(1) - 1 }

func (h *host) Opened(seg *wal.Segment) {
	header := segment.Header{Store: h.id, Segment: seg.Number, First: seg.First}
	h.files.add(&segmentFile{
		number: seg.Number, path: filepath.Join(h.dir, segment.Name(seg.Number)),
		header: int64(len(header.AppendLine(nil))), ReaderAt: seg, Closer: seg,
	})
}

// Install replaces MANIFEST at a rotation and at a clean close.
func (h *host) Install(sealed *segment.Footer, open *wal.Segment, seq uint64) error {
	s := (*Store)(h)
	err := s.manifest.change(s, func(m *segment.Manifest) {
		m.Open, m.Seq = 0, seq
		if sealed != nil {
			m.Sealed = insertFooter(m.Sealed, *sealed)
		}
		if open != nil {
			m.Open = open.Number
		}
	})
	if err == nil && sealed != nil {
		if open != nil { // else the log is being closed
			s.files.sealed(sealed.Segment)
		}
		s.opts.Logger.Debug("annals: segment sealed", "segment", sealed.Segment, "records", sealed.Records, "bytes", sealed.Bytes)
		s.compaction.wake()
	}
	return err
}

func (h *host) Queued(c *wal.Commit) { h.pending.add(c) }

// applyAtOnce is how many changes the index takes in one go, a large commit apart,
// so that readers need not wait long.
const applyAtOnce = 256

func (h *host) Visible(cs []*wal.Commit) {
	s := (*Store)(h)
	list := s.changes[:0]
	for i, c := range cs {
		list = appendChanges(list, c)
		if len(list) >= applyAtOnce || i == len(cs)-1 {
			s.index.Apply(list)
			s.checkpoints.note(len(list), s.opts.noteEvery())
			if cap(list) > 4*applyAtOnce {
				list = nil
			}
			s.changes = list
			list = list[:0]
		}
	}
	if s.opts.Sync == SyncAlways {
		s.pending.remove(cs)
	}
}

func (h *host) Dropped([]*wal.Commit) { h.pending.clear() }

func (h *host) Published(seq uint64) {
	h.lock.publish(visibleAt, seq)
	h.news.publish(seq)
}

func (h *host) Failed(err error) {
	h.opts.Logger.Error("annals: the store takes no more writes", "dir", h.dir, "err", err)
}
