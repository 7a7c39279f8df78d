package wal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// Options say where a log is written, and how. All fields are needed.
type Options struct {
	FS          replace.FS
	Dir         string
	Store       string        // the store's identity, for headers
	SegmentSize int64         // bytes at which a segment ends
	Sync        time.Duration // 0: before a commit is visible; d: within d; negative: only when asked
	Seq         uint64        // the number of the first record; all before it is durable
	Now         func() int64  // the store's time in microseconds, for marks
	Host        Host
}

// Host is told what happens in the log. All but Install and Failed may be called with the log's lock held: they must not call the log and must not
// wait for anything that does.
type Host interface {
	// NewSegment returns the number of a new segment, a different one each time.
	NewSegment() uint64

	// Opened gives the segment that the next records will lie in, before any of
	// them is visible. The host closes it when it and the log are done with it.
	Opened(s *Segment)

	// Install lists sealed (nil if there was none) and the open segment (nil if
	// the log is closed) in MANIFEST, durably. seq is the number of the next
	// record. A replace.SyncError makes the log fail; after any other error
	// MANIFEST is as it was and the call is tried again.
	Install(sealed *segment.Footer, open *Segment, seq uint64) error

	// Queued reports a commit that has its numbers but is not yet visible.
	Queued(c *Commit)

	// Visible reports commits, in order, whose records are now part of the store:
	// durable ones under SyncAlways, buffered ones otherwise. Calls come one after
	// another. The slice, and the commits' memory, are the host's only for the call.
	Visible(cs []*Commit)

	// Dropped reports all commits that were queued: none of them was written.
	Dropped(cs []*Commit)

	// Published reports that others may be shown all records up to seq: they are
	// durable, or under a negative Sync written.
	Published(seq uint64)

	// Failed reports, once, that the log takes no more writes.
	Failed(err error)
}

// ErrFailed is what every *FailedError matches.
var ErrFailed = errors.New("annals: store has failed and takes no writes")

// ErrClosed is the outcome of a write to a closed log.
var ErrClosed = errors.New("annals: closed")

// FailedError is what every write gets after a sync failed, or after a failed
// write could not be taken back: the kernel reports such a loss only once, so
// nothing written later could be trusted. Reads go on. Closing and opening the
// store again recovers it. It matches ErrFailed and its cause.
type FailedError struct {
	// Unknown is true if this very write may or may not be there after the next
	// Open; false if it is certainly not.
	Unknown bool
	// Err is the first failure.
	Err error
}

func (e *FailedError) Error() string {
	outcome := "this write was not made"
	if e.Unknown {
		outcome = "outcome of this write unknown until the store is opened again"
	}
	return fmt.Sprintf("%v (%s): %v", ErrFailed, outcome, e.Err)
}

// Unwrap makes errors.Is match both ErrFailed and the cause.
func (e *FailedError) Unwrap() []error { return []error{ErrFailed, e.Err} }

// Stats counts since the log was made.
type Stats struct {
	Commits, Records, Batches, Syncs uint64
}

const (
	maxQueued   = 64 << 20  // bytes that may wait to be written under SyncAlways
	maxBuffer   = 8 << 20   // the same under the other policies
	fullBuffer  = 512 << 10 // from here on it is written at once; before, when the last write is so long ago:
	writeGap    = time.Millisecond
	maxBatch    = 8 << 20 // bytes of one write, unless a single commit is larger
	maxSpares   = 8       // of batches that were written
	padUnit     = 64 << 10
	maxPad      = 16 << 20               // that a batch writes behind itself
	padBatch    = 256 << 10              // one that is larger writes none
	padFrom     = 1 << 20                // segments of this size are filled further than a unit
	growOnce    = 2048                   // batches at the most from one that makes the file grow to the next
	hastenBytes = 1 << 20                // written before the disk is asked to begin with it, where syncs are rare
	idleMark    = time.Second            // how long the log is idle before it says that all is durable
	gatherMax   = 300 * time.Microsecond // how long the owner waits for commits that are likely to come
	gatherGap   = 50 * time.Microsecond  // ... and how long for the next of them

	gatherYields = 10_000 // more than fit into gatherMax

	punctualAfter = 16               // batches for which all came in time, before the owner leaves waiting to them
	crowd         = 8                // of so many at the least: fewer are quicker than a processor wakes
	gatherWatch   = time.Millisecond // how often somebody looks whether one of them is missing

	tellAtOnce = 16 // commits of a batch that become visible, and whose writers are told, at a time
)

