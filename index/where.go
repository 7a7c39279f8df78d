package index

import (
	"encoding/binary"
	"slices"
	"sort"
)

// where says in which blocks of a part each series occurs, in bounded memory. Series
// that occur in few of the blocks, and those that occur in all, take little, and for
// as many of them as there is room the blocks are named, the rarest first. All others
// may be in any block: with so many series of which each is in so many blocks, most of
// a part has to be read for any of them.
type where struct {
	all    bool   // nothing is known: any series may be in any block
	common []byte // the series that may be in any block: a set, see appendSet
	exact  []byte // those of which the blocks are known, each as appendExact has it
	skips  []skip // to places in exact
}

// skip is a place in exact: behind it comes the first series above after.
type skip struct {
	after  uint32
	offset uint32
}

const (
	// whereBlock is how many bytes of a where there may be for each block, and leastWhere
	// for all of a short part. With the 32 of a block itself that is one byte for 680 of
	// the log.
	whereBlock = 64
	leastWhere = 1 << 10
	skipEvery  = 32 // series
)

// packWhere makes a where of the series of each block, which are sorted.
func packWhere(lists [][]uint32) (w where) {
	budget := max(whereBlock*len(lists), leastWhere)
	counts, least := countSeries(lists)
	if counts == nil {
		return where{}
	}
	// How many series of each count may be exact: first those in all blocks, then from
	// the rarest on.
	classes := make([]int, len(lists)+1)
	for _, n := range counts {
		classes[n]++
	}
	var rest []uint32
	for i, n := range counts {
		if n > 0 {
			rest = append(rest, least+uint32(i))
		}
	}
	if w.common = appendSet(nil, rest); len(w.common) > budget {
		// Then at least those that are rare: but no series may be left out.
		return where{all: true}
	}
	budget -= len(w.common)
	take := make([]int, len(lists)+1)
	for i := range classes {
		n := i
		if i == 0 {
			n = len(lists)
		} else if i == len(lists) {
			break
		}
		cost := exactCost(n, len(lists))
		take[n] = min(classes[n], budget/cost)
		budget -= take[n] * cost
	}
	w.fill(lists, counts, least, take)
	return w
}

// countSeries returns in how many blocks each series is, by its number less the least
// one.
func countSeries(lists [][]uint32) (counts []uint16, least uint32) {
	least, most := uint32(noSeries), uint32(0)
	for _, list := range lists {
		if len(list) > 0 {
			least, most = min(least, list[0]), max(most, list[len(list)-1])
		}
	}
	if least > most {
		return nil, 0
	}
	counts = make([]uint16, most-least+1)
	for _, list := range lists {
		for _, id := range list {
			counts[id-least]++
		}
	}
	return counts, least
}

// fill writes exact, of as many series of each count as take says, and then common.
func (w *where) fill(lists [][]uint32, counts []uint16, least uint32, take []int) {
	places := make([]int32, len(counts)) // into blocks, from 1 on
	var chosen, common []uint32
	size := int32(0)
	for i, n := range counts {
		switch {
		case n == 0:
		case take[n] > 0:
			take[n]--
			places[i] = size + 1
			size += int32(n)
			chosen = append(chosen, least+uint32(i))
		default:
			common = append(common, least+uint32(i))
		}
	}
	blocks := make([]byte, size)
	next := slices.Clone(places)
	for i, list := range lists {
		for _, id := range list {
			if k := id - least; places[k] != 0 {
				blocks[next[k]-1] = byte(i)
				next[k]++
			}
		}
	}
	before := uint32(0)
	for i, id := range chosen {
		if i%skipEvery == 0 && i > 0 {
			w.skips = append(w.skips, skip{before, uint32(len(w.exact))})
		}
		at := places[id-least] - 1
		w.exact = appendExact(w.exact, id-before, blocks[at:at+int32(counts[id-least])], len(lists))
		before = id
	}
	w.exact = slices.Clip(w.exact)
	w.common = slices.Clip(appendSet(nil, common))
}

// appendExact appends the blocks of one series: the difference to the number of the
// series before, how many blocks it is in, and then nothing if that is all of them,
// else each block in a byte, or a bit for each of all blocks if that is shorter.
func appendExact(b []byte, delta uint32, blocks []byte, all int) []byte {
	b = binary.AppendUvarint(b, uint64(delta))
	b = binary.AppendUvarint(b, uint64(len(blocks)))
	switch n := exactBytes(len(blocks), all); {
	case n == 0:
	case n == len(blocks):
		b = append(b, blocks...)
	default:
		bits := make([]byte, n)
		for _, i := range blocks {
			bits[i/8] |= 1 << (i % 8)
		}
		b = append(b, bits...)
	}
	return b
}

