package compact

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// chunk holds lines, with their names as they sort. Lines of an input that is mapped
// stay where they are, the others are copied.
type chunk struct {
	lines  []line
	names  []byte // of each line: the name's length, in four bytes, and the name
	arena  []byte
	inputs []*Input // whose lines stay where they are
	held   int      // bytes of lines and names
}

// line is one in a chunk.
type line struct {
	head  uint64 // what tells its name from most others, once it is sorted
	seq   uint64
	at    uint32 // in the arena, or in the input
	size  uint32
	name  uint32 // in names
	input uint32 // inputs[input-1]; 0: it is in the arena
}

// add takes in a line that lies in an input, given by its place in inputs, or, if that is
// -1, in memory that changes.
func (c *chunk) add(l *segment.Line, input int) {
	n := line{seq: l.View.Seq, size: uint32(len(l.Bytes)), name: uint32(len(c.names))}
	if input >= 0 && l.End() <= min(int64(len(c.inputs[input].Mapped)), math.MaxUint32) {
		n.at, n.input = uint32(l.Offset), uint32(input+1)
	} else {
		n.at = uint32(len(c.arena))
		c.arena = append(c.arena, l.Bytes...)
	}
	c.names = append(c.names, 0, 0, 0, 0)
	c.names = l.View.AppendName(c.names)
	length := len(c.names) - int(n.name) - nameHead
	binary.LittleEndian.PutUint32(c.names[n.name:], uint32(length))
	c.held += len(l.Bytes) + length
	c.lines = append(c.lines, n)
}

const nameHead = 4

func (c *chunk) nameOf(l *line) []byte {
	n := binary.LittleEndian.Uint32(c.names[l.name:])
	return c.names[l.name+nameHead:][:n]
}

// place is where a line is. Who touches it must expect a fault.
func (c *chunk) place(l *line) []byte {
	in := c.arena
	if l.input > 0 {
		in = c.inputs[l.input-1].Mapped
	}
	return in[l.at:][:l.size]
}

// part is a chunk of some of the lines.
func (c *chunk) part(from, to int) *chunk {
	p := *c
	p.lines = c.lines[from:to]
	return &p
}

func (c *chunk) clear() {
	c.arena, c.names, c.lines, c.held = c.arena[:0], c.names[:0], c.lines[:0], 0
}

// window holds copies of some lines of a chunk that follow one another. Sorted lines
// lie scattered: copied in one go, many of them are on their way from memory at a time,
// and not each only when it is needed.
type window struct {
	from, to int // of chunk.lines
	buf      []byte
	ends     []int // of the lines in buf
	places   [][]byte
}

const (
	windowLines = 32
	windowBytes = 64 << 10 // unless one line is longer
)

// line returns the bytes of line i, until it is asked for the next.
func (w *window) line(c *chunk, i int) ([]byte, error) {
	if i < w.from || i >= w.to {
		if err := w.load(c, i); err != nil {
			return nil, err
		}
	}
	begin := 0
	if i > w.from {
		begin = w.ends[i-w.from-1]
	}
	return w.buf[begin:w.ends[i-w.from]], nil
}

// fetched keeps the compiler from leaving out loads whose result nobody needs.
var fetched atomic.Uint32

// load copies the lines from i on.
func (w *window) load(c *chunk, i int) error {
	w.from, w.to = i, i
	w.ends, w.places = w.ends[:0], w.places[:0]
	size, sum := 0, byte(0)
	for j := i; j < min(i+windowLines, len(c.lines)); j++ {
		l := &c.lines[j]
		if size += int(l.size); size > windowBytes && j > i {
			break
		}
		w.ends, w.places = append(w.ends, size), append(w.places, c.place(l))
		sum += c.names[l.name]
	}
	fetched.Store(uint32(sum))
	w.buf = slices.Grow(w.buf[:0], size)[:min(size, w.ends[len(w.ends)-1])]
	if n := replace.CopyMapped(w.buf, w.places); n < len(w.places) {
		return c.lost(&c.lines[i+n])
	}
	w.to = i + len(w.ends)
	return nil
}

// forget is for a chunk whose lines are others now.
func (w *window) forget() { w.from, w.to = 0, 0 }

