package segment

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

// maxProblems bounds what one segment adds to a report.
const maxProblems = 1000

// CheckSealed reads a sealed segment, r of the given size, from end to end and
// holds it against what MANIFEST says of it. It calls visit, if that is not nil,
// with each valid record line, and stops at its error. It returns all the
// damage; the error is one of reading or of visit. What is bad between two
// records is one problem.
func CheckSealed(r io.ReaderAt, size int64, path, store string, want Footer, visit func(*Line) error) ([]*CorruptError, error) {
	c := checker{path: path, want: want, visit: visit}
	h, line, err := ReadHeader(r, size, path)
	if err == nil {
		err = h.belongs(path, store, want.Segment)
	}
	if damage, ok := err.(*CorruptError); ok {
		// Without a header nothing says what the lines mean.
		damage.FirstSeq, damage.LastSeq = want.First, want.Last
		return []*CorruptError{damage}, nil
	} else if err != nil {
		return nil, err
	}
	c.begin(h, line)
	s := NewScanner(r, line.End(), size)
	s.startSum(c.got.CRC)
	for s.Scan() {
		if s.line.Kind == FooterLine && !c.ended {
			c.got.CRC = s.sumBefore()
		}
		if err := c.take(s.Line()); err != nil {
			return c.problems, err
		}
	}
	if s.Err() != nil {
		return c.problems, fmt.Errorf("%q: %w", path, s.Err())
	}
	c.end(size)
	return c.problems, nil
}

// checker holds the state of CheckSealed between two lines.
type checker struct {
	path  string
	want  Footer
	visit func(*Line) error

	header   Header
	got      Footer
	next     uint64        // in a segment without gaps, the seq that must come
	last     uint64        // the seq of the latest record
	name     []byte        // in key order, the latest record's key
	nextName []byte        // room for the next one's
	inCommit bool          // the latest record had "more"
	ended    bool          // the footer was read
	open     *CorruptError // the run of bad lines that has not ended
	problems []*CorruptError
}

func (c *checker) begin(h Header, l *Line) {
	c.header, c.next = h, h.First
	c.got = Footer{Segment: h.Segment, Bytes: l.End(), CRC: Checksum(0, l.Bytes)}
}

func (c *checker) report(offset int64, reason error) *CorruptError {
	e := &CorruptError{Path: c.path, Offset: offset, Reason: reason.Error()}
	switch len(c.problems) {
	case maxProblems:
	case maxProblems - 1:
		e.Reason += fmt.Sprintf("; more than %d problems, the rest is not listed", maxProblems)
		fallthrough
	default:
		c.problems = append(c.problems, e)
	}
	return e
}

// bad begins or goes on with a run of bad lines.
func (c *checker) bad(offset int64, reason error) {
	if c.open == nil {
		c.open = c.report(offset, reason)
	}
}

func (c *checker) take(l *Line) error {
	if c.ended {
		c.bad(l.Offset, errAfter)
		return nil
	}
	switch l.Kind {
	case RecordLine:
		if err := c.record(l); err != nil {
			return err
		}
	case MarkLine:
		// It does not end a run of bad lines: only a record tells what the run cost,
		// and the bad line before may have been the commit's end.
		if c.open == nil && (c.inCommit || c.header.Compacted()) {
			c.report(l.Offset, errUnexpected)
		}
	case FooterLine:
		c.footer(l)
		return nil
	case BlankLine:
		c.bad(l.Offset, errBlank)
	case HeaderLine:
		c.bad(l.Offset, errUnexpected)
	default:
		c.bad(l.Offset, l.Reason)
	}
	c.got.Bytes = l.End()
	return nil
}

func (c *checker) record(l *Line) error {
	v := &l.View
	if c.header.Compacted() {
		if !c.inOrder(l) {
			return nil // nobody would look for it here
		}
	} else {
		c.sequence(l.Offset, v.Seq)
		c.inCommit = v.More
	}
	c.open = nil
	c.last = v.Seq
	if c.got.Records == 0 {
		c.got.First = v.Seq
	}
	c.got.First = min(c.got.First, v.Seq)
	c.got.Last = max(c.got.Last, v.Seq)
	c.got.Records++
	if c.visit != nil {
		return c.visit(l)
	}
	return nil
}

// inOrder checks that a record of a compacted segment is of the kind that the
// segment is for, and belongs behind the last one that did.
func (c *checker) inOrder(l *Line) bool {
	v := &l.View
	if (v.Kind == Sample) != (c.header.Order == BySeq) {
		c.report(l.Offset, errUnexpected)
		return false
	}
	compared := 0
	if c.header.Order == ByKey {
		c.nextName = appendDecoded(c.nextName[:0], v.name, v.nameAs)
		compared = bytes.Compare(c.nextName, c.name)
	}
	if compared < 0 || compared == 0 && v.Seq <= c.last {
		c.report(l.Offset, errOrder)
		return false
	}
	c.name, c.nextName = c.nextName, c.name
	return true
}

// sequence checks that seq is the one that must come, and gives the bad lines
// before it, or the gap, the range of numbers that is missing.
func (c *checker) sequence(offset int64, seq uint64) {
	if seq != c.next {
		if c.open == nil {
			c.open = c.report(offset, errSeq)
		}
		if seq > c.next {
			c.open.FirstSeq, c.open.LastSeq = c.next, seq-1
		}
	}
	c.next = max(c.next, seq+1)
}

func (c *checker) footer(l *Line) {
	c.ended = true
	if c.inCommit {
		c.report(l.Offset, errInCommit)
	}
	c.lose(l.Offset)
	switch {
	case !bytes.Equal(l.Bytes, c.want.AppendLine(nil)):
		c.report(l.Offset, fmt.Errorf("the footer is not the one that MANIFEST lists"))
	case len(c.problems) == 0 && c.got != c.want:
		// The sums notice also what the lines themselves do not, and nobody can say
		// where it is: a line of a compacted segment, or a mark, that is there twice or
		// not at all.
		c.report(0, fmt.Errorf("counts or checksum of the whole file differ from MANIFEST: found %+v, listed %+v", c.got, c.want))
	}
}

// lose reports the records up to the end that never came, as the cost of the bad
// lines before offset if there are any.
func (c *checker) lose(offset int64) {
	if !c.header.Compacted() && c.next <= c.want.Last {
		c.bad(offset, errSeq)
		c.open.FirstSeq, c.open.LastSeq = c.next, c.want.Last
	}
	c.open = nil
}

// end looks back when the last line was read. That the file is not as long as it
// should be needs no look of its own: something before has told it.
func (c *checker) end(size int64) {
	if !c.ended {
		c.bad(size, fmt.Errorf("the footer is missing"))
		c.lose(size)
	}
}

// HoldsKeys tells whether a segment with this header may hold puts and deletes, so
// that damage in it can hide the newest value of a key.
func (h *Header) HoldsKeys() bool { return h.Order != BySeq }

// MadeFrom tells whether the segment is a copy of segment n.
func (h *Header) MadeFrom(n uint64) bool { return slices.Contains(h.From, n) }
