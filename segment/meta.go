package segment

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Format is the number of the format that this version writes, in every header.
const Format = 1

// storeDigits is the length of a store's identity: 128 random bits in hex.
const storeDigits = 32

// Header is the first line of a segment.
type Header struct {
	Store   string   // the store's identity, 32 hex digits
	Segment uint64   // the number in the file's name
	First   uint64   // the seq that its first record has or would have; 0 in a compacted one
	From    []uint64 // the segments it was made from; nil in one as first written
	Order   Order    // of a compacted one; Written otherwise
}

// Order is how the records of a segment lie.
type Order string

// The orders of a segment.
const (
	Written Order = ""    // as first written: every seq from First on, without a gap
	ByKey   Order = "key" // compacted: puts and deletes, ordered by key, then seq
	BySeq   Order = "seq" // compacted: samples, ordered by seq
)

// Compacted tells whether lines stand alone and sequence numbers have gaps.
func (h *Header) Compacted() bool { return h.Order != Written }

// AppendLine appends the header line.
func (h *Header) AppendLine(dst []byte) []byte {
	start := len(dst)
	dst = appendAnnals(dst, h.Store)
	dst = appendField(dst, `,"segment":`, h.Segment)
	if !h.Compacted() {
		dst = appendField(dst, `,"first":`, h.First)
	}
	for i, n := range h.From {
		sep := `,`
		if i == 0 {
			sep = `,"from":[`
		}
		dst = appendField(dst, sep, n)
	}
	if len(h.From) > 0 {
		dst = append(dst, ']')
	}
	if h.Compacted() {
		dst = append(dst, `,"compacted":true,"order":"`...)
		dst = append(dst, h.Order...)
		dst = append(dst, '"')
	}
	dst = append(dst, '}')
	return appendCRC(dst, start)
}

func appendAnnals(dst []byte, store string) []byte {
	dst = append(dst, `{"annals":`...)
	dst = strconv.AppendInt(dst, Format, 10)
	dst = append(dst, `,"store":"`...)
	dst = append(dst, store...)
	return append(dst, '"')
}

func appendField(dst []byte, name string, n uint64) []byte {
	return strconv.AppendUint(append(dst, name...), n, 10)
}

// annals takes the format number and the store's identity.
func (p *parser) annals() (store string, err error) {
	p.expect(`{"annals":`)
	if format := p.seq(); !p.bad && format != Format {
		return "", fmt.Errorf("%w: format %d, this version knows %d", ErrNewerFormat, format, Format)
	}
	p.expect(`,"store":"`)
	return p.hex(storeDigits), nil
}

func parseHeader(object []byte) (h Header, err error) {
	p := parser{b: object}
	if h.Store, err = p.annals(); err != nil {
		return Header{}, err
	}
	p.expect(`,"segment":`)
	h.Segment = p.seq()
	if p.accept(`,"first":`) {
		h.First = p.seq()
	}
	if p.accept(`,"from":[`) {
		h.From = append(h.From, p.seq())
		for p.accept(`,`) {
			h.From = append(h.From, p.seq())
		}
		p.expect(`]`)
	}
	if p.accept(`,"compacted":true,"order":"`) {
		if p.accept(`key"`) {
			h.Order = ByKey
		} else {
			p.expect(`seq"`)
			h.Order = BySeq
		}
	}
	p.end(`}`)
	// A compacted segment names its inputs and has no first; any other has one.
	if p.bad || h.Compacted() != (h.First == 0) || h.Compacted() && h.From == nil {
		return Header{}, errObject
	}
	return h, nil
}

// Footer is the last line of a sealed segment, and its entry in MANIFEST.
type Footer struct {
	Segment uint64
	First   uint64 // least seq
	Last    uint64 // greatest seq
	Records uint64
	Bytes   int64  // of the file before the footer
	CRC     uint32 // of these bytes
}

// AppendLine appends the footer line.
func (f *Footer) AppendLine(dst []byte) []byte {
	start := len(dst)
	dst = appendField(dst, `{"sealed":`, f.Segment)
	dst = appendField(dst, `,"first":`, f.First)
	dst = appendField(dst, `,"last":`, f.Last)
	dst = appendField(dst, `,"records":`, f.Records)
	dst = appendField(dst, `,"bytes":`, uint64(f.Bytes))
	dst = append(dst, `,"crc":"`...)
	dst = appendHex(dst, f.CRC)
	dst = append(dst, `"}`...)
	return appendCRC(dst, start)
}

