package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// order gives the keys of an overlay in order, in runs: sorted lists of changes,
// each of which holds at most one of a key, the latest. A key that is in several
// runs counts in the newest. Runs never change, so a snapshot just keeps them.
//
// Nothing is sorted until somebody asks, or until there is so much to sort that he
// would wait for long: a put of a key that nobody scans costs no order.
type order struct {
	mu   sync.Mutex
	runs []run // the newest last
	upTo ref   // changes before it are in runs

	asked bool // somebody needed the order since it was last sorted ahead

	count atomic.Int64 // how many changes that are, or nearly
	ahead atomic.Bool  // somebody sorts in the background
}

const (
	runRatio = 8   // how many times a run is longer than the next, at least
	shortRun = 512 // unless it is shorter than this: then there is no next one

	apart    = 8         // runs of any length while nobody asks for the order
	sortOnce = 512 << 10 // changes that are sorted anew for a table, instead of merging their runs
)

// run is a list of changes in the order of their keys.
type run []ref

// sortAhead is how many changes may wait to be sorted before that is done in the
// background: some 20 ms of work.
const sortAhead = 32 << 10

// late tells whether it is time to sort ahead, and nobody does so. The caller holds
// Index.mu.
func (s *order) late(o *overlay) bool {
	return int64(o.count)-s.count.Load() > sortAhead && s.ahead.CompareAndSwap(false, true)
}

// sortedLocked returns the runs that hold all changes up to limit. The caller holds
// order.mu, and has taken limit since: nobody has sorted further.
func (o *overlay) sortedLocked(limit ref) []run {
	o.order.asked = true
	if o.order.upTo != limit {
		o.sortNewLocked(limit)
		o.mergeLocked()
	}
	return o.order.runs
}

// sortAheadLocked is sortedLocked for nobody yet. Where nobody has asked for the order
// lately its runs are left as they are: most changes of a store that is filled are
// sorted once more for the next table, and not needed in order before.
func (o *overlay) sortAheadLocked(limit ref) {
	o.sortNewLocked(limit)
	if o.order.asked || len(o.order.runs) > apart {
		o.mergeLocked()
	}
	o.order.asked = false
}

// inOneLocked returns the changes of an overlay that takes no more in one run, or in few.
func (o *overlay) inOneLocked() []run {
	s := &o.order
	if s.asked || o.count > sortOnce || len(s.runs) < 2 {
		return o.sortedLocked(o.end)
	}
	s.upTo, s.runs = 1, nil
	s.count.Store(0)
	o.sortNewLocked(o.end)
	return s.runs
}

// sortNewLocked makes a run of the changes that are in none, up to limit.
func (o *overlay) sortNewLocked(limit ref) {
	if o.order.upTo == limit {
		return
	}
	var fresh run
	o.walk(o.order.upTo, limit, func(r ref) { fresh = append(fresh, r) })
	o.order.upTo = limit
	o.order.count.Add(int64(len(fresh)))
	o.order.runs = append(slices.Clone(o.order.runs), o.sort(fresh))
}

// mergeLocked merges runs until each is much longer than the next: so there are few,
// which every walk has to look into, and a change is copied few times. Short runs are not
// worth a look.
func (o *overlay) mergeLocked() {
	runs := slices.Clone(o.order.runs)
	for n := len(runs); n > 1 && len(runs[n-2]) < max(runRatio*len(runs[n-1]), shortRun); n = len(runs) {
		runs = append(runs[:n-2], o.merge(runs[n-2], runs[n-1]))
	}
	o.order.runs = runs
}

// headed is a change with the eight bytes of its key that tell most keys apart.
type headed struct {
	head uint64
	ref  ref
}

// sort makes a run of changes, given in their order. Most keys are told apart by the
// eight bytes behind what all begin with: numbers that lie together, where keys lie
// anywhere.
func (o *overlay) sort(list []ref) run {
	if len(list) < 2 {
		return list
	}
	common := keyOf(o.at(list[0]))
	for _, r := range list[1:] {
		common = common[:shared(common, keyOf(o.at(r)))]
	}
	heads := make([]headed, len(list))
	for i, r := range list {
		var head [8]byte
		copy(head[:], keyOf(o.at(r))[len(common):])
		heads[len(heads)-1-i] = headed{binary.BigEndian.Uint64(head[:]), r} // the latest first
	}
	heads = sortHeads(heads)
	sorted := list[:0]
	for len(heads) > 0 {
		n := 1
		for n < len(heads) && heads[n].head == heads[0].head {
			n++
		}
		same := heads[:n]
		if n > 1 {
			slices.SortStableFunc(same, func(a, b headed) int { return bytes.Compare(keyOf(o.at(a.ref)), keyOf(o.at(b.ref))) })
		}
		for i, h := range same {
			if i == 0 || !bytes.Equal(keyOf(o.at(h.ref)), keyOf(o.at(same[i-1].ref))) {
				sorted = append(sorted, h.ref)
			}
		}
		heads = heads[n:]
	}
	return sorted
}

// fewHeads is up to how many are sorted by comparing them.
const fewHeads = 512

// sortHeads sorts by the heads and leaves those alike in their order: byte by byte, the
// last one first, but for bytes that are the same in all of them. Comparing some ten
// thousand takes three times as long.
func sortHeads(list []headed) []headed {
	if len(list) <= fewHeads {
		slices.SortStableFunc(list, func(a, b headed) int { return cmp.Compare(a.head, b.head) })
		return list
	}
	var counts [8][256]uint32
	for i := range list {
		h := list[i].head
		for k := range counts {
			counts[k][byte(h>>(8*k))]++
		}
	}
	other := make([]headed, len(list))
	for k := range counts {
		if counts[k][byte(list[0].head>>(8*k))] == uint32(len(list)) {
			continue
		}
		at, next := uint32(0), &counts[k]
		for i, n := range next {
			next[i] = at
			at += n
		}
		for _, h := range list {
			place := &next[byte(h.head>>(8*k))]
			other[*place] = h
			*place++
		}
		list, other = other, list
	}
	return list
}

// shared is how many bytes two keys begin with alike.
func shared(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// merge makes one run of two. Few changes in a long run cost little more than the
// copy.
func (o *overlay) merge(older, newer run) run {
	merged := make(run, 0, len(older)+len(newer))
	for _, r := range newer {
		key := keyOf(o.at(r))
		n, same := o.search(older, key)
		merged = append(append(merged, older[:n]...), r)
		if same {
			n++
		}
		older = older[n:]
	}
	return append(merged, older...)
}

// from returns where the keys from one on begin in a run.
func (o *overlay) from(r run, key string) int {
	return sort.Search(len(r), func(i int) bool { return string(keyOf(o.at(r[i]))) >= key })
}

// search returns where a key is in a run, or would be. It looks near the beginning
// first.
func (o *overlay) search(r run, key []byte) (n int, found bool) {
	high := 1
	for high < len(r) && bytes.Compare(keyOf(o.at(r[high])), key) < 0 {
		high *= 2
	}
	low := min(high/2, len(r))
	high = min(high+1, len(r))
	n = low + sort.Search(high-low, func(i int) bool { return bytes.Compare(keyOf(o.at(r[low+i])), key) >= 0 })
	return n, n < len(r) && bytes.Equal(keyOf(o.at(r[n])), key)
}
