package index

import (
	"iter"

	"github.com/google/btree"
)

// Snapshot is the state of an index at one moment. It is safe for concurrent use.
type Snapshot struct {
	x    *Index
	keys *btree.BTreeG[Entry]
	log  []*stretch
	last uint64

	series *btree.BTreeG[Series]
}

// Get returns the entry of a key.
func (s *Snapshot) Get(key string) (Entry, bool) { return s.keys.Get(Entry{Key: key}) }

// Len is the number of keys.
func (s *Snapshot) Len() int { return s.keys.Len() }

// Last is the greatest sequence number in it.
func (s *Snapshot) Last() uint64 { return s.last }

// Range yields the entries from key from on (included) up to key to (not
// included; "" is no bound) in order, or backwards if reverse.
func (s *Snapshot) Range(from, to string, reverse bool) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		switch {
		case !reverse && to == "":
			s.keys.AscendGreaterOrEqual(Entry{Key: from}, yield)
		case !reverse:
			s.keys.AscendRange(Entry{Key: from}, Entry{Key: to}, yield)
		case to == "":
			s.keys.Descend(func(e Entry) bool { return e.Key >= from && yield(e) })
		default:
			s.keys.DescendLessOrEqual(Entry{Key: to}, func(e Entry) bool {
				return e.Key == to || e.Key >= from && yield(e)
			})
		}
	}
}

// PrefixEnd returns the least key above all keys that begin with prefix, "" if
// there is none.
func PrefixEnd(prefix string) string {
	for n := len(prefix); n > 0; n-- {
		if c := prefix[n-1]; c < 0xFF {
			return prefix[:n-1] + string([]byte{c + 1})
		}
	}
	return ""
}
