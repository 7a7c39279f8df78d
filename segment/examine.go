package segment

import (
	"fmt"
	"io"
)

// Verdict is what Examine finds in an open segment.
type Verdict struct {
	Header  Header
	Records uint64 // in the good part
	Last    uint64 // the good part's last seq; the header's first - 1 if it holds no record
	End     int64  // where the good part ends
	Clock   int64  // the greatest time in a mark, in microseconds; 0 if there is none
	MaxSeq  uint64 // no valid line, in the tail too, names a greater number
	Tail    *Tail  // nil if only padding follows the good part
}

// Tail is what lies behind the good part and was never acknowledged.
type Tail struct {
	Offset int64
	Bytes  int64
	Reason string // what is wrong with its first bad line
}

// Examine judges the segment that MANIFEST lists as open: r, size bytes long. It
// returns a *CorruptError if its header is bad or of another store or segment,
// or if something proves that records which had been durable are damaged; any
// other error is one of reading. It changes nothing.
func Examine(r io.ReaderAt, size int64, path, store string, number uint64) (Verdict, error) {
	h, line, err := ReadHeader(r, size, path)
	if err != nil {
		return Verdict{}, err
	}
	if err := h.belongs(path, store, number); err != nil {
		return Verdict{}, err
	}
	if h.From != nil {
		return Verdict{}, &CorruptError{Path: path, Reason: "a segment made from others can't be the open one"}
	}
	e := examiner{path: path, next: h.First, blankAt: -1, badAt: -1}
	e.v = Verdict{Header: h, Last: h.First - 1, MaxSeq: h.First - 1, End: line.End()}
	e.crc = Checksum(0, line.Bytes)

	s := NewScanner(r, line.End(), size)
	s.joining = true
	for s.Scan() {
		e.take(s.Line())
	}
	if s.Err() != nil {
		return Verdict{}, fmt.Errorf("%q: %w", path, s.Err())
	}
	return e.verdict(size)
}

// belongs tells whether the header is that of segment number of the store.
func (h *Header) belongs(path, store string, number uint64) error {
	if h.Store != store {
		return &CorruptError{Path: path, Reason: fmt.Sprintf("it belongs to store %s, this one is %s", h.Store, store)}
	}
	if h.Segment != number {
		return &CorruptError{Path: path, Reason: fmt.Sprintf("its header says segment %d", h.Segment)}
	}
	return nil
}

// examiner holds the state of Examine between two lines.
type examiner struct {
	v    Verdict
	path string
	crc  uint32 // of all bytes up to here
	next uint64 // the seq that the next record must have

	inCommit  uint64 // records of the commit that has not ended yet
	commitDur uint64 // the greatest "dur" in them
	sealed    bool   // a footer was read
	blankAt   int64  // the first newline alone, -1 if there was none
	badAt     int64  // the first bad line, -1 if there was none
	reason    error
	evidence  uint64 // behind the good part, the greatest seq said to be durable
	damage    error  // a footer that contradicts the lines before it
}

// take reads one more line: as part of the good run, or, behind its end, as a
// witness only.
func (e *examiner) take(l *Line) {
	if e.badAt < 0 && l.Kind != BlankLine && e.blankAt >= 0 && !e.sealed {
		e.fail(e.blankAt, errBlank)
	}
	if e.badAt < 0 {
		if reason := e.extend(l); reason != nil {
			e.fail(l.Offset, reason)
		}
	}
	if e.badAt >= 0 {
		e.witness(l)
	}
	e.crc = Checksum(e.crc, l.Bytes)
}

func (e *examiner) fail(offset int64, reason error) { e.badAt, e.reason = offset, reason }

// extend adds a line to the good run, or says why it does not belong there.
func (e *examiner) extend(l *Line) (reason error) {
	if e.sealed && l.Kind != BlankLine {
		return errAfter
	}
	switch l.Kind {
	case BlankLine:
		// Also behind a footer: that the padding was cut may not have reached the disk.
		if e.blankAt < 0 {
			e.blankAt = l.Offset
		}
	case RecordLine:
		if l.View.Seq != e.next {
			return errSeq
		}
		e.next++
		e.inCommit++
		e.commitDur = max(e.commitDur, l.View.Dur)
		e.see(&l.View)
		if !l.View.More {
			e.v.Records += e.inCommit
			e.inCommit, e.commitDur = 0, 0
			e.v.Last, e.v.End = l.View.Seq, l.End()
		}
	case MarkLine:
		if e.inCommit > 0 {
			return errInCommit
		}
		if l.Mark.Dur >= e.next {
			return errAhead
		}
		e.v.Clock = max(e.v.Clock, l.Mark.Now)
		e.v.End = l.End()
	case FooterLine:
		if e.inCommit > 0 {
			return errInCommit
		}
		e.sealed = true
		e.v.End = l.End()
		want := Footer{Segment: e.v.Header.Segment, First: e.v.Header.First, Last: e.v.Last, Records: e.v.Records, Bytes: l.Offset, CRC: e.crc}
		if l.Footer != want {
			e.damage = &CorruptError{Path: e.path, Offset: l.Offset, Reason: "the footer does not fit the lines before it"}
		}
	case HeaderLine:
		return errUnexpected
	default:
		return l.Reason
	}
	return nil
}

// see notes a record's numbers, of the good run and behind it alike.
func (e *examiner) see(v *View) {
	e.v.MaxSeq = max(e.v.MaxSeq, v.Seq, v.Dur)
}

// witness takes from a line behind the good run what it says about it.
func (e *examiner) witness(l *Line) {
	switch l.Kind {
	case RecordLine:
		e.see(&l.View)
		e.evidence = max(e.evidence, l.View.Dur)
	case MarkLine:
		e.v.MaxSeq = max(e.v.MaxSeq, l.Mark.Dur)
		e.v.Clock = max(e.v.Clock, l.Mark.Now)
		e.evidence = max(e.evidence, l.Mark.Dur)
	case FooterLine:
		e.v.MaxSeq = max(e.v.MaxSeq, l.Footer.Last)
		e.evidence = max(e.evidence, l.Footer.Last)
	}
}

func (e *examiner) verdict(size int64) (Verdict, error) {
	if e.damage != nil {
		return Verdict{}, e.damage
	}
	e.evidence = max(e.evidence, e.commitDur)
	if e.badAt < 0 && e.inCommit > 0 {
		e.fail(e.v.End, errInCommit)
	}
	if e.evidence > e.v.Last {
		return Verdict{}, &CorruptError{
			Path: e.path, Offset: e.badAt, FirstSeq: e.v.Last + 1, LastSeq: e.evidence,
			Reason: e.reason.Error() + ", and a later line proves that this had been durable",
		}
	}
	if e.reason != nil {
		e.v.Tail = &Tail{Offset: e.v.End, Bytes: size - e.v.End, Reason: e.reason.Error()}
	}
	return e.v, nil
}