// Log is the write path of one store. It is safe for concurrent use.
type Log struct {
	opts Options

	mu struct {
		sync.Mutex
		owned    bool   // somebody owns the file; see tail
		closed   bool   // no more commits are taken
		failure  error  // the first failure, once there was one
		next     uint64 // the number of the next record
		epoch    uint64 // how often queued commits were dropped
		dropped  error  // why, the last time
		progress chan struct{}
		cuts     []chan error // of those who wait in Rotate

		// Under SyncAlways: commits that are not yet written.
		queue  []*Commit
		queued int64   // their bytes
		latest *Commit // the last that was queued; nil after queued ones were dropped

		// While nobody owns the file because the last of some writers will.
		left    bool
		leaves  bool        // was so since late has looked
		watch   *time.Timer // calls late
		watched bool        // it is set

		// Otherwise: lines that are assembled and not yet written.
		buffer   []*batch
		buffered int64
		plan     plan
		stuck    error // why the buffer could not be written, until it can
		syncDue  bool
		timer    *time.Timer // sets syncDue
		armed    bool
		spares   [][]byte // memory of batches that were written, for the next ones
		one      [1]*Commit

		idle      *time.Timer
		lastBatch time.Time
		lastNow   int64 // the time in the latest mark
	}
	room    sync.Cond // on mu: queued or buffered went down, or the owner stopped
	durable atomic.Uint64
	told    atomic.Uint64 // durable, once Host.Published was called; where commits are visible before
	waiting atomic.Int64  // len(mu.queue)

	tail      tail      // belongs to the owner
	expected  int       // commits that are likely to come soon; the owner's, guarded by mu while there is none
	punctual  int       // batches in a row for which all came in time; the same
	lastFlush time.Time // when a batch of the buffer was written; the owner's
	batch     batch     // the owner's, under SyncAlways
	lines     []byte    // the same, for its lines
	spare     []*Commit // the same: a queue that was written, for the next one
	number    uint64    // of the segment that the owner could not make yet; 0 if there is none
	litter    string    // a file that could neither be finished nor removed

	commits, records, batches, syncs atomic.Uint64
}

// New returns a log whose first write makes a segment.
func New(opts Options) *Log {
	l := &Log{opts: opts}
	l.room.L = &l.mu
	l.mu.next = opts.Seq
	l.durable.Store(opts.Seq - 1)
	l.told.Store(opts.Seq - 1)
	return l
}

// lazy tells whether commits are visible before they are durable.
func (l *Log) lazy() bool { return l.opts.Sync != 0 }

// Durable returns the number up to which every record is durable.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Stats returns the counters.
func (l *Log) Stats() Stats {
	return Stats{Commits: l.commits.Load(), Records: l.records.Load(), Batches: l.batches.Load(), Syncs: l.syncs.Load()}
}

// Closed tells whether Close was called: all that the log had is durable then, or
// lost.
func (l *Log) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.closed
}

// Failure returns why the log takes no more writes, or nil.
func (l *Log) Failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.failure
}

// Next returns the number that the next record will get, the latest commit that
// is not yet visible (nil if there is none), and an epoch that changes whenever
// queued commits are dropped.
func (l *Log) Next() (seq uint64, last *Commit, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.next, l.shareLocked(), l.mu.epoch
}

// shareLocked returns the latest commit to somebody who may wait for it at any time
// from now on.
func (l *Log) shareLocked() *Commit {
	if c := l.mu.latest; c != nil {
		c.shared = true
	}
	return l.mu.latest
}

// Segment is a segment of the log as others may read it: the open one, and the
// same one after it was sealed. It is safe for concurrent use.
type Segment struct {
	Number uint64
	First  uint64 // the number of its first record

	log     *Log
	file    replace.File
	written atomic.Int64 // up to here the file holds all lines
}

// ReadAt reads lines that are visible, whether they are in the file already or
// still in the log's buffer.
func (s *Segment) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= s.written.Load() {
		return s.file.ReadAt(p, off)
	}
	return s.log.readBuffered(s, p, off)
}

// Size is the offset behind the last line in the file. Under SyncAlways that may
// be ahead of what is visible.
func (s *Segment) Size() int64 { return s.written.Load() }

// End is the offset behind the last line, in the file or in the log's buffer.
func (s *Segment) End() int64 {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	end := s.written.Load()
	for _, b := range l.mu.buffer {
		if b.seg == s {
			end = b.start + int64(len(b.lines))
		}
	}
	return end
}

// Map maps the segment, once it is sealed.
func (s *Segment) Map() (*replace.Mapping, error) { return replace.Map(s.file, s.written.Load()) }

// Close closes the file, once the log writes to another or is closed.
func (s *Segment) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
