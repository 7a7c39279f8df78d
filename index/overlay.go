package index

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync/atomic"
)

// overlay holds what has changed since the table below it was made: for each
// change the key and where its line lies, in the order of the changes, in chunks
// of bytes that are never changed once they are written. A hash table finds the
// latest change of a key, runs of sorted changes give the order; see order.go.
//
// One goroutine at a time puts, all others may find without a lock: a change is
// whole before its number is stored, atomically, in the slot that leads to it.
type overlay struct {
	seed   maphash.Seed
	slots  atomic.Pointer[slots]
	chunks atomic.Pointer[[][]byte]
	end    ref // where the next change will lie; guarded by Index.mu
	count  int // changes; guarded by Index.mu
	order  order
}

// ref says where in the chunks a change lies, in units of eight bytes. 0 is no
// change.
type ref uint32

// A change, as bytes:
//
//	 0  seq, and in the bits above it whether the key is deleted, or expires
//	 8  segment
//	16  offset and length of the line
//	24  length of the key
//	28  expiry, if it has one
//	    key
const (
	refUnit    = 8
	chunkBytes = 1 << 20
	chunkRefs  = chunkBytes / refUnit
	firstBytes = 1 << 10 // of the first chunk, which grows: most stores are small

	changeHead = 28
	isDeleted  = 1 << 63
	isExpiring = 1 << 62
	seqBits    = 1<<62 - 1
)

// slots is the hash table: each slot holds 32 bits of a key's hash and the ref of
// its latest change. A hash that is taken goes into the next free slot.
type slots struct {
	list []atomic.Uint64
	used int
}

const firstSlots = 64

func newOverlay() *overlay {
	o := &overlay{seed: maphash.MakeSeed(), end: 1}
	o.slots.Store(&slots{list: make([]atomic.Uint64, firstSlots)})
	o.chunks.Store(&[][]byte{make([]byte, firstBytes)})
	o.order.upTo = o.end
	return o
}

// expect makes room for half as many keys as another overlay has got: the next one grows
// once then, instead of ten times.
func (o *overlay) expect(other *overlay) {
	if n := len(other.slots.Load().list) / 2; n > firstSlots {
		o.slots.Store(newSlots(n))
	}
}

func (o *overlay) hash(key string) uint32 { return uint32(maphash.String(o.seed, key) >> 32) }

// at returns the bytes from a change on.
func (o *overlay) at(r ref) []byte {
	return (*o.chunks.Load())[r/chunkRefs][(r%chunkRefs)*refUnit:]
}

// keyOf returns a change's key, in place.
func keyOf(b []byte) []byte {
	n := int(binary.LittleEndian.Uint32(b[24:]))
	if b[7]&(isExpiring>>56) != 0 {
		b = b[8:]
	}
	return b[changeHead : changeHead+n]
}

// entryOf returns a change without its key.
func entryOf(b []byte) (e Entry, deleted bool) {
	seq := binary.LittleEndian.Uint64(b)
	e.Seq = seq & seqBits
	e.Segment = binary.LittleEndian.Uint64(b[8:])
	e.Offset = binary.LittleEndian.Uint32(b[16:])
	e.Len = binary.LittleEndian.Uint32(b[20:])
	if seq&isExpiring != 0 {
		e.Expires = int64(binary.LittleEndian.Uint64(b[changeHead:]))
	}
	return e, seq&isDeleted != 0
}

// find returns the latest change of a key, 0 if it has none.
func (o *overlay) find(key string) ref {
	_, _, r := o.slot(key)
	return r
}

// slot returns where in the hash table a key is, or would be, the hash that belongs
// there, and its latest change.
func (o *overlay) slot(key string) (at *atomic.Uint64, h uint32, r ref) {
	h = o.hash(key)
	at, r = slotOf(o, key, h)
	return at, h, r
}

// slotOf is slot for a key whose hash is known.
func slotOf[K string | []byte](o *overlay, key K, h uint32) (at *atomic.Uint64, r ref) {
	s := o.slots.Load()
	mask := uint32(len(s.list) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		at = &s.list[i]
		v := at.Load()
		if v == 0 {
			return at, 0
		}
		if r = ref(v); uint32(v>>32) == h && string(keyOf(o.at(r))) == string(key) {
			return at, r
		}
	}
}

// put makes e the latest change of its key. The caller holds Index.mu.
func (o *overlay) put(e *Entry, deleted bool) {
	o.reserve(1)
	at, h, r := o.slot(e.Key)
	o.putAt(at, h, r, e, deleted)
}

// reserve makes room in the hash table for some more keys, few for what it has.
func (o *overlay) reserve(keys int) {
	for s := o.slots.Load(); s.used+keys > len(s.list)/4*3; s = o.slots.Load() {
		o.slots.Store(s.grown())
	}
}

