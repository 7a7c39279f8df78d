package annals

import (
	"errors"
	"fmt"

	"github.com/annalsdb/annals/segment"
	"github.com/annalsdb/annals/wal"
)

// What a caller may want to decide on. Errors of this package wrap one of
// these, so errors.Is finds them; the message says more.
var (
	ErrNotFound    = errors.New("annals: not found")                              // no such key, or it was deleted or has expired
	ErrClosed      = wal.ErrClosed                                                // the store, reader or snapshot was closed
	ErrLocked      = errors.New("annals: store is in use")                        // another writer holds the store
	ErrTooLarge    = errors.New("annals: too large")                              // a key, value, name, time or commit beyond its limit; nothing was written
	ErrConflict    = errors.New("annals: conflict")                               // IfSeq or IfAbsent did not hold; nothing was written
	ErrFailed      = wal.ErrFailed                                                // see FailedError
	ErrCorrupt     = segment.ErrCorrupt                                           // see CorruptError
	ErrNewerFormat = segment.ErrNewerFormat                                       // written by a later version of annals; nothing was touched
	ErrCompacted   = errors.New("annals: history is gone")                        // see CompactedError
	ErrAhead       = errors.New("annals: sequence number is beyond the last one") // Watch from a number that no record has yet
	ErrNotStore    = errors.New("annals: not a store")                            // the directory holds something else; nothing was touched
	ErrSharedDir   = errors.New("annals: directory is shared")                    // others may change what is in it, see Options.AllowSharedDir; nothing was touched
)

// CorruptError says where damage to data known to be durable was found: the
// file, the byte offset in it, and the range of sequence numbers that it may
// have cost (both 0 where that is unknown). It matches ErrCorrupt.
type CorruptError = segment.CorruptError

// FailedError is what every write gets after a sync failed, or after a failed
// write could not be taken back. Its Unknown is true if that very write may or
// may not be there after the next Open. Reads go on. It matches ErrFailed.
type FailedError = wal.FailedError

// CompactedError says that compaction or retention has taken records that Watch
// was asked for. First is the first sequence number from which all are left. It
// matches ErrCompacted.
type CompactedError struct{ First uint64 }

func (e *CompactedError) Error() string {
	return fmt.Sprintf("%v before sequence number %d", ErrCompacted, e.First)
}

// Is makes errors.Is(err, ErrCompacted) true.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }
