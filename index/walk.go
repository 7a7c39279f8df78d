package index

import (
	"iter"
	"slices"
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
	for i := range s.sorted {
		o := s.levels.top
		if i > 0 {
			o = s.levels.frozen[i-1]
		}
		for j := len(s.sorted[i]) - 1; j >= 0; j-- {
			if c := o.cursor(s.sorted[i][j], from, to, reverse, s.len); c != nil {
				w.cursors = append(w.cursors, c)
			}
		}
	}
	if s.levels.table != nil {
		var c *cursor
		if c, w.err = s.levels.table.cursor(from, to, reverse); w.err == nil {
			w.cursors = append(w.cursors, c)
		}
	}
	return w
}

// Close lets go of the walk's memory.
func (w *Walk) Close() {
	for _, c := range w.cursors {
		c.free()
	}
	clear(w.cursors)
	w.cursors = nil
}

// Next appends up to n more entries to list, and at least one unless it is at the end.
// Keys may share the memory of their neighbours. An error is damage in the table: it
// comes with what lies before it, and ends the walk.
func (w *Walk) Next(list []Entry, n int) ([]Entry, error) {
	for first := len(list); len(list)-first < n && w.err == nil && len(w.cursors) > 0; {
		if len(w.cursors) == 1 {
			list = w.only(list, n-(len(list)-first))
		} else if w.loaded(n) {
			list = w.least(list, n-(len(list)-first))
		}
	}
	err := w.err
	if err != nil {
		w.Close()
		w.err = nil
	}
	return list, err
}

// loaded tells whether each cursor has an entry at hand. Those at their end go.
func (w *Walk) loaded(n int) bool {
	left := 0
	for _, c := range w.cursors {
		if w.err == nil {
			w.err = c.load(n)
		}
		if len(c.list) == 0 && w.err == nil {
			c.free()
			continue
		}
		w.cursors[left] = c
		left++
	}
	w.cursors = w.cursors[:left]
	return left > 1 && w.err == nil
}

// only appends up to n entries of the only cursor: what it has at hand, or else what
// it takes next, without a stop on the way if it takes no more than that.
func (w *Walk) only(list []Entry, n int) []Entry {
	c, first := w.cursors[0], len(list)
	if len(c.list) == 0 && w.reverse {
		w.err = c.load(n)
	}
	if k := min(len(c.list), n); k > 0 {
		list, c.list = append(list, c.list[:k]...), c.list[k:]
	} else if !w.reverse {
		list, w.err = c.take(list, n)
	}
	if len(list) == first {
		c.free()
		w.cursors = w.cursors[:0]
		return list
	}
	if c.table.t != nil && c.table.t.gone == nil {
		return list
	}
	return alive(list, first)
}

// alive takes the entries from number first on out that say that a key is not there.
func alive(list []Entry, first int) []Entry {
	for i := first; i < len(list); i++ {
		if list[i].Segment == 0 {
			kept := slices.DeleteFunc(list[i:], func(e Entry) bool { return e.Segment == 0 })
			return list[:i+len(kept)]
		}
	}
	return list
}

// least appends the entries of all cursors in order, as long as each has one at hand.
// Of a key in several of them the first cursor's word counts.
func (w *Walk) least(list []Entry, n int) []Entry {
	first := len(list)
	for all := true; all && len(list)-first < n; {
		best, next := w.two()
		k := 1
		for most := min(len(best.list), n-(len(list)-first)); k < most && w.before(best.list[k].Key, next); k++ {
		}
		if key := best.list[0].Key; key == next { // others have it, too
			for _, c := range w.cursors {
				if c != best && c.list[0].Key == key {
					c.list = c.list[1:]
					all = all && len(c.list) > 0
				}
			}
		}
		list, best.list = append(list, best.list[:k]...), best.list[k:]
		all = all && len(best.list) > 0
	}
	return alive(list, first)
}

func (w *Walk) before(a, b string) bool {
	if w.reverse {
		return a > b
	}
	return a < b
}

// two returns the cursor whose entry comes first, and the first key of the others.
func (w *Walk) two() (best *cursor, next string) {
	best, second := w.cursors[0], w.cursors[1]
	if w.before(second.list[0].Key, best.list[0].Key) {
		best, second = second, best
	}
	for _, c := range w.cursors[2:] {
		switch key := c.list[0].Key; {
		case w.before(key, best.list[0].Key):
			best, second = c, best
		case w.before(key, second.list[0].Key):
			second = c
		}
	}
	return best, second.list[0].Key
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
			list, err = w.Next(list[:0], rangeChunk)
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