// exactBytes is how many bytes name n of all blocks.
func exactBytes(n, all int) int {
	if n == all {
		return 0
	}
	return min(n, (all+7)/8)
}

// exactCost is what a series that is in n of all blocks takes, most often.
func exactCost(n, all int) int { return 4 + exactBytes(n, all) }

// blockSet is some of the blocks of a part.
type blockSet struct {
	all  bool
	list []byte // of blocks, rising
	bits []byte // of blocks
}

func (s blockSet) has(i int) bool {
	switch {
	case s.all:
		return true
	case s.bits != nil:
		return s.bits[i/8]&(1<<(i%8)) != 0
	}
	_, found := slices.BinarySearch(s.list, byte(i))
	return found
}

// find returns the blocks, of all that the part has, in which a series can be.
func (w *where) find(series uint32, all int) blockSet {
	if w.all {
		return blockSet{all: true}
	}
	d := &decoder{b: w.exact}
	id := uint32(0)
	if i := sort.Search(len(w.skips), func(i int) bool { return w.skips[i].after >= series }); i > 0 {
		d.b, id = d.b[w.skips[i-1].offset:], w.skips[i-1].after
	}
	for len(d.b) > 0 {
		delta, blocks := d.exact(all)
		if id += delta; id == series {
			return blocks
		} else if id > series {
			break
		}
	}
	return blockSet{all: setHas(w.common, series)}
}

// exact reads what appendExact has written.
func (d *decoder) exact(all int) (delta uint32, s blockSet) {
	delta = uint32(d.uint())
	n := d.uint()
	if n == 0 || n > uint64(all) {
		d.b, d.bad = nil, true
		return 0, blockSet{}
	}
	size := exactBytes(int(n), all)
	if size > len(d.b) {
		d.b, d.bad = nil, true
		return 0, blockSet{}
	}
	named := d.b[:size:size]
	d.b = d.b[size:]
	switch size {
	case 0:
		s.all = true
	case int(n):
		s.list = named
	default:
		s.bits = named
	}
	return delta, s
}

// A set of series, which is sorted, is nothing at all if it is empty; else a byte 0 and
// their numbers, each in 4 bytes, or a byte 1, the number of the first series in 4 bytes,
// and a bit for each from there on: whatever is shorter.
const (
	setList = 0
	setBits = 1
)

func appendSet(b []byte, series []uint32) []byte {
	if len(series) == 0 {
		return b
	}
	first, span := series[0], int(series[len(series)-1]-series[0])+1
	if 4*len(series) <= 4+(span+7)/8 {
		b = append(b, setList)
		for _, id := range series {
			b = binary.LittleEndian.AppendUint32(b, id)
		}
		return b
	}
	b = binary.LittleEndian.AppendUint32(append(b, setBits), first)
	bits := make([]byte, (span+7)/8)
	for _, id := range series {
		bits[(id-first)/8] |= 1 << ((id - first) % 8)
	}
	return append(b, bits...)
}

// wholeSet tells whether a set can be read.
func wholeSet(b []byte) bool {
	switch {
	case len(b) == 0:
		return true
	case b[0] == setList:
		return len(b)%4 == 1
	}
	return b[0] == setBits && len(b) > 5
}

func setHas(b []byte, series uint32) bool {
	if len(b) == 0 {
		return false
	}
	kind, b := b[0], b[1:]
	if kind == setList {
		at := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
		i := sort.Search(len(b)/4, func(i int) bool { return at(i) >= series })
		return 4*i < len(b) && at(i) == series
	}
	first := binary.LittleEndian.Uint32(b)
	if series < first {
		return false
	}
	i := int(series - first)
	return i/8 < len(b)-4 && b[4+i/8]&(1<<(i%8)) != 0
}

// bytes is how much memory a where takes.
func (w *where) bytes() int { return cap(w.common) + cap(w.exact) + 8*cap(w.skips) }

func (w *where) append(b []byte) []byte {
	all := byte(0)
	if w.all {
		all = 1
	}
	b = append(b, all)
	b = appendBytes(b, w.common)
	return appendBytes(b, w.exact)
}

// readWhere reads the where of a part with so many blocks, and finds the skips.
func readWhere(d *decoder, all int) (w where) {
	w.all = d.uint() == 1
	w.common, w.exact = slices.Clone(d.bytes()), slices.Clone(d.bytes())
	d.bad = d.bad || !wholeSet(w.common)
	e := &decoder{b: w.exact}
	id := uint32(0)
	for i := 0; len(e.b) > 0; i++ {
		if i%skipEvery == 0 && i > 0 {
			w.skips = append(w.skips, skip{id, uint32(len(w.exact) - len(e.b))})
		}
		delta, _ := e.exact(all)
		id += delta
	}
	w.skips = slices.Clip(w.skips)
	d.bad = d.bad || e.bad
	return w
}