// lost says why a line can't be had that was there when it was checked.
func (c *chunk) lost(l *line) error {
	in := c.inputs[l.input-1]
	_, err := in.R.ReadAt(make([]byte, l.size), int64(l.at))
	switch {
	case errors.Is(err, io.EOF):
		return &segment.CorruptError{Path: in.Path, Offset: int64(l.at), Reason: errCut.Error()}
	case err == nil:
		err = replace.ErrFault
	}
	return fmt.Errorf("compacting %q: %w", in.Path, err)
}

// sort puts the lines into the order of a segment by key. Most are told apart by
// the eight bytes behind what all names begin with: a comparison of numbers.
func (c *chunk) sort() {
	if len(c.lines) == 0 {
		return
	}
	common := c.nameOf(&c.lines[0])
	for i := range c.lines {
		name := c.nameOf(&c.lines[i])
		n := min(len(common), len(name))
		for !bytes.Equal(common[:n], name[:n]) {
			n--
		}
		common = common[:n]
	}
	least, most := uint64(math.MaxUint64), uint64(0)
	for i := range c.lines {
		l := &c.lines[i]
		var head [8]byte
		copy(head[:], c.nameOf(l)[len(common):])
		l.head = binary.BigEndian.Uint64(head[:])
		least, most = min(least, l.head), max(most, l.head)
	}
	into := make([]line, len(c.lines))
	c.sortInto(into, c.lines, least, most)
	c.lines = into
}

// fewLines are sorted fastest one by one.
const fewLines = 12

// sortInto sorts lines, whose heads go from one to another, into a list as long as they
// are: they are dealt into boxes by their heads, about as many as there are lines, and
// what is in each box is sorted in the same way.
func (c *chunk) sortInto(into, lines []line, least, most uint64) {
	if least == most { // only their names tell them apart
		copy(into, lines)
		slices.SortFunc(into, func(a, b line) int { return c.compare(&a, &b) })
		return
	}
	shift := max(bits.Len64(most-least)-min(bits.Len(uint(len(lines))), 16), 0)
	ends := make([]int, (most-least)>>shift+1)
	for i := range lines {
		ends[(lines[i].head-least)>>shift]++
	}
	for i, before := 0, 0; i < len(ends); i++ {
		ends[i], before = before, before+ends[i]
	}
	for i := range lines {
		box := &ends[(lines[i].head-least)>>shift]
		into[*box] = lines[i]
		*box++
	}
	begin := 0
	for _, end := range ends {
		c.sortBox(into[begin:end], lines)
		begin = end
	}
}

// sortBox sorts what is in a box. It uses room, which is at least as long.
func (c *chunk) sortBox(lines, room []line) {
	if len(lines) > fewLines {
		room = room[:len(lines)]
		least, most := uint64(math.MaxUint64), uint64(0)
		for i := range lines {
			least, most = min(least, lines[i].head), max(most, lines[i].head)
		}
		copy(room, lines)
		c.sortInto(lines, room, least, most)
		return
	}
	for i := 1; i < len(lines); i++ {
		for j := i; j > 0 && c.compare(&lines[j], &lines[j-1]) < 0; j-- {
			lines[j], lines[j-1] = lines[j-1], lines[j]
		}
	}
}

func (c *chunk) compare(a, b *line) int {
	if a.head != b.head {
		return cmp.Compare(a.head, b.head)
	}
	return cmp.Or(bytes.Compare(c.nameOf(a), c.nameOf(b)), cmp.Compare(a.seq, b.seq))
}

// gather reads the inputs whose keys lie in no order. Keys are sorted, as many as
// fit into memory at a time; samples, which lie in the right order, are copied at
// once.
func (r *run) gather(inputs []*Input) ([]*source, error) {
	g := &gathering{run: r, inputs: inputs}
	for range inputs {
		g.done = append(g.done, make(chan struct{}))
	}
	if r.parallel && len(inputs) > 1 {
		var wg sync.WaitGroup
		wg.Go(g.work)
		wg.Go(g.work)
		wg.Wait()
	} else {
		g.work()
	}
	return g.sources, g.err
}

