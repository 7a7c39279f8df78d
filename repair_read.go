package annals

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// repairFile is a segment file as it was read.
type repairFile struct {
	path   string
	name   uint64 // the number in its name
	number uint64 // of the segment that it is, by its header or footer, else by its name
	size   int64
	bad    []badRegion

	header  *segment.Header // nil if there is no whole one
	footer  *segment.Footer // its last one; nil if there is none
	listed  *segment.Footer // what MANIFEST says of it
	records uint64
	first   uint64 // the least seq
	last    uint64 // the greatest
	latest  uint64 // of the record read last
	durable uint64 // what had been durable when its lines were written
	gaps    bool   // numbers are missing, or in disorder, where no line is bad
	open    bool   // the last of bad has not ended

	out      string // why it is no part of the store; "" if it is
	copies   bool   // all that it holds is in other files too
	donor    bool   // no part, but it may hold copies of what the store has lost
	from, to uint64 // records outside of these are not believed
}

// badRegion is a run of bytes that are no good lines.
type badRegion struct {
	offset, size int64
	after        uint64 // the record before it; 0 if there is none
	before       uint64 // the record behind it; 0 if there is none
	reason       string
}

// written tells whether numbers follow each other in the file. Without a header
// that is so if they do, and if there were as many as their range says.
func (f *repairFile) written() bool {
	if f.header != nil {
		return !f.header.Compacted()
	}
	k := f.known()
	return !f.gaps && (k == nil || dense(k))
}

// known returns what MANIFEST, or else the file's own footer, says of it.
func (f *repairFile) known() *segment.Footer {
	if f.listed != nil {
		return f.listed
	}
	return f.footer
}

// readFile notes every whole line of a segment file.
func (r *repairer) readFile(name uint64) (err error) {
	f := &repairFile{path: filepath.Join(r.dir, segment.Name(name)), name: name, number: name, to: maxNumber}
	file, err := r.source.OpenFile(f.path, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, replace.ErrNotRegular):
		r.leaveOut(f.path, "it is not a regular file")
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil // gone just now: it counts as missing
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	f.size = info.Size()
	r.files = append(r.files, f)
	r.report.Segments++
	scan := segment.NewScanner(file, 0, f.size)
	for scan.Scan() {
		if err := r.readLine(f, file, scan.Line()); err != nil {
			return err
		}
	}
	if scan.Err() != nil {
		return fmt.Errorf("%q: %w", f.path, scan.Err())
	}
	switch {
	case f.header != nil:
		f.number = f.header.Segment
	case f.footer != nil:
		f.number = f.footer.Segment
	}
	return nil
}

func (r *repairer) leaveOut(path, reason string) {
	r.report.LeftOut = append(r.report.LeftOut, LeftOut{path, reason})
}

func (r *repairer) readLine(f *repairFile, file replace.File, l *segment.Line) error {
	if l.Kind != segment.BadLine {
		return r.take(f, l)
	}
	f.damaged(l)
	windows, err := searched(file, l)
	if err != nil {
		return err
	}
	for i := range windows {
		if err := windows[i].Inside(func(inner *segment.Line) error {
			err := r.take(f, inner)
			f.after(inner.End(), l)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// searched returns the parts of a bad line that may hold good ones. Of one that is
// too long to be read at once these are its ends: what makes a line endless is a
// hole, and good lines are glued to either side of it.
func searched(file replace.File, l *segment.Line) ([]segment.Line, error) {
	const window = 32 << 20
	if l.Bytes != nil {
		return []segment.Line{*l}, nil
	}
	var ends []segment.Line
	for _, at := range [...]int64{l.Offset, l.End() - window} {
		part := segment.Line{Offset: at, Bytes: make([]byte, window), Size: window}
		if _, err := file.ReadAt(part.Bytes, at); err != nil {
			return nil, err
		}
		ends = append(ends, part)
	}
	return ends, nil
}

// damaged takes a bad line: it begins a region, or goes on with one.
func (f *repairFile) damaged(l *segment.Line) {
	if !f.open {
		f.bad = append(f.bad, badRegion{offset: l.Offset, after: f.latest, reason: l.Reason.Error()})
		f.open = true
	}
	b := &f.bad[len(f.bad)-1]
	b.size = l.End() - b.offset
}

// after opens a region for the rest of a bad line behind a good one inside it. Its
// bytes are kept with those of the line.
func (f *repairFile) after(end int64, l *segment.Line) {
	if !f.open && end < l.End()-1 { // a newline is no rest
		f.bad = append(f.bad, badRegion{offset: end, after: f.latest, reason: l.Reason.Error()})
		f.open = true
	}
}

// take notes a good line.
func (r *repairer) take(f *repairFile, l *segment.Line) error {
	switch l.Kind {
	case segment.HeaderLine:
		if f.header == nil && f.records == 0 {
			h := l.Header
			f.header, f.latest = &h, max(h.First, 1)-1
			return nil
		}
		fallthrough
	default:
		l.Reason = errors.New("line of a kind that does not belong here")
		f.damaged(l)
	case segment.BlankLine: // padding, or harmless
	case segment.MarkLine:
		f.durable = max(f.durable, l.Mark.Dur)
		r.manifest.Clock = max(r.manifest.Clock, l.Mark.Now)
	case segment.FooterLine:
		footer := l.Footer
		f.footer = &footer
	case segment.RecordLine:
		if l.View.Seq > maxNumber {
			l.Reason = errors.New("its number is too great for a store that is to go on")
			f.damaged(l)
			return nil
		}
		r.record(f, l)
	}
	return nil
}

// record notes a good record.
func (r *repairer) record(f *repairFile, l *segment.Line) {
	v := &l.View
	switch {
	case v.Seq <= f.latest:
		f.gaps = true
	case f.open:
		f.bad[len(f.bad)-1].before = v.Seq
	case v.Seq > f.latest+1 && (f.header != nil && !f.header.Compacted()):
		f.bad = append(f.bad, badRegion{offset: l.Offset, after: f.latest, before: v.Seq, reason: "lines are missing here"})
	case v.Seq > f.latest+1 && f.latest > 0:
		f.gaps = true
	}
	f.open, f.latest = false, v.Seq
	if f.records == 0 {
		f.first = v.Seq
	}
	f.first, f.last = min(f.first, v.Seq), max(f.last, v.Seq)
	f.durable = max(f.durable, v.Dur)
	f.records++
	s := savedRecord{seq: v.Seq, offset: l.Offset, file: int32(len(r.files) - 1), size: uint32(l.Size)}
	if l.Bytes[l.Size-1] == '\n' {
		s.size--
	}
	if v.Kind == segment.Sample {
		s.size |= isSample
	}
	if v.More {
		s.size |= isMore
	}
	if len(r.saved) == cap(r.saved) { // by a quarter: there may be very many
		r.saved = slices.Grow(r.saved, len(r.saved)/4+1024)
	}
	r.saved = append(r.saved, s)
}
