package annals

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/annalsdb/annals/replace"
)

// Options tune a store. The zero value, and nil, mean the defaults.
type Options struct {
	// Sync says when a write is durable. Default: SyncAlways.
	Sync SyncPolicy

	// SegmentSize is the size in bytes at which the log goes on in a new file,
	// 4 KiB to 1 GiB. It bounds the work of opening after a crash. Default: 16 MiB.
	SegmentSize int64

	// MaxValue is the largest value in bytes, up to 128 MiB. Reading takes any
	// value that was written, whatever this says. Default: 16 MiB.
	MaxValue int

	// History is how many of the newest records compaction leaves in order, so
	// that Watch can start there. Default: 0, whatever is not yet compacted.
	History int64

	// Retention says which samples may go. Default: none.
	Retention Retention

	// Compaction says when segments are rewritten in the background. Default: when
	// less than half of a segment is alive.
	Compaction Compaction

	// Checkpoint is how many changes may come before the index is saved anew, to the
	// file INDEX, so that opening the store need not read the whole log; and if it is
	// set, Close saves the index whenever something has changed. Puts, deletes and
	// samples are changes, and so is what compaction moves. Default: a quarter of the
	// number of keys, at least 131,072, and fewer at Close.
	Checkpoint int

	// Logger gets the store's events: recovery, rotation, compaction, failure.
	// Default: none.
	Logger *slog.Logger

	// FS is where the store lives. Default: replace.OS.
	FS replace.FS

	// ResetClock starts the store's time at the present instead of at the latest
	// time the store has recorded. It is the way back after a run under a clock
	// far ahead. Default: false.
	ResetClock bool

	// AllowNetworkFS opens a store on NFS, SMB or FUSE, where locks and syncs may
	// not mean what the promises need. Default: false.
	AllowNetworkFS bool

	// AllowSharedDir opens a store for writing in a directory that belongs to another
	// user, or to which its group or all may write. Whoever may write there can
	// replace the store's files. Default: false.
	AllowSharedDir bool

	// Now is the wall clock. Default: time.Now.
	Now func() time.Time
}

// Compaction tunes the background rewriting of segments.
type Compaction struct {
	// Off leaves all compaction to Store.Compact. Default: false.
	Off bool
	// MinLive is the share of a segment's bytes that must be alive to leave the
	// segment alone, above 0 and at most 1. Default: 0.5.
	MinLive float64
	// Rate is how many bytes a second background compaction reads, writes and reads
	// again, so that it does not get in the way of the store's users. It is exceeded
	// where much of the store is dead, and above twice the live bytes writers wait
	// a little for each batch while compaction works. Default: 32 MiB.
	Rate int64
	// Grace is how long the wall clock must be past an expiry before the bytes go,
	// so that one moment under a clock far ahead destroys nothing. Default: 24 h.
	Grace time.Duration
}

// SyncPolicy says when a write returns and when it is durable: SyncAlways,
// SyncEvery(d) or SyncNever.
type SyncPolicy time.Duration

const (
	// SyncAlways makes every write durable, and visible, before it returns.
	// Writers that come at the same time share one sync.
	SyncAlways SyncPolicy = 0

	// SyncNever is SyncEvery without end: data is synced when a segment is
	// sealed, at Sync and at Close. A power cut may take everything since.
	SyncNever SyncPolicy = -1
)

// SyncEvery lets a write return, and this process see it, once it is in the
// log's buffer; it is durable within d. Watch and other processes see it once it
// is durable. A crash of the process or the machine may take the last d. A d of
// zero or less means SyncAlways.
func SyncEvery(d time.Duration) SyncPolicy { return SyncPolicy(max(d, 0)) }

func (p SyncPolicy) String() string {
	switch p {
	case SyncAlways:
		return "always"
	case SyncNever:
		return "never"
	}
	return time.Duration(p).String()
}

// Limits that no option moves.
const (
	maxKey        = 64 << 10
	maxSeries     = 255
	maxValueLimit = 128 << 20
	maxCommit     = 256 << 20
	maxSegment    = 1 << 30
	minSegment    = 4 << 10
)

// withDefaults returns a complete copy of o, which may be nil, or says which
// field makes no sense.
func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	def(&c.SegmentSize, 16<<20)
	def(&c.MaxValue, 16<<20)
	def(&c.Compaction.MinLive, 0.5)
	def(&c.Compaction.Rate, 32<<20)
	def(&c.Compaction.Grace, 24*time.Hour)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.FS == nil {
		c.FS = replace.OS
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.SegmentSize < minSegment || c.SegmentSize > maxSegment:
		return c, fmt.Errorf("annals: Options.SegmentSize is %d, must be %d to %d bytes", c.SegmentSize, minSegment, maxSegment)
	case c.MaxValue < 0 || c.MaxValue > maxValueLimit:
		return c, fmt.Errorf("annals: Options.MaxValue is %d, must be 1 to %d bytes", c.MaxValue, maxValueLimit)
	case c.Checkpoint < 0:
		return c, fmt.Errorf("annals: Options.Checkpoint is %d, must not be negative", c.Checkpoint)
	case c.History < 0:
		return c, fmt.Errorf("annals: Options.History is %d, must not be negative", c.History)
	case c.Sync < SyncNever:
		return c, fmt.Errorf("annals: Options.Sync is %d, must be SyncAlways, SyncEvery(d) or SyncNever", c.Sync)
	case !(c.Compaction.MinLive >= 0 && c.Compaction.MinLive <= 1): // NaN too
		return c, fmt.Errorf("annals: Options.Compaction.MinLive is %v, must be 0 to 1", c.Compaction.MinLive)
	case c.Compaction.Rate < 0 || c.Compaction.Grace < 0:
		return c, fmt.Errorf("annals: Options.Compaction has a negative Rate or Grace")
	}
	return c, c.Retention.check()
}

// noteEvery is after how many records somebody looks whether the index should be
// saved.
func (o *Options) noteEvery() int {
	if o.Checkpoint != 0 {
		return min(o.Checkpoint, noteChanges)
	}
	return noteChanges
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