// hashAll returns the hashes of the keys of some changes. It has the processor load the
// slots of many of them at a time, and what these lead to, where one by one each would be
// waited for.
func (o *overlay) hashAll(changes []Change, hashes *[owedKeys]uint32) {
	for i := range changes {
		if changes[i].Op != Sample {
			hashes[i] = o.hash(changes[i].Name)
		}
	}
	if len(changes) == 1 {
		return
	}
	list, sum := o.slots.Load().list, uint64(0)
	mask := uint32(len(list) - 1)
	for _, h := range hashes[:len(changes)] {
		sum += list[h&mask].Load()
	}
	fetched.Store(sum)
}

// putAt is put for a key whose slot is known, since reserve.
func (o *overlay) putAt(at *atomic.Uint64, h uint32, before ref, e *Entry, deleted bool) {
	if before == 0 {
		o.slots.Load().used++
	}
	at.Store(uint64(h)<<32 | uint64(o.append(e, deleted)))
}

// grown returns a table twice as large with the same in it. Who looks into the old
// one meanwhile has begun before the change that made it grow.
func (s *slots) grown() *slots {
	g := newSlots(2 * len(s.list))
	g.used = s.used
	mask := uint32(len(g.list) - 1)
	for i := range s.list {
		v := s.list[i].Load()
		if v == 0 {
			continue
		}
		at := uint32(v>>32) & mask
		for g.list[at].Load() != 0 {
			at = (at + 1) & mask
		}
		g.list[at].Store(v)
	}
	return g
}

// append writes a change behind the last one.
func (o *overlay) append(e *Entry, deleted bool) ref {
	size := changeHead + len(e.Key)
	if e.Expires != 0 {
		size += 8
	}
	b, r := o.room((size + refUnit - 1) / refUnit)
	seq := e.Seq
	if deleted {
		seq |= isDeleted
	}
	key := b[changeHead:]
	if e.Expires != 0 {
		seq |= isExpiring
		binary.LittleEndian.PutUint64(key, uint64(e.Expires))
		key = key[8:]
	}
	binary.LittleEndian.PutUint64(b, seq)
	binary.LittleEndian.PutUint64(b[8:], e.Segment)
	binary.LittleEndian.PutUint32(b[16:], e.Offset)
	binary.LittleEndian.PutUint32(b[20:], e.Len)
	binary.LittleEndian.PutUint32(b[24:], uint32(len(e.Key)))
	copy(key, e.Key)
	o.count++
	return r
}

// room returns bytes for a change of so many units, and its ref. A change does not
// cross the end of a chunk; what it leaves free there stays zero, see next.
func (o *overlay) room(units int) ([]byte, ref) {
	if free := chunkRefs - int(o.end%chunkRefs); units > free {
		o.end += ref(free)
	}
	r := o.end
	o.end += ref(units)
	chunks := *o.chunks.Load()
	n, from, to := int(r/chunkRefs), int(r%chunkRefs)*refUnit, (int(r%chunkRefs)+units)*refUnit
	if n < len(chunks) && to <= len(chunks[n]) {
		return chunks[n][from:to], r
	}
	return o.grow(n, to)[from:to], r
}

// grow makes room up to a place in chunk n and returns the chunk.
func (o *overlay) grow(n, to int) []byte {
	chunks := slices.Clone(*o.chunks.Load())
	if n == len(chunks) {
		chunks = append(chunks, make([]byte, chunkBytes))
	} else { // the first one, which begins small
		larger := make([]byte, min(max(4*len(chunks[n]), to), chunkBytes))
		copy(larger, chunks[n])
		chunks[n] = larger
	}
	o.chunks.Store(&chunks)
	return chunks[n]
}

// next returns the change behind that at r, which may be limit.
func (o *overlay) next(r ref) ref {
	b := o.at(r)
	size := changeHead + int(binary.LittleEndian.Uint32(b[24:]))
	if b[7]&(isExpiring>>56) != 0 {
		size += 8
	}
	return r + ref((size+refUnit-1)/refUnit)
}

// walk calls fn with each change from one up to another, in their order.
func (o *overlay) walk(from, to ref, fn func(ref)) {
	for r := from; r < to; {
		// What is too short for a change, or begins with sequence number 0, is the rest
		// of a chunk. Of the first chunk, which grows, even that may be missing.
		if b := o.at(r); len(b) < changeHead || binary.LittleEndian.Uint64(b) == 0 {
			r += chunkRefs - r%chunkRefs
			continue
		}
		fn(r)
		r = o.next(r)
	}
}

// maxOverlay is how far an overlay grows, 16 GiB, before another one is begun: refs
// have 32 bits.
const maxOverlay = 1 << 31
