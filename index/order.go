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

	count atomic.Int64 // how many changes that are, or nearly
	ahead atomic.Bool  // somebody sorts in the background
}

const (
	runRatio = 8   // how many times a run is longer than the next, at least
	shortRun = 512 // unless it is shorter than this: then there is no next one
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
	if o.order.upTo == limit {
		return o.order.runs
	}
	var fresh run
	o.walk(o.order.upTo, limit, func(r ref) { fresh = append(fresh, r) })
	o.order.upTo = limit
	o.order.count.Add(int64(len(fresh)))
	runs := slices.Clone(o.order.runs)
	runs = append(runs, o.sort(fresh))
	// Each run is much longer than the next: so there are few, which every walk has to
	// look into, and a change is copied few times. Short runs are not worth a look.
	for n := len(runs); n > 1 && len(runs[n-2]) < max(runRatio*len(runs[n-1]), shortRun); n = len(runs) {
		runs = append(runs[:n-2], o.merge(runs[n-2], runs[n-1]))
	}
	o.order.runs = runs
	return runs
}

// sort makes a run of changes. Most keys are told apart by the eight bytes behind what
// all begin with: a comparison of numbers that lie together, where keys lie anywhere.
func (o *overlay) sort(list []ref) run {
	if len(list) < 2 {
		return list
	}
	common := keyOf(o.at(list[0]))
	for _, r := range list[1:] {
		common = common[:shared(common, keyOf(o.at(r)))]
	}
	type headed struct {
		head uint64
		ref  ref
	}
	heads := make([]headed, len(list))
	for i, r := range list {
		var head [8]byte
		copy(head[:], keyOf(o.at(r))[len(common):])
		heads[i] = headed{binary.BigEndian.Uint64(head[:]), r}
	}
	slices.SortFunc(heads, func(a, b headed) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		if c := bytes.Compare(keyOf(o.at(a.ref)), keyOf(o.at(b.ref))); c != 0 {
			return c
		}
		return cmp.Compare(b.ref, a.ref) // the latest first, which stays
	})
	sorted := list[:0]
	for i, h := range heads {
		if i > 0 && h.head == heads[i-1].head && bytes.Equal(keyOf(o.at(h.ref)), keyOf(o.at(sorted[len(sorted)-1]))) {
			continue
		}
		sorted = append(sorted, h.ref)
	}
	return sorted
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