// gathering is shared by those who gather.
type gathering struct {
	*run
	inputs []*Input
	done   []chan struct{} // of each input, closed when its samples are copied

	mu      sync.Mutex
	next    int // the first input that nobody has taken
	err     error
	sources []*source
}

// take returns the next input to read, if there is one.
func (g *gathering) take() (i int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, ok = g.next, g.err == nil && g.next < len(g.inputs)
	g.next++
	return i, ok
}

// work reads inputs until there is none.
func (g *gathering) work() {
	w := &gatherer{gathering: g}
	err := w.all()
	if err == nil && len(w.keys.lines) > 0 {
		w.keys.sort()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err != nil && g.err == nil:
		g.err = err
		for _, done := range g.done { // nobody waits for what does not come
			select {
			case <-done:
			default:
				close(done)
			}
		}
	case err == nil && len(w.keys.lines) > 0:
		g.sources = append(g.sources, &source{chunk: &w.keys})
	}
}

// shortestLine is less than any record's length.
const shortestLine = 16

// gatherer is one of those who gather.
type gatherer struct {
	*gathering
	keys    chunk
	samples chunk
	input   int  // the one that it reads
	turn    bool // the samples of all inputs before are copied
}

func (w *gatherer) all() error {
	for {
		i, ok := w.take()
		if !ok {
			return nil
		}
		w.input, w.turn = i, false
		if err := w.check(w.inputs[i], w.keep); err != nil {
			return err
		}
		if err := w.copySamples(); err != nil {
			return err
		}
		w.mu.Lock()
		failed := w.err
		if failed == nil {
			close(w.done[i])
		}
		w.mu.Unlock()
		if failed != nil {
			return failed
		}
	}
}

func (w *gatherer) keep(l *segment.Line) error {
	c, budget := &w.keys, w.budget
	if l.View.Kind == segment.Sample {
		c, budget = &w.samples, w.run.samples
	}
	if c.lines == nil {
		w.begin(c, budget, l)
	}
	c.add(l, w.input)
	switch {
	case c.held < budget:
		return nil
	case c == &w.samples:
		return w.copySamples()
	}
	return w.spill()
}

// begin makes room for lines like l, as many as the inputs left may have: a list that
// grows costs more than one with room to spare.
func (w *gatherer) begin(c *chunk, budget int, l *segment.Line) {
	size, mapped, records := int64(0), int64(0), int64(0)
	for _, in := range w.inputs[w.input:] {
		size += in.Footer.Bytes
		records += int64(in.Footer.Records)
		mapped += min(in.Footer.Bytes, int64(len(in.Mapped)))
	}
	records = min(records, size/shortestLine)
	most := min(size, int64(budget)+int64(budget)/32)
	records = records*most/max(size, 1) + 1
	c.inputs = w.inputs
	c.lines = make([]line, 0, records)
	c.names = make([]byte, 0, min(records*int64(nameHead+len(l.View.AppendName(nil))), most))
	if mapped < size {
		c.arena = make([]byte, 0, most)
	}
}

// copySamples copies the samples gathered so far, once all those of the inputs
// before are.
func (w *gatherer) copySamples() error {
	if !w.turn && w.input > 0 {
		<-w.done[w.input-1]
		w.mu.Lock()
		err := w.err
		w.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if !w.turn && w.inputs[w.input].Apart {
		if err := w.lanes[0].endOutput(); err != nil {
			return err
		}
	}
	w.turn = true
	m := meter{run: w.run}
	var copies window
	for i := range w.samples.lines {
		bytes, err := copies.line(&w.samples, i)
		if err != nil {
			return err
		}
		l := &w.samples.lines[i]
		if err := w.lanes[0].add(&m, segment.BySeq, l.seq, w.samples.nameOf(l), bytes); err != nil {
			return err
		}
	}
	w.samples.clear()
	return m.flush()
}

// spill puts the keys gathered so far, in order, into a file, to be merged with
// the others later.
func (w *gatherer) spill() error {
	w.keys.sort()
	s, err := w.newSpill(&w.keys)
	if err != nil {
		return err
	}
	w.keys.clear()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sources = append(w.sources, &source{size: w.stream, read: s.read})
	return nil
}
