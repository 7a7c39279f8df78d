package annals

import (
	"fmt"
	"time"
)

// Stats describes a store or reader at one moment. Counters count since Open.
type Stats struct {
	Dir        string `json:"dir"`
	Store      string `json:"store"`      // the store's identity, as in every segment's header
	Generation uint64 `json:"generation"` // of MANIFEST

	Keys    int    `json:"keys"`    // expired ones included until compaction takes them
	Series  int    `json:"series"`  // named runs of samples
	Samples uint64 `json:"samples"` // in all series

	LastSeq uint64    `json:"last_seq"` // the newest record's number
	Durable uint64    `json:"durable"`  // everything up to here survives a power cut
	History uint64    `json:"history"`  // Watch can start from here on
	Clock   time.Time `json:"clock"`    // the store's time, which decides what has expired

	Bytes     int64          `json:"bytes"`      // of all segments
	LiveBytes int64          `json:"live_bytes"` // of the lines that compaction would keep
	LiveRatio float64        `json:"live_ratio"` // LiveBytes / Bytes, 1 for an empty store
	Segments  []SegmentStats `json:"segments"`

	Commits        uint64  `json:"commits"`
	Records        uint64  `json:"records"`
	Batches        uint64  `json:"batches"` // writes to the log
	Syncs          uint64  `json:"syncs"`   // of the log
	RecordsPerSync float64 `json:"records_per_sync"`

	Failed     string          `json:"failed,omitempty"` // why the store takes no more writes
	Damage     []string        `json:"damage,omitempty"` // damage found while reading
	Recovery   RecoveryReport  `json:"recovery"`
	Compaction CompactionStats `json:"compaction"`
}

// SegmentStats describes one file of the log.
type SegmentStats struct {
	Segment   uint64 `json:"segment"`
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`
	Records   uint64 `json:"records"`
	Bytes     int64  `json:"bytes"`
	LiveBytes int64  `json:"live_bytes"`
	Open      bool   `json:"open,omitempty"`
}

// RecoveryReport says what Open found and did.
type RecoveryReport struct {
	Clean       bool          `json:"clean"`                 // the store had been closed; nothing was to do
	Segment     uint64        `json:"segment,omitempty"`     // the segment that was open at the crash
	Rewritten   uint64        `json:"rewritten,omitempty"`   // the sealed segment that its good part became; 0 if it held nothing
	Records     uint64        `json:"records,omitempty"`     // records in that good part
	LastSeq     uint64        `json:"last_seq,omitempty"`    // the last of them
	Quarantined []Quarantined `json:"quarantined,omitempty"` // bytes that were cut off; they had never been acknowledged
	Removed     []string      `json:"removed,omitempty"`     // leftovers of interrupted work
	ClockAhead  string        `json:"clock_ahead,omitempty"` // how far the store's recorded time is ahead of the clock, if over an hour
	Indexed     uint64        `json:"indexed,omitempty"`     // the file INDEX stood for all records up to this number
	Replayed    uint64        `json:"replayed"`              // records read to build the index
	Took        string        `json:"took"`
}

// Quarantined is a tail that recovery cut off and kept.
type Quarantined struct {
	Path    string `json:"path"`
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
	Bytes   int64  `json:"bytes"`
	Reason  string `json:"reason"`
}

func (r RecoveryReport) String() string {
	if r.Clean {
		return fmt.Sprintf("closed cleanly, %d records read in %s", r.Replayed, r.Took)
	}
	s := fmt.Sprintf("not closed cleanly: segment %d kept %d records up to %d", r.Segment, r.Records, r.LastSeq)
	for _, q := range r.Quarantined {
		s += fmt.Sprintf("; %d unacknowledged bytes from offset %d moved to %q (%s)", q.Bytes, q.Offset, q.Path, q.Reason)
	}
	return s + fmt.Sprintf("; %d records read in %s", r.Replayed, r.Took)
}

// CompactionStats counts the work of compaction since Open.
type CompactionStats struct {
	Running   bool   `json:"running"`
	Runs      uint64 `json:"runs"`
	Read      int64  `json:"read"`      // bytes
	Written   int64  `json:"written"`   // bytes
	Reclaimed int64  `json:"reclaimed"` // bytes

	Retired      uint64 `json:"retired,omitempty"`       // samples that went by Options.Retention
	RetiredBytes int64  `json:"retired_bytes,omitempty"` // of their lines
	Retirable    int64  `json:"retirable,omitempty"`     // bytes of samples that may go and are there still, in the segments that were looked at
	Unlinked     uint64 `json:"unlinked,omitempty"`      // segments that were removed without rewriting, since all in them might go

	LastError string `json:"last_error,omitempty"`
}

// CompactStats is what one Compact did.
type CompactStats struct {
	Inputs  int   `json:"inputs"`  // segments read
	Outputs int   `json:"outputs"` // segments written
	Before  int64 `json:"before"`  // bytes of the inputs
	After   int64 `json:"after"`   // bytes of the outputs
	Kept    int64 `json:"kept"`    // records copied
	Dropped int64 `json:"dropped"` // records left behind

	Retired      int64 `json:"retired,omitempty"`       // of them, samples that went by Options.Retention
	RetiredBytes int64 `json:"retired_bytes,omitempty"` // of their lines
	Unlinked     int   `json:"unlinked,omitempty"`      // of the inputs, segments that were removed without rewriting
}

// Report is what Verify found. A store without Problems is whole.
type Report struct {
	Dir      string          `json:"dir"`
	Store    string          `json:"store,omitempty"`
	Segments int             `json:"segments"`
	Records  uint64          `json:"records"`
	Bytes    int64           `json:"bytes"`
	LastSeq  uint64          `json:"last_seq"`
	Problems []*CorruptError `json:"problems,omitempty"` // all that was found, not just the first
	Tail     *TornTail       `json:"tail,omitempty"`     // a legal end of a store that is being written or was not closed; not damage
	Leftover []string        `json:"leftover,omitempty"` // files of interrupted work that the next Open removes
}

// OK reports whether no damage was found.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// TornTail is the end of the open segment behind its last whole commit, which
// nothing proves to have been durable.
type TornTail struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}
