package compact

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/segment"
)

// chunk holds lines in memory, with their names as they sort.
type chunk struct {
	arena []byte
	lines []line
}

// line is one in a chunk: arena[start:name] are its bytes, arena[name:end] is its
// name.
type line struct {
	seq              uint64
	start, name, end int
}

func (c *chunk) add(l *segment.Line) {
	n := line{seq: l.View.Seq, start: len(c.arena)}
	c.arena = append(c.arena, l.Bytes...)
	n.name = len(c.arena)
	c.arena = l.View.AppendName(c.arena)
	n.end = len(c.arena)
	c.lines = append(c.lines, n)
}

func (c *chunk) bytes(l *line) []byte  { return c.arena[l.start:l.name] }
func (c *chunk) nameOf(l *line) []byte { return c.arena[l.name:l.end] }

func (c *chunk) clear() { c.arena, c.lines = c.arena[:0], c.lines[:0] }

// aheadLines is how many lines are fetched at a time.
const aheadLines = 32

// fetched keeps the compiler from leaving out loads whose result nobody needs.
var fetched atomic.Uint32

// fetch reads a little of some lines, which lie scattered once they are sorted: so all
// of them are on their way from memory at a time, and not each only when it is needed.
func (c *chunk) fetch(lines []line) {
	sum := byte(0)
	for i := range lines {
		l := &lines[i]
		sum += c.arena[l.start] + c.arena[(l.start+l.end)/2] + c.arena[l.end-1]
	}
	fetched.Store(uint32(sum))
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
	refs := make([]headed, len(c.lines))
	for i := range c.lines {
		var head [8]byte
		copy(head[:], c.nameOf(&c.lines[i])[len(common):])
		refs[i] = headed{binary.BigEndian.Uint64(head[:]), i}
	}
	refs, ends := dealt(refs)
	sorted := make([]line, 0, len(refs))
	begin := 0
	for _, end := range ends {
		part := refs[begin:end]
		begin = end
		slices.SortFunc(part, func(x, y headed) int {
			if x.head != y.head {
				return cmp.Compare(x.head, y.head)
			}
			a, b := &c.lines[x.line], &c.lines[y.line]
			return cmp.Or(bytes.Compare(c.nameOf(a), c.nameOf(b)), cmp.Compare(a.seq, b.seq))
		})
		for _, r := range part {
			sorted = append(sorted, c.lines[r.line])
		}
	}
	c.lines = sorted
}

// headed is a line with what tells its name from most others.
type headed struct {
	head uint64
	line int
}

// dealt puts lines into boxes by their heads, about as many as there are lines, and says
// where each box ends: to sort what is in each box takes half of the time of sorting all.
func dealt(refs []headed) (into []headed, ends []int) {
	least, most := refs[0].head, refs[0].head
	for _, r := range refs {
		least, most = min(least, r.head), max(most, r.head)
	}
	shift := max(bits.Len64(most-least)-min(bits.Len(uint(len(refs))), 16), 0)
	ends = make([]int, (most-least)>>shift+1)
	for _, r := range refs {
		ends[(r.head-least)>>shift]++
	}
	for i, before := 0, 0; i < len(ends); i++ {
		ends[i], before = before, before+ends[i]
	}
	into = make([]headed, len(refs))
	for _, r := range refs {
		box := &ends[(r.head-least)>>shift]
		into[*box] = r
		*box++
	}
	return into, ends
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
	if c.arena == nil {
		size, records := int64(0), int64(0)
		for _, in := range w.inputs[w.input:] {
			size += in.Footer.Bytes
			records += int64(in.Footer.Records)
		}
		records = min(records, size/shortestLine)
		most := min(size, int64(budget)+int64(budget)/32)
		c.arena = make([]byte, 0, most)
		c.lines = make([]line, 0, records*most/max(size, 1)+1) // a list that grows costs more than one with room to spare
	}
	c.add(l)
	switch {
	case len(c.arena) < budget:
		return nil
	case c == &w.samples:
		return w.copySamples()
	}
	return w.spill()
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
	for i := range w.samples.lines {
		if err := w.lanes[0].add(&m, segment.BySeq, &w.samples, &w.samples.lines[i]); err != nil {
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
