package annals

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// indexName is the checkpoint of the index. It holds nothing that is not in the
// log, and may be removed while the store is closed.
//
// It stands for all records up to its number Last, and names the segments that need
// not be read any more. It is renamed into place only once the log is durable up to
// that number, so that no crash leaves an index of records that are gone; and it is
// taken only if it does not know of a MANIFEST or of records that the store does
// not know, which somebody has put back from a copy, say.
const indexName = "INDEX"

// indexHead is what INDEX says of itself.
type indexHead struct {
	Annals     int      `json:"annals"` // the format
	Store      string   `json:"store"`
	Generation uint64   `json:"generation"` // of MANIFEST
	Last       uint64   `json:"last"`
	Segments   []uint64 `json:"segments"` // all whose records are in it, but for those with damage
}

const indexFormat = 1

const (
	// fewChanges is how many changes are worth a new INDEX, at the least, while the
	// store is open: what a crash then costs is reading so many records again.
	fewChanges = 128 << 10
	// fewAtClose is the same for Close: reading so many takes the next Open some
	// milliseconds.
	fewAtClose = 8 << 10
	// noteChanges is after how many records somebody looks whether it is time.
	noteChanges = 4 << 10
)

// checkpoints is the background job that writes INDEX.
type checkpoints struct {
	job    sync.Mutex // held while INDEX is written
	adopt  sync.Mutex // held while compaction lists its outputs and moves entries to them
	astray bool       // entries lead to segments that MANIFEST does not list; guarded by adopt
	seen   atomic.Int64
	wakeup chan struct{}
	done   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	patchy []uint64 // segments with damage: the next Open reads them too, to tell it
	wait   int      // changes that there must be after a failure, before another try
	sealed uint64   // the greatest number in the segments that INDEX stands for; guarded by job

	exists   bool // there is an INDEX; guarded by job
	retiring bool // it has an open Retirement; guarded by job
}

func (s *Store) startCheckpoints() {
	c := &s.checkpoints
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wakeup, c.done = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(c.done)
		for {
			select {
			case <-c.ctx.Done():
				return
			case <-c.wakeup:
			}
			// What is kept of samples is written anew each time, too.
			few := max(fewChanges, s.index.Footprint()/16)
			if err := s.checkpointIfDue(c.ctx, s.opts.Checkpoint, few, 4); err != nil && c.ctx.Err() == nil {
				s.warnUnsaved(err)
			}
		}
	}()
	c.note(noteChanges, noteChanges) // the log may have had much that INDEX did not
}

// note counts records, and has somebody look now and then.
func (c *checkpoints) note(records int, every int) {
	if n := c.seen.Add(int64(records)); n < int64(every) {
		return
	}
	c.seen.Store(0)
	select {
	case c.wakeup <- struct{}{}:
	default:
	}
}

func (s *Store) stopCheckpoints() {
	s.checkpoints.cancel()
	<-s.checkpoints.done
	s.checkpoints.job.Lock() // a Checkpoint by hand ends too
	defer s.checkpoints.job.Unlock()
}

// checkpointAtClose saves the index of a store whose log is closed, unless reading
// what is new takes the next Open no time.
func (s *Store) checkpointAtClose() {
	few := fewAtClose
	if s.unread() >= fewAtClose {
		few = 0 // much of what is in INDEX lies in segments that it does not name
	}
	if err := s.checkpointIfDue(context.Background(), min(s.opts.Checkpoint, 1), few, 64); err != nil {
		s.warnUnsaved(err)
	}
}

// unread is how many records the next Open would read, or more.
func (s *Store) unread() uint64 {
	c := &s.checkpoints
	c.job.Lock()
	defer c.job.Unlock()
	return s.index.Last() - min(c.sealed, s.index.Last())
}

// lastOf returns the greatest number in some of the sealed segments of a store, given
// by their numbers in order.
func lastOf(m *segment.Manifest, some []uint64) (last uint64) {
	for i := range m.Sealed {
		if f := &m.Sealed[i]; in(some, f.Segment) {
			last = max(last, f.Last)
		}
	}
	return last
}

func in(sorted []uint64, n uint64) bool {
	_, found := slices.BinarySearch(sorted, n)
	return found
}

func (s *Store) warnUnsaved(err error) {
	s.opts.Logger.Warn("annals: the index could not be saved, opening the store will take longer", "dir", s.dir, "err", err)
}

// checkpointIfDue writes INDEX if there have been more changes than limit or, if
// that is 0, than few and the given part of the entries.
func (s *Store) checkpointIfDue(ctx context.Context, limit, few, part int) error {
	c := &s.checkpoints
	c.job.Lock()
	defer c.job.Unlock()
	changes, entries := s.index.Changes()
	if limit == 0 {
		limit = max(few, entries/part)
	}
	if changes < max(limit, c.wait) {
		return nil
	}
	err := s.checkpoint(ctx)
	c.wait = 0
	if err != nil && ctx.Err() == nil {
		c.wait = 2 * changes
	}
	return err
}

