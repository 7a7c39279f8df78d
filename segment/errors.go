package segment

import (
	"errors"
	"fmt"
)

var (
	// ErrCorrupt is what every *CorruptError matches.
	ErrCorrupt = errors.New("annals: corrupt")

	// ErrNewerFormat reports a header whose format number this version does not know.
	ErrNewerFormat = errors.New("annals: written in a newer format")
)

// CorruptError says where damage to data known to be durable was found. Offset
// is in bytes from the start of the file. FirstSeq to LastSeq are the records
// that the damage may have cost, 0 where that is unknown. It matches ErrCorrupt.
type CorruptError struct {
	Path     string `json:"path"`
	Offset   int64  `json:"offset"`
	FirstSeq uint64 `json:"first_seq,omitempty"`
	LastSeq  uint64 `json:"last_seq,omitempty"`
	Reason   string `json:"reason"`
}

func (e *CorruptError) Error() string {
	seqs := ""
	if e.FirstSeq != 0 {
		seqs = fmt.Sprintf(", sequence numbers %d to %d", e.FirstSeq, e.LastSeq)
	}
	return fmt.Sprintf("%v: %q at offset %d%s: %s", ErrCorrupt, e.Path, e.Offset, seqs, e.Reason)
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Why a line is not valid. They are the Reason of a CorruptError.
var (
	errNoNewline  = errors.New("line is cut short")
	errShort      = errors.New("line is too short for a checksum")
	errSpacing    = errors.New("no single space before the checksum")
	errHex        = errors.New("checksum is not 8 lower-case hex digits")
	errChecksum   = errors.New("checksum does not match")
	errControl    = errors.New("line holds a byte below 0x20")
	errObject     = errors.New("not an annals object")
	errLong       = errors.New("line is longer than 256 MiB")
	errBlank      = errors.New("empty line inside the log")
	errSeq        = errors.New("sequence number is not the next one")
	errOrder      = errors.New("record does not belong behind the one before it")
	errInCommit   = errors.New("commit is not whole")
	errAhead      = errors.New("mark tells of records that are missing")
	errAfter      = errors.New("line behind the footer")
	errUnexpected = errors.New("line of a kind that does not belong here")
)
