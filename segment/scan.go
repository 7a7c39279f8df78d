package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// LineKind tells the lines of a segment apart.
type LineKind uint8

// The kinds of lines.
const (
	BadLine    LineKind = iota // not a valid line; see Line.Reason
	BlankLine                  // a newline alone, or some: padding
	HeaderLine                 // see Line.Header
	RecordLine                 // see Line.View
	MarkLine                   // see Line.Mark
	FooterLine                 // see Line.Footer
)

// Line is one line of a segment. What it holds is valid until the next one is
// read.
type Line struct {
	Kind   LineKind
	Offset int64  // of its first byte in the file
	Bytes  []byte // the whole line with its newline; nil if it is longer than MaxLine
	Size   int64  // its length with the newline
	Reason error  // why a BadLine is bad

	View   View
	Mark   Mark
	Header Header
	Footer Footer
}

// End is the offset behind the line.
func (l *Line) End() int64 { return l.Offset + l.Size }

// Scanner reads the lines of a part of a file, good and bad: after a bad line it
// goes on behind the next newline. It holds one line in memory, and skips what
// is longer than MaxLine.
type Scanner struct {
	r        io.ReaderAt
	next     int64 // offset of the first byte not yet in buf
	end      int64
	buf      []byte // unread bytes are buf[pos:]
	pos      int
	line     Line
	err      error
	searched int // buf[pos:pos+searched] holds no newline

	joining bool // newlines in a row are one BlankLine: padding is up to a whole segment

	summing bool
	sum     uint32 // of the bytes before buf[summed:], if summing
	summed  int
}

// scanChunk is how much is read at a time.
const scanChunk = 256 << 10

// NewScanner reads the bytes from offset from to offset to.
func NewScanner(r io.ReaderAt, from, to int64) *Scanner {
	return &Scanner{r: r, next: from, end: to}
}

// Scan reads the next line and tells whether there was one. It returns false at
// the end and after an error.
func (s *Scanner) Scan() bool {
	raw, size, ok := s.raw()
	if !ok {
		return false
	}
	l := &s.line
	if l.Kind > RecordLine { // all of it, for every record, would cost as much as the newline does
		l.Mark, l.Header, l.Footer = Mark{}, Header{}, Footer{}
	}
	l.Kind, l.Offset, l.Bytes, l.Size, l.Reason = BadLine, s.next-int64(len(s.buf)-s.pos)-size, raw, size, nil
	l.View = View{}
	if raw == nil {
		l.Reason = errLong
		return true
	}
	l.classify()
	return true
}

// startSum makes the scanner go on with a CRC32 over all that it reads, to be asked
// for by sumBefore. A chunk at a time that costs a third of what it does line by line.
func (s *Scanner) startSum(crc uint32) { s.summing, s.sum = true, crc }

// sumBefore returns the CRC32 of all bytes before the present line.
func (s *Scanner) sumBefore() uint32 {
	s.sumTo(s.pos - len(s.line.Bytes))
	return s.sum
}

// sumTo takes the bytes before buf[n:] into the sum.
func (s *Scanner) sumTo(n int) {
	if s.summing && n > s.summed {
		s.sum = Checksum(s.sum, s.buf[s.summed:n])
		s.summed = n
	}
}

// Line returns the line that Scan read.
func (s *Scanner) Line() *Line { return &s.line }

// Err returns the read error that ended the scan. A file that ends before the
// asked for end is io.ErrUnexpectedEOF.
func (s *Scanner) Err() error { return s.err }

// raw returns the bytes up to the next newline, included, or up to the end; nil
// for a line above MaxLine, of which only the size is known.
func (s *Scanner) raw() (line []byte, size int64, ok bool) {
	skipped := int64(0)
	for {
		unread := s.buf[s.pos:]
		if i := bytes.IndexByte(unread[s.searched:], '\n'); i >= 0 {
			n := s.searched + i + 1
			if s.joining && n == 1 && skipped == 0 {
				n = newlines(unread)
			}
			s.pos += n
			s.searched = 0
			if skipped > 0 || n > MaxLine {
				return nil, skipped + int64(n), true
			}
			return unread[:n:n], int64(n), true
		}
		s.searched = len(unread)
		if skipped > 0 || len(unread) > MaxLine { // drop what cannot be a line any more
			skipped += int64(len(unread))
			s.pos, s.searched = len(s.buf), 0
		}
		if skipped > 0 {
			skipped += s.skipHole()
		}
		more, err := s.fill()
		if err != nil {
			s.err = err
			return nil, 0, false
		}
		if !more {
			rest := s.buf[s.pos:]
			s.pos, s.searched = len(s.buf), 0
			size = skipped + int64(len(rest))
			if skipped > 0 {
				rest = nil
			}
			return rest, size, size > 0
		}
	}
}

