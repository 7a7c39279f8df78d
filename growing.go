package annals

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// growing is the segment that is being written, as a reader reads it: line by line,
// behind the writer, never beyond what it may show.
type growing struct {
	replace.File
	path    string
	number  uint64
	first   uint64
	end     atomic.Int64 // behind the last commit that was read
	size    atomic.Int64 // of the file, when it was looked at last
	next    uint64       // the number of the record that comes next
	records uint64       // that were read
	clock   int64        // the latest time in a mark
}

// Size is how much of the file holds lines that were read, for a backup.
func (g *growing) Size() int64 { return g.end.Load() }

// Map maps the segment once it is sealed.
func (g *growing) Map() (*replace.Mapping, error) {
	size, err := replace.SizeOf(g.File)
	if err != nil {
		return nil, err
	}
	return replace.Map(g.File, size)
}

// openGrowing opens the open segment for reading from its first record on.
func (o *opening) openGrowing() (*growing, error) {
	m := &o.manifest
	file, size, err := o.open(m.Open)
	if err != nil {
		return nil, err
	}
	g := &growing{File: file, path: o.path(m.Open), number: m.Open}
	// Its padding may have been cut since it was asked for its size.
	h, line, err := segment.ReadHeader(newlineFilled{file}, size, g.path)
	if err == nil {
		err = g.belongs(&h, m)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	g.first, g.next = h.First, h.First
	g.end.Store(line.End())
	g.size.Store(size)
	return g, nil
}

// belongs tells whether the header is that of the segment that MANIFEST means.
func (g *growing) belongs(h *segment.Header, m *segment.Manifest) error {
	switch {
	case h.Store != m.Store || h.Segment != m.Open:
		return &CorruptError{Path: g.path, Reason: fmt.Sprintf("its header is that of segment %d of store %s", h.Segment, h.Store)}
	case h.From != nil:
		return &CorruptError{Path: g.path, Reason: "a segment made from others can't be the open one"}
	case h.First != m.Seq:
		return wrongFirst(g.path, h.First, m.Seq)
	}
	return nil
}

// Windows of a read: what has come since the last one is mostly little.
const (
	firstWindow = 8 << 10
	mostWindow  = 4 << 20
)

// read calls take with the records that follow, up to number upTo, which is the last
// of a commit and was written before the call. Damage is a *CorruptError, unless pass
// takes it: then the reading goes on behind. What was read of a commit that did not
// end is read again by the next call.
func (g *growing) read(upTo uint64, take func(*segment.Line), pass func(*CorruptError)) error {
	size, err := replace.SizeOf(g.File)
	if err != nil {
		return err
	}
	g.size.Store(size)
	r := run{growing: g, upTo: upTo, take: take, pass: pass, at: g.end.Load(), want: g.next}
	for window := int64(firstWindow); r.want <= upTo; {
		before, limit := r.at, min(r.at+window, size)
		if err := r.scan(limit, size); err != nil {
			return err
		}
		if limit == size {
			break
		}
		if window < mostWindow || r.at == before { // a line may be longer
			window *= 4
		}
	}
	if r.want <= upTo {
		damage := &CorruptError{Path: g.path, Offset: r.at, FirstSeq: r.want, LastSeq: upTo, Reason: "records are missing here that were durable"}
		if pass == nil {
			return damage
		}
		pass(damage)
		g.next = upTo + 1
	}
	return nil
}

// run is one read.
type run struct {
	*growing
	upTo uint64
	take func(*segment.Line)
	pass func(*CorruptError)
	at   int64  // behind the last line that was taken
	want uint64 // the number that comes next
	seen uint64 // records of the commit that has not ended
}

// scan reads the lines up to offset limit of a file that has size bytes, and stops
// before one that goes on behind it.
func (r *run) scan(limit, size int64) error {
	s := segment.NewScanner(newlineFilled{r.File}, r.at, limit)
	for r.want <= r.upTo && s.Scan() {
		l := s.Line()
		if l.Kind == segment.BadLine && l.End() == limit && limit < size {
			return nil
		}
		if err := r.line(l); err != nil {
			return err
		}
	}
	if s.Err() != nil {
		return fmt.Errorf("annals: reading %q: %w", r.path, s.Err())
	}
	return nil
}

func (r *run) line(l *segment.Line) error {
	switch {
	case l.Kind == segment.BlankLine && r.pass != nil:
		return nil // padding that was overwritten in part
	case l.Kind == segment.MarkLine:
		r.clock = max(r.clock, l.Mark.Now)
		r.at = l.End()
		return nil
	case l.Kind == segment.RecordLine && l.View.Seq == r.want:
		r.record(l)
		return nil
	case l.Kind == segment.RecordLine && l.View.Seq > r.want && l.View.Seq <= r.upTo && r.pass != nil:
		r.want = l.View.Seq // the bad line before it was told
		r.record(l)
		return nil
	case r.pass != nil && l.Kind == segment.RecordLine:
		return nil
	}
	damage := &CorruptError{Path: r.path, Offset: l.Offset, FirstSeq: r.want, LastSeq: r.upTo, Reason: "the next record should be here"}
	if l.Reason != nil {
		damage.Reason = l.Reason.Error()
	}
	if r.pass == nil {
		return damage
	}
	damage.LastSeq = 0 // how many it has cost is not known yet
	damage.FirstSeq = 0
	r.pass(damage)
	return nil
}

func (r *run) record(l *segment.Line) {
	r.take(l)
	r.at, r.want = l.End(), l.View.Seq+1
	r.seen++
	if !l.View.More {
		r.end.Store(r.at)
		r.next = r.want
		r.records += r.seen
		r.seen = 0
	}
}

// newlineFilled is a file with newlines behind its end: the writer may just have cut
// its padding off.
type newlineFilled struct{ io.ReaderAt }

var fillOfNewlines = bytes.Repeat([]byte{'\n'}, 64<<10)

func (f newlineFilled) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.ReaderAt.ReadAt(p, off)
	if n < len(p) && errors.Is(err, io.EOF) {
		for n < len(p) {
			n += copy(p[n:], fillOfNewlines)
		}
		err = nil
	}
	return n, err
}

// NextData passes on what the file knows of its holes.
func (f newlineFilled) NextData(off int64) int64 {
	if file, ok := f.ReaderAt.(interface{ NextData(int64) int64 }); ok {
		return file.NextData(off)
	}
	return off
}