// Size is the length of the whole file that ends with this footer.
func (f *Footer) Size() int64 { return f.Bytes + int64(len(f.AppendLine(nil))) }

func parseFooter(object []byte) (Footer, error) {
	var f Footer
	p := parser{b: object}
	p.expect(`{"sealed":`)
	f.Segment = p.seq()
	p.expect(`,"first":`)
	f.First = p.seq()
	p.expect(`,"last":`)
	f.Last = p.seq()
	p.expect(`,"records":`)
	f.Records = p.number()
	p.expect(`,"bytes":`)
	f.Bytes = int64(p.number())
	p.expect(`,"crc":"`)
	crc, err := strconv.ParseUint(p.hex(8), 16, 32)
	f.CRC = uint32(crc)
	p.end(`}`)
	if p.bad || err != nil || f.First > f.Last || f.Records == 0 {
		return Footer{}, errObject
	}
	return f, nil
}

// Mark says that all records up to Dur had been durable when it was written, and
// what the store's time was, in microseconds.
type Mark struct {
	Dur uint64
	Now int64
}

// AppendLine appends the mark's line.
func (m *Mark) AppendLine(dst []byte) []byte {
	start := len(dst)
	dst = appendField(dst, `{"dur":`, m.Dur)
	dst = append(dst, `,"now":`...)
	dst = appendTime(dst, m.Now)
	dst = append(dst, '}')
	return appendCRC(dst, start)
}

func parseMark(object []byte) (Mark, error) {
	var m Mark
	p := parser{b: object}
	p.expect(`{"dur":`)
	m.Dur = p.number()
	p.expect(`,"now":`)
	m.Now = p.time()
	p.end(`}`)
	if p.bad {
		return Mark{}, errObject
	}
	return m, nil
}

// Manifest is the contents of the file MANIFEST: which segments live. It is
// replaced as a whole.
type Manifest struct {
	Store      string
	Generation uint64 // one more in each
	Open       uint64 // the segment being written; 0 in a cleanly closed store
	Next       uint64 // the number of the next new segment
	Seq        uint64 // no record outside the open segment has reached it
	History    uint64 // from here on every record is there, in order
	Clock      int64  // the store's time when this was written
	Sealed     []Footer
}

// Append appends the text of the file.
func (m *Manifest) Append(dst []byte) []byte {
	start := len(dst)
	dst = appendAnnals(dst, m.Store)
	dst = appendField(dst, `,"generation":`, m.Generation)
	dst = appendField(dst, `,"segments":`, uint64(len(m.Sealed)))
	if m.Open != 0 {
		dst = appendField(dst, `,"open":`, m.Open)
	}
	dst = appendField(dst, `,"next":`, m.Next)
	dst = appendField(dst, `,"seq":`, m.Seq)
	dst = appendField(dst, `,"history":`, m.History)
	dst = append(dst, `,"clock":`...)
	dst = appendTime(dst, m.Clock)
	dst = append(dst, '}')
	dst = appendCRC(dst, start)
	for i := range m.Sealed {
		dst = m.Sealed[i].AppendLine(dst)
	}
	return dst
}

// ParseManifest reads the text of MANIFEST. Anything but exactly what Append
// writes is a *CorruptError with the offset, and path as its path, or wraps
// ErrNewerFormat.
func ParseManifest(path string, text []byte) (Manifest, error) {
	return ReadManifest(path, bytes.NewReader(text), int64(len(text)))
}