// Checkpoint saves the index to the file INDEX, so that the next Open need not read
// what is in the log now, but for the segment that is being written, which it ends first
// if half of it is full. A store does so by itself, see Options.Checkpoint. It makes the log durable first. It goes on beside
// reads and writes; ctx stops it, with nothing changed.
func (s *Store) Checkpoint(ctx context.Context) error {
	c := &s.checkpoints
	c.job.Lock()
	defer c.job.Unlock()
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	err := s.checkpoint(ctx)
	if err != nil && c.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// checkpoint writes INDEX.
func (s *Store) checkpoint(ctx context.Context) (err error) {
	if err := s.log.Failure(); err != nil {
		return &FailedError{Err: err}
	}
	s.endLongSegment(ctx)
	frozen, m, err := s.freeze()
	if err != nil {
		return err
	}
	head := indexHead{Annals: indexFormat, Store: m.Store, Generation: m.Generation, Last: frozen.Last()}
	for i := range m.Sealed {
		if n := m.Sealed[i].Segment; !slices.Contains(s.checkpoints.patchy, n) {
			head.Segments = append(head.Segments, n)
		}
	}

	path := filepath.Join(s.dir, indexName)
	p, err := replace.Begin(path, replace.On(s.opts.FS), replace.PermAlways(0o600))
	if err != nil {
		return err
	}
	defer p.Discard()
	text, err := json.Marshal(&head)
	if err != nil {
		return err
	}
	var mark [8]byte
	if _, err := rand.Read(mark[:]); err != nil {
		return err
	}
	pace := func(int) error { return ctx.Err() }
	if _, err := frozen.Write(p, binary.LittleEndian.Uint64(mark[:]), text, pace); err != nil {
		return s.indexError(err)
	}
	if err := s.durableUpTo(ctx, head.Last); err != nil {
		return err
	}
	if err := s.lock.check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.checkpoints.exists, s.checkpoints.retiring = true, s.checkpoints.retiring || frozen.Retiring() // from here on it may be there
	if err := p.Commit(); err != nil {
		if unsynced := (*replace.SyncError)(nil); errors.As(err, &unsynced) && unsynced.Unknown {
			s.log.Fail(err) // the directory is the log's too, and only one caller is told
		}
		return err
	}
	table, err := openTable(s.opts.FS, path)
	if err != nil {
		return s.indexError(err)
	}
	frozen.Adopt(table)
	s.checkpoints.sealed, s.checkpoints.retiring = lastOf(&m, head.Segments), frozen.Retiring()
	s.opts.Logger.Debug("annals: index saved", "dir", s.dir, "entries", table.Len(), "last", head.Last)
	return nil
}

// removeIndex removes INDEX, so that the next Open reads the log.
func (s *Store) removeIndex() error {
	err := s.opts.FS.Remove(filepath.Join(s.dir, indexName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.opts.FS.SyncDir(s.dir); err != nil {
		// The directory is the log's too, and only one caller is told.
		return &replace.SyncError{Path: s.dir, Err: err}
	}
	s.checkpoints.exists, s.checkpoints.retiring, s.checkpoints.sealed = false, false, 0
	return nil
}

// freeze begins a checkpoint of the index, and returns MANIFEST with it: no entry leads
// to a segment that was sealed and is not listed there.
func (s *Store) freeze() (*index.Checkpoint, segment.Manifest, error) {
	c := &s.checkpoints
	c.adopt.Lock()
	defer c.adopt.Unlock()
	if c.astray {
		return nil, segment.Manifest{}, errors.New("annals: a compaction could not move all entries of the index")
	}
	m := s.manifest.copy()
	return s.index.Freeze(), m, nil
}

// endLongSegment ends the segment that is being written, if much is in it: INDEX does not
// stand for one that goes on growing, so that who opens the store behind a crash would
// read all of it.
func (s *Store) endLongSegment(ctx context.Context) {
	if all, _ := s.openBytes(); s.log.Closed() || all < max(1<<20, s.opts.SegmentSize/2) {
		return
	}
	if err := s.log.Rotate(ctx); err != nil { // INDEX will be as true without it
		s.opts.Logger.Debug("annals: the segment could not be ended before the index is saved", "dir", s.dir, "err", err)
	}
}

// isAstray tells whether entries may lead to segments that MANIFEST does not list, while
// what it lists has the same records.
func (c *checkpoints) isAstray() bool {
	c.adopt.Lock()
	astray := c.astray
	c.adopt.Unlock()
	return astray
}

// durableUpTo makes the log durable up to a record.
func (s *Store) durableUpTo(ctx context.Context, seq uint64) error {
	if s.log.Closed() {
		return nil // with all that it had, or there would be no INDEX
	}
	if err := s.log.Failure(); err != nil {
		return &FailedError{Err: err}
	}
	durable, err := s.log.Sync(ctx)
	if err == nil && durable < seq {
		err = fmt.Errorf("annals: the log is durable up to %d, the index goes up to %d", durable, seq)
	}
	return err
}

// openTable opens INDEX, of which only the end is read.
func openTable(fsys replace.FS, path string) (_ *index.Table, err error) {
	file, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if m, err := replace.Map(file, info.Size()); err == nil {
		table, err := index.OpenTable(m.Bytes())
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		// Snapshots hold tables, and are closed by nobody but the collector.
		runtime.AddCleanup(table, func(m *replace.Mapping) { m.Close() }, m)
		return table, nil
	}
	if info.Size() > maxUnmapped {
		return nil, &index.TableError{Reason: fmt.Sprintf("it is %d bytes long, and can't be mapped", info.Size())}
	}
	data := make([]byte, info.Size())
	if n, err := file.ReadAt(data, 0); n < len(data) || err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("annals: reading %q: %w", path, err)
	}
	return index.OpenTable(data)
}

// maxUnmapped bounds INDEX where it must be read into memory.
const maxUnmapped = 1 << 30

// findIndex reads INDEX if there is one, before MANIFEST: beside a live writer it
// then knows of nothing newer than that. One that can't be read is as good as none.
func (o *opening) findIndex() {
	table, err := openTable(o.fs(), filepath.Join(o.dir, indexName))
	if err != nil {
		return
	}
	text, err := index.Head(table)
	if err == nil && json.Unmarshal(text, &o.head) == nil && o.head.Annals == indexFormat {
		o.table = table
	}
}

// startBuilder begins the index: with INDEX, if it fits the store.
func (o *opening) startBuilder() {
	o.builder = index.NewBuilder()
	m, h := &o.manifest, &o.head
	last := m.Seq - 1
	if m.Open != 0 {
		last = max(last, o.verdict.Last)
	}
	if o.table == nil || h.Store != m.Store || h.Generation > m.Generation || h.Last > last {
		o.table = nil
		return
	}
	// After a crash all of it is looked at, since the next phases must not fail by it.
	if m.Open != 0 && o.table.Check() != nil {
		o.table = nil
		return
	}
	slices.Sort(h.Segments)
	builder, err := index.Restore(o.table, h.Last, o.covered)
	if err != nil {
		o.table = nil
		return
	}
	o.builder, o.report.Indexed = builder, h.Last
}

// covered tells whether all records of a listed segment are in INDEX.
func (o *opening) covered(number uint64) bool {
	if o.table == nil {
		return false
	}
	_, in := slices.BinarySearch(o.head.Segments, number)
	_, listed := slices.BinarySearchFunc(o.manifest.Sealed, number, bySegment)
	return in && listed
}

// pass opens a segment that INDEX stands for. Its lines are checked when they are
// read; only that the file is the one that MANIFEST means is looked at now.
func (o *opening) pass(f *segment.Footer, file replace.File, size int64) error {
	path, header := o.path(f.Segment), int64(0)
	h, line, err := segment.ReadHeader(file, size, path)
	if err == nil {
		header = line.Size
	}
	damage := (*CorruptError)(nil)
	var lines io.ReaderAt = file
	switch {
	case errors.As(err, &damage):
	case err != nil:
		return errors.Join(err, file.Close())
	case h.Store != o.manifest.Store || h.Segment != f.Segment:
		damage = &CorruptError{Path: path, Reason: fmt.Sprintf("its header is that of segment %d of store %s", h.Segment, h.Store)}
		lines = foreign{damage} // its lines may look like ours
	case size != f.Size():
		damage = &CorruptError{Path: path, Offset: min(size, f.Size()), Reason: fmt.Sprintf("it is %d bytes long instead of %d", size, f.Size())}
	}
	opened := &segmentFile{number: f.Segment, path: path, header: header, compacted: err == nil && h.Compacted(), ReaderAt: lines, Closer: file}
	if lines == file {
		opened.mapFile(file, size)
	}
	o.files = append(o.files, opened)
	if damage == nil {
		return nil
	}
	damage.FirstSeq, damage.LastSeq = f.First, f.Last
	o.damage = append(o.damage, damage)
	if o.builder.InOrder(f.Segment) {
		o.builder.Damage(f.Segment, 0, f.Bytes, f.First, f.Last)
		o.lost = append(o.lost, damage)
	}
	return nil
}

// foreign is what lies in the place of a segment and can't be read as one.
type foreign struct{ damage *CorruptError }

func (f foreign) ReadAt([]byte, int64) (int, error) { return 0, f.damage }

// dropIndex removes an INDEX that was not taken, before anything is written that it
// might be taken for later.
func (o *opening) dropIndex() error {
	if o.table != nil || !o.hasIndex {
		return nil
	}
	if err := o.remove(filepath.Join(o.dir, indexName)); err != nil {
		return err
	}
	return o.fs().SyncDir(o.dir)
}
