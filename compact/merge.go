package compact

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sort"

	"github.com/annalsdb/annals/segment"
)

// source gives lines in the order of a segment by key: from memory, or from a file
// as they are needed.
type source struct {
	first []byte // the first key of one that is not open yet; nil: it is to be opened at once
	chunk *chunk
	at    int // chunk.lines[at] is the next line
	ahead window

	size int                                         // of a chunk that is read from a file
	read func(visit func(*segment.Line) error) error // nil if all lines are in the chunk
	next func() (*chunk, error, bool)
	stop func()
}

var errStopped = errors.New("stopped")

// open makes the first line known. It returns false if there is none.
func (s *source) open() (bool, error) {
	if s.read == nil {
		return len(s.chunk.lines) > 0, nil
	}
	s.next, s.stop = iter.Pull2(s.chunks)
	return s.refill()
}

// chunks reads a file piece by piece.
func (s *source) chunks(yield func(*chunk, error) bool) {
	c := &chunk{}
	err := s.read(func(l *segment.Line) error {
		c.add(l, -1)
		if c.held < s.size {
			return nil
		}
		if !yield(c, nil) {
			return errStopped
		}
		c.clear()
		return nil
	})
	switch {
	case errors.Is(err, errStopped):
	case err != nil:
		yield(nil, err)
	case len(c.lines) > 0:
		yield(c, nil)
	}
}

func (s *source) refill() (more bool, err error) {
	s.chunk, err, more = s.next()
	s.at = 0
	s.ahead.forget()
	return more && err == nil, err
}

// advance goes on to the next line. It returns false if there is none.
func (s *source) advance() (bool, error) {
	if s.at++; s.at < len(s.chunk.lines) {
		return true, nil
	}
	if s.read == nil {
		return false, nil
	}
	return s.refill()
}

// bytes are those of the next line.
func (s *source) bytes() ([]byte, error) { return s.ahead.line(s.chunk, s.at) }

func (s *source) line() *line { return &s.chunk.lines[s.at] }
func (s *source) key() []byte { return s.chunk.nameOf(s.line()) }

func compare(a, b *source) int {
	return cmp.Or(bytes.Compare(a.key(), b.key()), cmp.Compare(a.line().seq, b.line().seq))
}

// mergeAll copies the keys of all sources, and ends the outputs. What is all in memory is
// divided, if two cores may work, and they do.
func (r *run) mergeAll(sources []*source) error {
	lower, upper := r.divide(sources)
	if len(upper) == 0 {
		return r.lanes[0].mergeAll(lower)
	}
	other := &lane{run: r, size: r.evenly(bytesOf(upper))}
	r.lanes[0].size = r.evenly(bytesOf(lower))
	r.lanes = append(r.lanes, other)
	failed := make(chan error)
	go func() { failed <- other.mergeAll(upper) }()
	return errors.Join(r.lanes[0].mergeAll(lower), <-failed)
}

func (r *lane) mergeAll(sources []*source) error {
	if err := r.merge(sources); err != nil {
		return err
	}
	return errors.Join(r.endOutput(), r.join())
}

// divide divides the sources by key into two parts of about as many lines. It returns one
// part if that can't be, or is not worth it.
func (r *run) divide(sources []*source) (lower, upper []*source) {
	most := (*chunk)(nil)
	for _, s := range sources {
		if s.read != nil {
			return sources, nil
		}
		if most == nil || len(s.chunk.lines) > len(most.lines) {
			most = s.chunk
		}
	}
	if !r.parallel || bytesOf(sources) < r.SegmentSize {
		return sources, nil
	}
	key := most.nameOf(&most.lines[len(most.lines)/2])
	for _, s := range sources {
		c := s.chunk
		n := sort.Search(len(c.lines), func(i int) bool { return bytes.Compare(c.nameOf(&c.lines[i]), key) >= 0 })
		if n > 0 {
			lower = append(lower, &source{chunk: c.part(0, n)})
		}
		if n < len(c.lines) {
			upper = append(upper, &source{chunk: c.part(n, len(c.lines))})
		}
	}
	return lower, upper
}

// bytesOf is how long the lines in memory are.
func bytesOf(sources []*source) (n int64) {
	for _, s := range sources {
		for i := range s.chunk.lines {
			n += int64(s.chunk.lines[i].size)
		}
	}
	return n
}

// evenly is how long outputs are to be that hold so many bytes: no more of them than
// there must be, and one as long as the other, so that none keeps a core waiting.
func (r *run) evenly(bytes int64) int64 {
	n := (bytes + bytes/64 + r.SegmentSize - 1) / r.SegmentSize
	return min(r.SegmentSize, (bytes+bytes/64)/n)
}

