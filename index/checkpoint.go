package index

import "slices"

// Checkpoint is the state of an index at one moment on its way into a table. The
// index goes on meanwhile; what changes is kept apart.
type Checkpoint struct {
	x      *Index
	levels *levels // but for top
	last   uint64
	state  *state
	long   []Entry // their keys do not fit into a table

	samples int // of Index.mu.samples, those that are in it
}

// Freeze begins a checkpoint of the present state. There must be one at a time. One
// that comes to nothing needs no ending: the next one takes in its changes.
func (x *Index) Freeze() *Checkpoint {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.freezeLocked()
	return &Checkpoint{x: x, levels: now, last: x.mu.last, state: x.stateLocked(), samples: x.mu.samples}
}

// freezeLocked has a new overlay take the changes from now on.
func (x *Index) freezeLocked() *levels {
	x.payLocked()
	old := x.levels.Load()
	now := &levels{top: newOverlay(), frozen: append([]*overlay{old.top}, old.frozen...), table: old.table}
	now.top.expect(old.top)
	x.levels.Store(now)
	x.current.Store(nil)
	if m := x.mu.moves; m != nil {
		m.later = append(m.later[:len(m.later):len(m.later)], now.top)
	}
	return now
}

// Last is the greatest sequence number in the checkpoint.
func (c *Checkpoint) Last() uint64 { return c.last }

// Retiring tells that a compaction was about to leave samples behind.
func (c *Checkpoint) Retiring() bool { return c.state.retiring != nil }

// Changes is how many changes have come since the table was made, samples and
// what compaction has moved included, and how many entries the table has.
func (x *Index) Changes() (changes, entries int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	l := x.levels.Load()
	changes = x.mu.samples + l.top.count
	for _, o := range l.frozen {
		changes += o.count
	}
	if l.table != nil {
		entries = l.table.Len()
	}
	return changes, entries
}

// Write writes the checkpoint as a table into an empty file and returns its size.
// The table's mark should differ from that of every other that was in a file of the
// same name. head is handed back by Restore. pace is called now and then with the
// number of entries written; its error ends the writing. The file is not synced.
func (c *Checkpoint) Write(file TableFile, mark uint64, head []byte, pace func(entries int) error) (size int64, err error) {
	c.x.saving.Store(true)
	defer c.x.saving.Store(false)
	w := NewTableWriter(file, mark)
	s := Snapshot{levels: &levels{top: newOverlay(), frozen: c.levels.frozen, table: c.levels.table}, sorted: [][]run{nil}}
	for _, o := range c.levels.frozen {
		s.sorted = append(s.sorted, o.inOne())
	}
	n := 0
	for e, err := range s.Range("", "", false) {
		if err != nil {
			return 0, err
		}
		if n++; n%1000 == 0 {
			if err := pace(1000); err != nil {
				return 0, err
			}
		}
		if !Fits(e.Key) {
			c.long = append(c.long, e)
			continue
		}
		if err := w.Add(&e); err != nil {
			return 0, err
		}
	}
	state := appendBytes(nil, head)
	state = appendEntries(state, c.long)
	return w.Finish(c.state.append(state))
}

// Adopt puts the table that Write has written in the place of all that went into it.
func (c *Checkpoint) Adopt(t *Table) {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.levels.Load()
	x.levels.Store(&levels{
		top:    now.top,
		frozen: append(slices.Clone(now.frozen[:len(now.frozen)-len(c.levels.frozen)]), longOverlay(c.long, nil)...),
		table:  t,
	})
	x.mu.samples -= c.samples
	x.current.Store(nil)
	t.state = nil // the index has it
}

// longOverlay holds the entries that do not fit into a table, if there are any. Of
// those in a segment that is gone it knows no more than that they were there.
func longOverlay(long []Entry, gone func(segment uint64) bool) []*overlay {
	if len(long) == 0 {
		return nil
	}
	o := newOverlay()
	for i := range long {
		o.put(&long[i], gone != nil && gone(long[i].Segment))
	}
	return []*overlay{o}
}

// Restore makes a Builder of a table that Write has written, and returns the head
// that was given to it. listed tells which segments still live: what the table has
// in others counts for nothing, unless the builder is given those records again.
func Restore(t *Table, last uint64, listed func(segment uint64) bool) (b *Builder, err error) {
	x := newIndex(t)
	d := &decoder{b: t.State()}
	d.bytes()
	long := d.entries()
	x.readState(d)
	if d.bad || len(d.b) > 0 {
		return nil, &TableError{Reason: "its state can't be read"}
	}
	l := x.levels.Load()
	x.levels.Store(&levels{top: l.top, frozen: longOverlay(long, func(n uint64) bool { return !listed(n) }), table: t})
	for _, n := range t.Segments() {
		if !listed(n) {
			t.forget(n)
		}
	}
	for n, u := range x.mu.usage {
		if !listed(n) {
			delete(x.mu.usage, n)
			continue
		}
		x.mu.len += int(u.Keys)
	}
	x.mu.recent = nil
	t.state = nil // the index has it
	x.mu.log = slices.DeleteFunc(x.mu.log, func(t *stretch) bool { return !listed(t.segment) })
	x.mu.last = last
	return &Builder{x: x, base: last, retiring: x.settle(listed)}, nil
}

// Head returns the head that was given to Write.
func Head(t *Table) ([]byte, error) {
	d := &decoder{b: t.State()}
	head := d.bytes()
	if d.bad {
		return nil, &TableError{Reason: "its state can't be read"}
	}
	return head, nil
}
