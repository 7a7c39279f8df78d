package index

import (
	"iter"
	"math"
)

// Walk is a way through the entries of a snapshot, in the order of their keys or
// backwards. It is for one goroutine at a time, and must be closed.
type Walk struct {
	cursors []*cursor // over the overlays, the newest first, and the table
	reverse bool
	err     error // in place of what would come next
}

// Walk begins at key from (included) and ends before key to; "" is no bound. Or it
// goes from to down to from if reverse.
func (s *Snapshot) Walk(from, to string, reverse bool) *Walk {
	w := &Walk{reverse: reverse}
	if to != "" && from >= to {
		return w
	}
	for i, o := range append([]*overlay{s.levels.top}, s.levels.frozen...) {
		for j := len(s.sorted[i]) - 1; j >= 0; j-- {
			if source := o.source(s.sorted[i][j], from, to, reverse); source != nil {
				w.cursors = append(w.cursors, newCursor(source))
			}
		}
	}
	if s.levels.table != nil {
		var source *tableSource
		if source, w.err = s.levels.table.source(from, to, reverse); w.err == nil {
			w.cursors = append(w.cursors, newCursor(source))
		}
	}
	return w
}

// Close lets go of the walk's memory.
func (w *Walk) Close() {
	for _, c := range w.cursors {
		c.free()
	}
	w.cursors = nil
}

// Next appends up to n more entries to list; fewer, but one at least, once their
// lines make up so many bytes. It appends none at the end. Keys may share the memory
// of their neighbours. An error is damage in the table: it comes with what lies before
// it, and ends the walk.
func (w *Walk) Next(list []Entry, n, bytes int) ([]Entry, error) {
	if len(w.cursors) == 1 {
		w.cursors[0].some = n
	}
	for first := len(list); len(list)-first < n && bytes > 0 && w.loaded(); {
		if len(w.cursors) == 1 {
			list, bytes = w.only(list, n-(len(list)-first), bytes)
		} else {
			list, bytes = w.least(list, n-(len(list)-first), bytes)
		}
	}
	err := w.err
	if err != nil {
		w.Close()
		w.err = nil
	}
	return list, err
}

// loaded tells whether there are entries left. Then each cursor has one at hand, and
// the others are gone.
func (w *Walk) loaded() bool {
	left := 0
	for _, c := range w.cursors {
		if w.err == nil {
			w.err = c.load()
		}
		if len(c.list) == 0 && w.err == nil {
			c.free()
			continue
		}
		w.cursors[left] = c
		left++
	}
	w.cursors = w.cursors[:left]
	return left > 0 && w.err == nil
}

// only appends what the only cursor has at hand, and returns how many bytes are left.
func (w *Walk) only(list []Entry, n, bytes int) ([]Entry, int) {
	c := w.cursors[0]
	for len(c.list) > 0 && n > 0 && bytes > 0 {
		if e := &c.list[0]; e.Segment != 0 {
			list = append(list, *e)
			n, bytes = n-1, bytes-int(e.Len)
		}
		c.list = c.list[1:]
	}
	return list, bytes
}

// least appends the entries of all cursors in order, as long as each has one at hand,
// and returns how many bytes are left. Of a key in several of them the first cursor's
// word counts.
func (w *Walk) least(list []Entry, n, bytes int) ([]Entry, int) {
	for all := true; all && n > 0 && bytes > 0; {
		best := w.cursors[0]
		for _, c := range w.cursors[1:] {
			if k, least := c.list[0].Key, best.list[0].Key; !w.reverse && k < least || w.reverse && k > least {
				best = c
			}
		}
		e := &best.list[0]
		if e.Segment != 0 {
			list = append(list, *e)
			n, bytes = n-1, bytes-int(e.Len)
		}
		for _, c := range w.cursors {
			if c == best || c.list[0].Key == e.Key {
				c.list = c.list[1:]
				all = all && len(c.list) > 0
			}
		}
	}
	return list, bytes
}

// rangeChunk is how many entries Range takes at a time.
const rangeChunk = 256

// Range yields what a Walk gives. An error is yielded and ends it.
func (s *Snapshot) Range(from, to string, reverse bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		w := s.Walk(from, to, reverse)
		defer w.Close()
		for list := []Entry(nil); ; {
			var err error
			list, err = w.Next(list[:0], rangeChunk, math.MaxInt)
			for _, e := range list {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if len(list) == 0 {
				return
			}
		}
	}
}
