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
	most int     // and how many at the most
	room []Entry // memory for the list

	run   runSource // one of the two is the source
	table tableSource
}

// source is where a cursor takes its entries from.
type source interface {
	// take appends the next entries in the order of the walk to list: some, and n at
	// most if it can choose; none at the end. One without a segment says that its key is
	// not there.
	take(list []Entry, n int) ([]Entry, error)
}

var cursors = sync.Pool{New: func() any { return new(cursor) }}

// fewTaken is how many entries a cursor takes first; then it takes twice as many
// each time, up to manyTaken: walks are often short.
const (
	fewTaken  = 16
	manyTaken = 128
)

// load makes sure that there is an entry at hand, unless all are used. n is how many
// its user wants of all cursors.
func (c *cursor) load(n int) (err error) {
	if len(c.list) == 0 {
		if c.source == &c.table {
			c.some = max(fewTaken, min(n, manyTaken))
		}
		c.room, err = c.take(c.room[:0], c.some)
		c.most = max(c.most, len(c.room))
		c.list = c.room
		c.some = min(2*c.some, max(manyTaken, c.some))
	}
	return err
}

// free gives back the memory of a cursor that is used no more.
func (c *cursor) free() {
	clear(c.room[:c.most])
	*c = cursor{room: c.room[:0]}
	cursors.Put(c)
}

// runSource is a run of an overlay.
type runSource struct {
	o    *overlay
	rest run
	back bool
}

// cursor returns a cursor over the keys of a run from one key up to another; nil if
// there are none. Of among entries at large it takes its share first.
func (o *overlay) cursor(r run, from, to string, reverse bool, among int) *cursor {
	share := 1 + fewTaken*len(r)/max(among, len(r), 1)
	if to != "" {
		r = r[:o.from(r, to)]
	}
	if from != "" {
		r = r[o.from(r, from):]
	}
	if len(r) == 0 {
		return nil
	}
	c := cursors.Get().(*cursor)
	c.run = runSource{o: o, rest: r, back: reverse}
	c.source, c.some = &c.run, share
	return c
}

// take takes many changes in one loop: they lie scattered over memory, and so some of
// them are on their way at a time. Their keys share one string.
func (s *runSource) take(list []Entry, n int) ([]Entry, error) {
	n = min(n, len(s.rest))
	refs := s.rest[:n]
	if s.back {
		refs = s.rest[len(s.rest)-n:]
	}
	list = slices.Grow(list, n)
	first, size := len(list), 0
	for _, r := range refs {
		b := s.o.at(r)
		e, deleted := entryOf(b)
		if deleted {
			e.Segment = 0
		}
		list = append(list, e)
		size += len(keyOf(b))
	}
	var keys strings.Builder
	keys.Grow(size)
	for i, r := range refs {
		begin := keys.Len()
		keys.Write(keyOf(s.o.at(r)))
		list[first+i].Key = keys.String()[begin:]
	}
	if s.back {
		s.rest = s.rest[:len(s.rest)-n]
		slices.Reverse(list[first:])
	} else {
		s.rest = s.rest[n:]
	}
	return list, nil
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

// cursor returns a cursor over the keys from one up to another.
func (t *Table) cursor(from, to string, reverse bool) (*cursor, error) {
	c := cursors.Get().(*cursor)
	c.table = tableSource{t: t, from: from, to: to, back: reverse, page: -1}
	c.source, c.some = &c.table, fewTaken
	s := &c.table
	if t.Len() == 0 {
		return c, nil
	}
	start := from
	if reverse {
		start = to
	}
	switch {
	case start != "":
		n, err := t.find(start)
		if err != nil {
			c.free()
			return nil, err
		}
		s.page = int64(n)
	case reverse:
		s.page = int64(t.t.dataPages) - 1
	default:
		s.page = 0
	}
	return c, nil
}

func (s *tableSource) take(list []Entry, n int) ([]Entry, error) {
	first := len(list)
	for len(list) == first && s.more() {
		at := s.at()
		var err error
		if list, err = s.parse(list, n); err != nil {
			s.end()
			return list[:first], damagedAt(at, err)
		}
		list = append(list[:first], s.within(list[first:])...)
	}
	if s.back {
		slices.Reverse(list[first:])
	}
	if s.t.gone != nil {
		for i := range list[first:] {
			if e := &list[first+i]; s.t.isGone(e.Segment) {
				e.Segment = 0
			}
		}
	}
	return list, nil
}

// more tells whether there may be another entry.
func (s *tableSource) more() bool {
	return s.left > 0 || s.page >= 0 && s.page < int64(s.t.t.dataPages)
}

// end says that there is none.
func (s *tableSource) end() { s.page, s.left = -1, 0 }

// at is the page of the next entry.
func (s *tableSource) at() uint32 {
	if s.left > 0 {
		return uint32(s.page - 1)
	}
	return uint32(s.page)
}

// damagedAt is an error that says where it is.
func damagedAt(page uint32, err error) error {
	if e, ok := err.(*TableError); ok {
		return e
	}
	return damaged(page, err.Error())
}

// parse takes up to n entries of a page apart, after all of those before are used; of
// the next page if there are none left. Backwards it takes a page as a whole, since the
// way through it leads forwards.
//
// The bytes are copied first, and taken apart where they were copied to: what they say
// of keys needs no memory of its own then, and no guard against faults.
func (s *tableSource) parse(list []Entry, n int) ([]Entry, error) {
	for {
		text, whole, err := s.text(n)
		if err != nil {
			return list, err
		}
		if s.back {
			n = s.left
		}
		first := len(list)
		list, size, err := s.t.decode(list, text, min(n, s.left))
		if err == errEntry && !whole {
			if len(list) == first {
				n = s.left // one of them is longer than all the others: the page as a whole
				continue
			}
			err = nil
		}
		s.rest, s.left = s.rest[size:], s.left-(len(list)-first)
		return list, err
	}
}

// text copies what is about n entries of the page at hand, or of the next one if there
// are none left; whole says whether it is the page to its end.
func (s *tableSource) text(n int) (text string, whole bool, err error) {
	defer catch(s.t, &err, debug.SetPanicOnFault(true))
	if err := s.open(); err != nil {
		return "", false, err
	}
	size := len(s.rest)
	if n < s.left && !s.back {
		size = min(size, size*n/s.left+spareText)
	}
	return string(s.rest[:size]), size == len(s.rest), nil
}

// open makes sure that there is a page at hand with something left.
func (s *tableSource) open() error {
	if s.left > 0 {
		return nil
	}
	p, err := s.t.page(uint32(s.page), dataPage)
	if err != nil {
		return err
	}
	s.rest, s.left = p[pageHead:pageBytes], pageCount(p)
	s.page++
	if s.back {
		s.page -= 2
	} else if s.from != "" {
		s.rest, s.left, err = skipTo(s.rest, s.left, s.from)
		s.from = "" // all that follows is behind it
	}
	return err
}

// spareText is how much more of a page is copied than so many entries have on average.
const spareText = 64

// within cuts off what lies outside the range, and ends the walk there.
func (s *tableSource) within(list []Entry) []Entry {
	if n := len(list); n > 0 && s.to != "" && list[n-1].Key >= s.to {
		i, _ := slices.BinarySearchFunc(list, s.to, byKey)
		list = list[:i]
		if !s.back {
			s.end()
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
