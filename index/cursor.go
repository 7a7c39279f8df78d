package index

import (
	"runtime/debug"
	"slices"
	"strings"
	"sync"
)

// cursor walks over the keys of one level, or of one run of it, in order or
// backwards. It takes some of them at a time, and keeps its memory for the next ones,
// and for the next cursor.
type cursor struct {
	source
	list []Entry // at hand, what is left, in the order of the walk
	some int     // how many to take next
	room *room
}

// source is where a cursor takes its entries from.
type source interface {
	// take returns the next entries in the order of the walk: some, and n at most if
	// it can choose; none at the end. They lie in r. One without a segment says that
	// its key is not there.
	take(n int, r *room) ([]Entry, error)
}

// room is memory for entries that were taken apart.
type room struct {
	list []Entry
	keys []byte
	ends []int // of each key in keys
}

var rooms = sync.Pool{New: func() any { return new(room) }}

// fewTaken is how many entries a cursor takes first; then it takes twice as many
// each time, up to manyTaken: walks are often short.
const (
	fewTaken  = 16
	manyTaken = 128
)

func newCursor(s source) *cursor {
	return &cursor{source: s, some: fewTaken, room: rooms.Get().(*room)}
}

// load makes sure that there is an entry at hand, unless all are used.
func (c *cursor) load() (err error) {
	if len(c.list) == 0 {
		c.list, err = c.take(c.some, c.room)
		c.some = min(2*c.some, max(manyTaken, c.some))
	}
	return err
}

// free gives back the memory of a cursor that is used no more.
func (c *cursor) free() {
	clear(c.room.list)
	rooms.Put(c.room)
	c.list, c.room = nil, nil
}

func (r *room) reset(n, keys int) {
	r.list, r.keys, r.ends = slices.Grow(r.list[:0], n), slices.Grow(r.keys[:0], keys), slices.Grow(r.ends[:0], n)
}

func (r *room) add(e Entry, key []byte) {
	r.keys = append(r.keys, key...)
	r.ends = append(r.ends, len(r.keys))
	r.list = append(r.list, e)
}

// named gives the entries their keys, which share one string.
func (r *room) named() []Entry {
	keys, begin := string(r.keys), 0
	for i, end := range r.ends {
		r.list[i].Key, begin = keys[begin:end], end
	}
	return r.list
}

// runSource is a run of an overlay.
type runSource struct {
	o    *overlay
	rest run
	back bool
}

// source returns the keys of a run from one key up to another; nil if there are none.
func (o *overlay) source(r run, from, to string, reverse bool) *runSource {
	if to != "" {
		r = r[:o.from(r, to)]
	}
	if from != "" {
		r = r[o.from(r, from):]
	}
	if len(r) == 0 {
		return nil
	}
	return &runSource{o: o, rest: r, back: reverse}
}

// take takes many changes in one loop: they lie scattered over memory, and so some of
// them are on their way at a time.
func (s *runSource) take(n int, r *room) ([]Entry, error) {
	n = min(n, len(s.rest))
	r.reset(n, 0)
	for i := range n {
		at := i
		if s.back {
			at = len(s.rest) - 1 - i
		}
		b := s.o.at(s.rest[at])
		e, deleted := entryOf(b)
		if deleted {
			e.Segment = 0
		}
		r.add(e, keyOf(b))
	}
	if s.back {
		s.rest = s.rest[:len(s.rest)-n]
	} else {
		s.rest = s.rest[n:]
	}
	return r.named(), nil
}

// tableSource is the pages of a table.
type tableSource struct {
	t        *Table
	from, to string
	back     bool
	page     int64  // the next one
	rest     []byte // of the page before it: what is not taken apart yet
	left     int    // entries in rest
}

// source returns the keys from one up to another.
func (t *Table) source(from, to string, reverse bool) (*tableSource, error) {
	s := &tableSource{t: t, from: from, to: to, back: reverse, page: -1}
	if t.Len() == 0 {
		return s, nil
	}
	start := from
	if reverse {
		start = to
	}
	switch {
	case start != "":
		n, err := t.find(start)
		if err != nil {
			return s, err
		}
		s.page = int64(n)
	case reverse:
		s.page = int64(t.t.dataPages) - 1
	default:
		s.page = 0
	}
	return s, nil
}

func (s *tableSource) take(n int, r *room) (list []Entry, err error) {
	for len(list) == 0 && (s.left > 0 || s.page >= 0 && s.page < int64(s.t.t.dataPages)) {
		at := s.page
		if s.left > 0 {
			at--
		}
		if list, err = s.parse(n, r); err != nil {
			s.left, s.page = 0, -1
			if e, ok := err.(*TableError); ok {
				return nil, e
			}
			return nil, damaged(uint32(at), err.Error())
		}
		list = s.within(list)
	}
	if s.back {
		slices.Reverse(list)
	}
	if s.t.gone != nil {
		for i := range list {
			if s.t.isGone(list[i].Segment) {
				list[i].Segment = 0
			}
		}
	}
	return list, nil
}

// parse takes n entries of a page apart, after all of those before are used; of the
// next page if there are none left. Backwards it takes a page as a whole, since the
// way through it leads forwards.
func (s *tableSource) parse(n int, r *room) (list []Entry, err error) {
	defer catch(s.t, &err, debug.SetPanicOnFault(true))
	from := s.from
	if s.left == 0 {
		p, err := s.t.page(uint32(s.page), dataPage)
		if err != nil {
			return nil, err
		}
		s.rest, s.left = p[pageHead:pageBytes], pageCount(p)
		s.page++
	}
	if s.back {
		s.page -= 2
		n, from = s.left, "" // within must see that this page is the last one
	}
	s.rest, s.left, err = s.t.decode(s.rest, s.left, n, from, r)
	return r.list, err
}

// within cuts off what lies outside the range, and ends the walk there.
func (s *tableSource) within(list []Entry) []Entry {
	if n := len(list); n > 0 && s.to != "" && list[n-1].Key >= s.to {
		i, _ := slices.BinarySearchFunc(list, s.to, byKey)
		list = list[:i]
		if !s.back {
			s.page, s.left = -1, 0
		}
	}
	if n := len(list); n > 0 && list[0].Key < s.from {
		i, _ := slices.BinarySearchFunc(list, s.from, byKey)
		list = list[i:]
		if s.back {
			s.page = -1
		}
	}
	return list
}

func byKey(e Entry, key string) int { return strings.Compare(e.Key, key) }