// merge copies the keys of all sources in their order. A file is opened only when
// its first key comes, so that of many files that follow one another only one is
// in memory.
func (r *lane) merge(waiting []*source) (err error) {
	slices.SortStableFunc(waiting, func(a, b *source) int { return bytes.Compare(a.first, b.first) })
	var open []*source // a heap, the least in front
	defer func() {
		for _, s := range open {
			s.close()
		}
	}()
	m := meter{run: r.run}
	for {
		for len(waiting) > 0 && (len(open) == 0 || bytes.Compare(waiting[0].first, open[0].key()) <= 0) {
			s := waiting[0]
			more, err := s.open()
			waiting = waiting[1:]
			if err != nil {
				s.close()
				return err
			}
			if more {
				open = append(open, s)
				up(open)
			}
		}
		if len(open) == 0 {
			return m.flush()
		}
		s := open[0]
		bytes, err := s.bytes()
		if err != nil {
			return err
		}
		if err := r.add(&m, segment.ByKey, s.line().seq, s.key(), bytes); err != nil {
			return err
		}
		more, err := s.advance()
		if err != nil {
			return err
		}
		if !more {
			open[0] = open[len(open)-1]
			open = open[:len(open)-1]
		}
		down(open)
	}
}

func (s *source) close() {
	if s.stop != nil {
		s.stop()
	}
}

// up moves the last source of a heap to its place.
func up(heap []*source) {
	for i := len(heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if compare(heap[parent], heap[i]) <= 0 {
			return
		}
		heap[parent], heap[i] = heap[i], heap[parent]
		i = parent
	}
}

// down moves the first source of a heap to its place.
func down(heap []*source) {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(heap) {
			return
		}
		if child+1 < len(heap) && compare(heap[child+1], heap[child]) < 0 {
			child++
		}
		if compare(heap[i], heap[child]) <= 0 {
			return
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}

// look divides the inputs into those whose keys lie in order, which are only
// merged, and the others.
func (r *run) look() (runs []*source, others []*Input, err error) {
	apart := false
	for i := range r.Inputs {
		in := &r.Inputs[i]
		apart = apart || in.Apart
		first, ordered, err := peek(in)
		if err != nil {
			return nil, nil, fmt.Errorf("compacting %q: %w", in.Path, err)
		}
		if !ordered {
			later := *in
			later.Apart = apart
			others = append(others, &later)
			apart = false
			continue
		}
		read := func(visit func(*segment.Line) error) error { return r.check(in, visit) }
		runs = append(runs, &source{first: first, size: r.stream, read: read})
	}
	return runs, others, nil
}

// peek tells whether the keys of a segment lie in order, and what the first one
// is. It looks only at the beginning. Whether that, and all the rest, is as it
// should be is found out when the segment is read.
func peek(in *Input) (first []byte, ordered bool, err error) {
	for size := int64(16 << 10); ; size *= 8 {
		s := segment.NewScanner(in.R, 0, min(size, in.Footer.Size()))
		header := s.Scan() && s.Line().Kind == segment.HeaderLine
		if header {
			if h := s.Line().Header; h.Order != segment.ByKey {
				return nil, false, nil
			}
			if s.Scan() && s.Line().Kind == segment.RecordLine {
				return s.Line().View.AppendName(nil), true, nil
			}
		}
		if err := s.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, false, err
		}
		if size >= in.Footer.Size() {
			return nil, header, nil
		}
	}
}

// spill is a file of lines in key order that is needed until they are merged. It
// is a segment like any other, so that it is checked like any other; only, it is
// never synced or listed.
type spill struct {
	*run
	writer *Writer
	footer segment.Footer
}

func (r *run) newSpill(c *chunk) (*spill, error) {
	w, err := NewWriter(r.FS, r.Dir, segment.Header{Store: r.Store, Segment: r.NewSegment(), Order: segment.ByKey, From: r.from})
	if err != nil {
		return nil, err
	}
	s := &spill{run: r, writer: w}
	r.mu.Lock()
	r.spills = append(r.spills, s)
	r.mu.Unlock()
	m := meter{run: r}
	var copies window
	for i := range c.lines {
		bytes, err := copies.line(c, i)
		if err != nil {
			return nil, err
		}
		if _, err := w.Add(c.lines[i].seq, bytes); err != nil {
			return nil, err
		}
		if err := m.add(len(bytes)); err != nil {
			return nil, err
		}
	}
	s.footer, err = w.end()
	return s, err
}

// read reads a spill. What is wrong with it is no damage to the store, whose
// segments are all as they were.
func (s *spill) read(visit func(*segment.Line) error) error {
	problems, err := segment.CheckSealed(s.writer.file, s.footer.Size(), s.writer.path, s.Store, s.footer, visit)
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("what was sorted is not what was written: %v", problems[0])
	}
	return err
}

// removeSpills removes what was put aside. What could not be removed stays noted.
func (r *run) removeSpills() (err error) {
	r.spills = slices.DeleteFunc(r.spills, func(s *spill) bool {
		failed := s.writer.Discard()
		err = errors.Join(err, failed)
		return failed == nil
	})
	return err
}
