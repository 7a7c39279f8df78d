package index

import (
	"encoding/binary"
	"runtime/debug"
	"slices"
	"sort"
)

// Keys are keys of a walk that follow each other, for a user who wants nothing else of
// them: they come out of a page of a table without an Entry for each.
type Keys struct {
	Text string // all keys, one behind the other
	List []Key
	room []byte // memory for the text before it is a string
}

// Key is the one in the text from where the one before it ends.
type Key struct {
	Seq     uint64
	Expires int64
	End     int
}

// NextKeys fills k with up to n more keys, fewer where a page ends, none at the end. It
// returns false, and nothing has happened, unless all that is left comes from the table,
// forwards: Next has it then. An error is damage in the table: it ends the walk, and k
// is empty.
func (w *Walk) NextKeys(k *Keys, n int) (ok bool, err error) {
	k.Text, k.List = "", k.List[:0]
	if w.reverse || w.err != nil || len(w.cursors) != 1 || len(w.cursors[0].list) > 0 {
		return false, nil
	}
	s := &w.cursors[0].table
	if s.t == nil || s.t.gone != nil {
		return false, nil
	}
	for len(k.List) == 0 && s.more() && err == nil {
		at := s.at()
		if err = s.keys(k, n); err != nil {
			err = damagedAt(at, err)
		}
	}
	if len(k.List) == 0 {
		w.Close()
	}
	return true, err
}

// keys takes up to n keys of the page at hand, or of the next one if there are none left.
func (s *tableSource) keys(k *Keys, n int) (err error) {
	defer catch(s.t, &err, debug.SetPanicOnFault(true))
	if err := s.open(); err != nil {
		return err
	}
	if len(k.room) == 0 {
		k.room = make([]byte, PageSize+wordBytes)
	}
	n = min(n, s.left)
	list := slices.Grow(k.List[:0], n)[:n]
	rest, end, ok := keysOf(s.rest, list, k.room)
	if !ok {
		return errEntry
	}
	s.rest, s.left, k.List, k.Text = rest, s.left-n, list, string(k.room[:end])
	if s.to != "" {
		s.cut(k)
	}
	return nil
}

// wordBytes is how much more room keysOf needs than the keys: it copies them in words.
const wordBytes = 8

// keysOf takes as many keys as list is long from the beginning of a page's bytes. They are
// copied to room, up to end. A call for each key, to have it copied or taken apart, would
// take as long as all the rest.
func keysOf(b []byte, list []Key, room []byte) (rest []byte, end int, ok bool) {
	var shapes shapes
	s := &shapes.list[0]
	for i := range list {
		low, ok := s.fits(b)
		if !ok {
			s, low, ok = shapes.other(b)
		}
		if ok {
			to, from := room[end:][:s.key+wordBytes], b[1:][:s.key+wordBytes]
			for i := 0; i < s.key; i += wordBytes {
				binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
			}
			end += s.key
			list[i], b = Key{Seq: s.seqOf(low), End: end}, b[s.size:]
			continue
		}
		var e Entry
		key, _, rest, whole := parseEntry(b, &e)
		if !whole {
			return nil, 0, false
		}
		end += copy(room[end:], key)
		list[i], b = Key{Seq: e.Seq, Expires: e.Expires, End: end}, rest
	}
	return b, end, true
}

// shapes are the last two that were met: most entries are of the same, but for a number
// that is now and then a byte shorter.
type shapes struct {
	list [2]shape
	last int
}

// other returns the shape of an entry that is not of the last one, and the eight bytes
// behind its key. It is not ok if the entry must be taken apart.
func (x *shapes) other(b []byte) (s *shape, low uint64, ok bool) {
	x.last ^= 1
	s = &x.list[x.last&1]
	if low, ok = s.fits(b); !ok {
		*s = shapeOf(b)
		low, ok = s.fits(b)
	}
	return s, low, ok
}

// cut takes the keys out that lie behind the range, and ends the walk there.
func (s *tableSource) cut(k *Keys) {
	begin := func(i int) int {
		if i == 0 {
			return 0
		}
		return k.List[i-1].End
	}
	n := sort.Search(len(k.List), func(i int) bool { return k.Text[begin(i):k.List[i].End] >= s.to })
	if n < len(k.List) {
		k.Text, k.List = k.Text[:begin(n)], k.List[:n]
		s.end()
	}
}