// ReadManifest is ParseManifest for a file of the given size. It stops at the
// first damage, and takes no more memory than the footers before that need. Any
// other error is one of reading.
func ReadManifest(path string, r io.ReaderAt, size int64) (m Manifest, err error) {
	damage := func(offset int64, reason error) (Manifest, error) {
		return Manifest{}, &CorruptError{Path: path, Offset: offset, Reason: reason.Error()}
	}
	s := NewScanner(r, 0, size)
	if !s.Scan() {
		if s.Err() != nil {
			return Manifest{}, fmt.Errorf("%q: %w", path, s.Err())
		}
		return damage(0, errNoNewline)
	}
	m, count, err := s.Line().manifestHead()
	if errors.Is(err, ErrNewerFormat) {
		return Manifest{}, fmt.Errorf("%q: %w", path, err)
	}
	if err != nil {
		return damage(0, err)
	}
	for s.Scan() {
		l := s.Line()
		if l.Kind != FooterLine {
			return damage(l.Offset, cmp.Or(l.Reason, errObject))
		}
		if n := len(m.Sealed); n > 0 && m.Sealed[n-1].Segment >= l.Footer.Segment {
			return damage(l.Offset, fmt.Errorf("segment %d behind segment %d", l.Footer.Segment, m.Sealed[n-1].Segment))
		}
		m.Sealed = append(m.Sealed, l.Footer)
	}
	if s.Err() != nil {
		return Manifest{}, fmt.Errorf("%q: %w", path, s.Err())
	}
	return m, m.check(path, count)
}

// manifestHead reads a line as MANIFEST's first, which a Scanner does not know.
func (l *Line) manifestHead() (m Manifest, count uint64, err error) {
	object, whole := bytes.CutSuffix(l.Bytes, []byte("\n"))
	if !whole {
		return Manifest{}, 0, cmp.Or(l.Reason, errNoNewline)
	}
	if object, err = checkLine(object); err != nil {
		return Manifest{}, 0, err
	}
	return parseManifestHead(object)
}

// SalvageManifest returns what the good lines of a damaged MANIFEST say: r, size
// bytes long. Without a good head Store is "". It holds one line in memory and the
// footers that it finds. The error wraps ErrNewerFormat or is one of reading.
func SalvageManifest(r io.ReaderAt, size int64) (m Manifest, err error) {
	take := func(l *Line) error {
		if l.Kind == FooterLine {
			m.Sealed = append(m.Sealed, l.Footer)
		}
		return nil
	}
	s := NewScanner(r, 0, size)
	for s.Scan() {
		l := s.Line()
		if l.Kind != BadLine {
			take(l)
			continue
		}
		head, _, err := l.manifestHead()
		if errors.Is(err, ErrNewerFormat) {
			return m, err
		}
		if err == nil && m.Store == "" {
			head.Sealed = m.Sealed
			m = head
			continue
		}
		l.Inside(take) // it fails where take does, which never does
	}
	return m, s.Err()
}

func parseManifestHead(object []byte) (m Manifest, count uint64, err error) {
	p := parser{b: object}
	if m.Store, err = p.annals(); err != nil {
		return Manifest{}, 0, err
	}
	p.expect(`,"generation":`)
	m.Generation = p.seq()
	p.expect(`,"segments":`)
	count = p.number()
	if p.accept(`,"open":`) {
		m.Open = p.seq()
	}
	p.expect(`,"next":`)
	m.Next = p.seq()
	p.expect(`,"seq":`)
	m.Seq = p.seq()
	p.expect(`,"history":`)
	m.History = p.seq()
	p.expect(`,"clock":`)
	m.Clock = p.time()
	p.end(`}`)
	if p.bad {
		return Manifest{}, 0, errObject
	}
	return m, count, nil
}

// check holds the parts against each other.
func (m *Manifest) check(path string, count uint64) error {
	reason := ""
	if count != uint64(len(m.Sealed)) {
		reason = fmt.Sprintf("lists %d segments but announces %d", len(m.Sealed), count)
	}
	if m.Open != 0 && m.Open >= m.Next {
		reason = fmt.Sprintf("open segment %d is not below next %d", m.Open, m.Next)
	}
	if m.History > m.Seq {
		reason = fmt.Sprintf("history %d is above seq %d", m.History, m.Seq)
	}
	for i := range m.Sealed {
		f := &m.Sealed[i]
		if f.Segment >= m.Next || f.Segment == m.Open || f.Last >= m.Seq {
			reason = fmt.Sprintf("segment %d with records up to %d does not fit open %d, next %d, seq %d", f.Segment, f.Last, m.Open, m.Next, m.Seq)
		}
	}
	if reason != "" {
		return &CorruptError{Path: path, Reason: reason}
	}
	return nil
}
