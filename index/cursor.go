package index

import (
	"iter"
	"slices"
	"strings"
)

// cursor walks over the keys of one level, or of one run of it, in order or
// backwards.
type cursor interface {
	// key is where the cursor stands; ok is false at the end.
	key() (key string, ok bool)
	// entry is what the level says of that key.
	entry() (e Entry, deleted bool)
	advance() error
}

// runCursor walks over a run.
type runCursor struct {
	o    *overlay
	rest run
	back bool
	now  ref
	name string // the key there
}

// cursor returns a cursor over the keys of a run from one key up to another.
func (o *overlay) cursor(r run, from, to string, reverse bool) *runCursor {
	if to != "" {
		n, _ := o.search(r, []byte(to))
		r = r[:n]
	}
	if from != "" {
		n, _ := o.search(r, []byte(from))
		r = r[n:]
	}
	c := &runCursor{o: o, rest: r, back: reverse}
	c.advance()
	return c
}

func (c *runCursor) advance() error {
	n := len(c.rest)
	switch {
	case n == 0:
		c.now = 0
	case c.back:
		c.now, c.rest = c.rest[n-1], c.rest[:n-1]
	default:
		c.now, c.rest = c.rest[0], c.rest[1:]
	}
	if c.now != 0 {
		c.name = string(keyOf(c.o.at(c.now)))
	}
	return nil
}

func (c *runCursor) key() (string, bool) { return c.name, c.now != 0 }

func (c *runCursor) entry() (Entry, bool) {
	e, deleted := entryOf(c.o.at(c.now))
	e.Key = c.name
	return e, deleted
}

// tableCursor walks over a table, page by page.
type tableCursor struct {
	t        *Table
	from, to string
	back     bool
	page     int64
	list     []Entry // of the page, what is left
	decoded  *decoded
}

// cursor returns a cursor over the keys from one up to another.
func (t *Table) cursor(from, to string, reverse bool) (*tableCursor, error) {
	c := &tableCursor{t: t, from: from, to: to, back: reverse, page: -1, decoded: pages.Get().(*decoded)}
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
			return nil, err
		}
		c.page = int64(n)
	case reverse:
		c.page = int64(t.t.dataPages) - 1
	default:
		c.page = 0
	}
	return c, c.load()
}

// free gives back the memory of a cursor that is used no more.
func (c *tableCursor) free() {
	clear(c.decoded.list)
	pages.Put(c.decoded)
}

// load takes in the next page that has keys of the range.
func (c *tableCursor) load() (err error) {
	c.list = nil
	for len(c.list) == 0 && c.page >= 0 && c.page < int64(c.t.t.dataPages) {
		if err = c.t.decode(uint32(c.page), c.decoded); err != nil {
			return err
		}
		c.page++
		if c.back {
			c.page -= 2
		}
		c.list = c.decoded.list
		byKey := func(e Entry, key string) int { return strings.Compare(e.Key, key) }
		if n := len(c.list); n > 0 && c.to != "" && c.list[n-1].Key >= c.to {
			i, _ := slices.BinarySearchFunc(c.list, c.to, byKey)
			c.list = c.list[:i]
			if !c.back {
				c.page = -1
			}
		}
		if n := len(c.list); n > 0 && c.list[0].Key < c.from {
			i, _ := slices.BinarySearchFunc(c.list, c.from, byKey)
			c.list = c.list[i:]
			if c.back {
				c.page = -1
			}
		}
	}
	return nil
}

func (c *tableCursor) at() *Entry {
	if c.back {
		return &c.list[len(c.list)-1]
	}
	return &c.list[0]
}

func (c *tableCursor) key() (string, bool) {
	if len(c.list) == 0 {
		return "", false
	}
	return c.at().Key, true
}

func (c *tableCursor) entry() (Entry, bool) {
	e := c.at()
	return *e, c.t.isGone(e.Segment)
}

func (c *tableCursor) advance() error {
	if c.back {
		c.list = c.list[:len(c.list)-1]
	} else {
		c.list = c.list[1:]
	}
	if len(c.list) == 0 {
		return c.load()
	}
	return nil
}

// merged yields the entries of all cursors in order. Of a key in several of them
// the first cursor's word counts. An error ends it.
func merged(cursors []cursor, reverse bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			var best cursor
			var least string
			for _, c := range cursors {
				if k, ok := c.key(); ok && (best == nil || !reverse && k < least || reverse && k > least) {
					best, least = c, k
				}
			}
			if best == nil {
				return
			}
			e, deleted := best.entry()
			for _, c := range cursors {
				if k, ok := c.key(); ok && c != best && k == least {
					if err := c.advance(); err != nil {
						yield(Entry{}, err)
						return
					}
				}
			}
			err := best.advance()
			if !deleted && !yield(e, nil) {
				return
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
		}
	}
}

// tableOnly is merged for a table alone, without a comparison.
func tableOnly(c *tableCursor) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for len(c.list) > 0 {
			if e := c.at(); !c.t.isGone(e.Segment) && !yield(*e, nil) {
				return
			}
			if err := c.advance(); err != nil {
				yield(Entry{}, err)
				return
			}
		}
	}
}