// newlines returns how many there are at the beginning of b.
func newlines(b []byte) (n int) {
	for len(b)-n >= len(blanks) && [len(blanks)]byte(b[n:]) == blanks {
		n += len(blanks)
	}
	for n < len(b) && b[n] == '\n' {
		n++
	}
	return n
}

var blanks = [64]byte(bytes.Repeat([]byte{'\n'}, 64))

// skipHole goes on behind a hole of a sparse file, where the reader knows one with
// a method NextData(offset): it returns the first offset from there on that may be
// data. Only what is no line any more is skipped unread.
func (s *Scanner) skipHole() (skipped int64) {
	if h, ok := s.r.(interface{ NextData(int64) int64 }); ok {
		skipped = max(min(h.NextData(s.next), s.end)-s.next, 0)
		s.next += skipped
	}
	return skipped
}

// fill reads the next chunk behind the unread bytes. The buffer doubles as bytes
// really arrive, never by what a file claims, and holds at most MaxLine and a
// chunk.
func (s *Scanner) fill() (more bool, err error) {
	want := min(s.end-s.next, scanChunk)
	if want <= 0 {
		return false, nil
	}
	unread := len(s.buf) - s.pos
	s.sumTo(s.pos)
	s.summed = max(s.summed-s.pos, 0)
	if s.pos > 0 { // else a long line is still growing where it lies
		copy(s.buf, s.buf[s.pos:])
		s.buf, s.pos = s.buf[:unread], 0
	}
	if need := unread + int(want); need > cap(s.buf) {
		size := max(need, 2*cap(s.buf))
		if size >= MaxLine {
			size = MaxLine + scanChunk
		}
		grown := make([]byte, unread, size)
		copy(grown, s.buf)
		s.buf = grown
	}
	n, err := s.r.ReadAt(s.buf[unread:unread+int(want)], s.next)
	s.buf = s.buf[:unread+n]
	s.next += int64(n)
	switch {
	case n == int(want):
		return true, nil
	case err == nil || errors.Is(err, io.EOF):
		return false, io.ErrUnexpectedEOF
	}
	return false, err
}

// classify finds out what the line is.
func (l *Line) classify() {
	n := len(l.Bytes) - 1
	if l.Bytes[n] != '\n' {
		l.Reason = errNoNewline
		return
	}
	if l.Bytes[0] == '\n' {
		l.Kind = BlankLine
		return
	}
	object, err := checkLine(l.Bytes[:n])
	if err == nil {
		err = l.decode(object)
	}
	if err != nil {
		l.Kind, l.Reason = BadLine, err
	}
}

func (l *Line) decode(object []byte) (err error) {
	switch {
	case bytes.HasPrefix(object, []byte(`{"seq":`)):
		l.Kind = RecordLine
		err = l.View.decodeRecord(object)
	case bytes.HasPrefix(object, []byte(`{"dur":`)):
		l.Kind = MarkLine
		l.Mark, err = parseMark(object)
	case bytes.HasPrefix(object, []byte(`{"annals":`)):
		l.Kind = HeaderLine
		l.Header, err = parseHeader(object)
	case bytes.HasPrefix(object, []byte(`{"sealed":`)):
		l.Kind = FooterLine
		l.Footer, err = parseFooter(object)
	default:
		err = errObject
	}
	return err
}

// ReadHeader reads the header of the segment that r is, of the given size. A
// missing or bad one is a *CorruptError, a newer one wraps ErrNewerFormat, any
// other error is one of reading.
func ReadHeader(r io.ReaderAt, size int64, path string) (Header, *Line, error) {
	s := NewScanner(r, 0, size)
	if !s.Scan() {
		if s.Err() != nil {
			return Header{}, nil, fmt.Errorf("%q: %w", path, s.Err())
		}
		return Header{}, nil, &CorruptError{Path: path, Reason: "file is empty, the header is missing"}
	}
	l := s.Line()
	switch {
	case l.Kind == HeaderLine:
		return l.Header, l, nil
	case errors.Is(l.Reason, ErrNewerFormat):
		return Header{}, nil, fmt.Errorf("%q: %w", path, l.Reason)
	case l.Reason != nil:
		return Header{}, nil, &CorruptError{Path: path, Reason: "header: " + l.Reason.Error()}
	}
	return Header{}, nil, &CorruptError{Path: path, Reason: "the first line is not a header"}
}
