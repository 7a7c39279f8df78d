package index

import (
	"encoding/binary"
	"maps"
	"slices"
)

// state is all that an index knows beside its entries.
type state struct {
	usage  map[uint64]Usage
	series *seriesTable
	log    []stretch

	retiring *Retirement
}

// stateLocked returns the present state, for somebody who reads it without a lock.
// What is long does not change any more, so this takes little time.
func (x *Index) stateLocked() *state {
	s := &state{usage: make(map[uint64]Usage, len(x.mu.usage)), series: x.mu.series.frozen(), log: x.logLocked(), retiring: x.mu.retiring}
	for n, u := range x.mu.usage {
		s.usage[n] = *u
	}
	return s
}

// logLocked returns all blocks as they are now, for somebody who reads them without a
// lock.
func (x *Index) logLocked() []stretch {
	log := make([]stretch, len(x.mu.log))
	for i, t := range x.mu.log {
		log[i] = stretch{segment: t.segment, first: t.first, parts: slices.Clone(t.parts)}
		n := len(t.parts) - 1
		log[i].parts[n] = t.parts[n].frozen()
	}
	return log
}

func (s *state) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.usage)))
	for _, n := range slices.Sorted(maps.Keys(s.usage)) {
		u := s.usage[n]
		b = binary.AppendUvarint(b, n)
		for _, v := range u.fields() {
			b = binary.AppendVarint(b, *v)
		}
	}
	b = s.series.append(b)
	b = binary.AppendUvarint(b, uint64(len(s.log)))
	for i := range s.log {
		b = s.log[i].append(b)
	}
	return s.retiring.append(b)
}

func (x *Index) readState(d *decoder) {
	for range d.count() {
		n, u := d.uint(), &Usage{}
		for _, v := range u.fields() {
			*v = d.int()
		}
		x.mu.usage[n] = u
	}
	x.mu.series.read(d)
	for range d.count() {
		x.mu.log = append(x.mu.log, readStretch(d))
	}
	x.mu.retiring = readRetirement(d)
}

func (u *Usage) fields() [6]*int64 {
	return [...]*int64{&u.Keys, &u.Entries, &u.Samples, &u.Tombstones, &u.Expiring, &u.LatestExpiry}
}

// append appends the sums of all series in the order of their numbers.
func (t *seriesTable) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.list)))
	for _, c := range t.list {
		if c == nil {
			b = appendBytes(b, "") // a number that is free
			continue
		}
		b = appendBytes(b, c.Name)
		b = binary.AppendUvarint(b, c.Samples)
		b = binary.AppendUvarint(b, c.Bytes)
		b = binary.AppendUvarint(b, c.FirstSeq)
		b = binary.AppendUvarint(b, c.LastSeq)
		b = binary.AppendVarint(b, c.MinAt)
		b = binary.AppendVarint(b, c.MaxAt)
	}
	return b
}

func (t *seriesTable) read(d *decoder) {
	for range d.count() {
		name := string(d.bytes())
		id := uint32(len(t.list))
		if name == "" {
			t.list, t.free = append(t.list, nil), append(t.free, id)
			continue
		}
		c := &counted{Series: Series{Name: name, Samples: d.uint(), Bytes: d.uint(), FirstSeq: d.uint(), LastSeq: d.uint(), MinAt: d.int(), MaxAt: d.int(), id: id}}
		t.list, t.ids[name] = append(t.list, c), id
		t.sums.ReplaceOrInsert(c)
	}
}

func (t *stretch) append(b []byte) []byte {
	b = binary.AppendUvarint(b, t.segment)
	b = binary.AppendUvarint(b, t.first)
	b = binary.AppendUvarint(b, uint64(len(t.parts)))
	for _, p := range t.parts {
		b = p.append(b)
	}
	return b
}

// append appends a part as if it were packed. Numbers of its blocks are written as the
// difference to the block before.
func (p *part) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(p.end))
	b = binary.AppendUvarint(b, p.last)
	b = binary.AppendUvarint(b, uint64(len(p.blocks)))
	var before block
	for i := range p.blocks {
		k := &p.blocks[i]
		b = binary.AppendUvarint(b, uint64(k.start-before.start))
		b = binary.AppendUvarint(b, k.first-before.first)
		b = binary.AppendUvarint(b, uint64(k.samples))
		if k.count() > 0 {
			b = binary.AppendVarint(b, k.minAt-before.minAt)
			b = binary.AppendUvarint(b, uint64(k.maxAt-k.minAt))
			before.minAt = k.minAt
		}
		before.start, before.first = k.start, k.first
	}
	w := p.where
	if !p.packed {
		w = packWhere(append(p.lists, p.present()))
	}
	return w.append(b)
}

func readStretch(d *decoder) *stretch {
	t := &stretch{segment: d.uint(), first: d.uint()}
	n := d.count()
	for range n {
		p := readPart(d)
		t.parts = append(t.parts, p)
		if d.bad {
			break
		}
	}
	d.bad = d.bad || n == 0
	return t
}

func readPart(d *decoder) *part {
	p := &part{end: int64(d.uint()), last: d.uint(), packed: true}
	n := d.count()
	if d.bad = d.bad || n == 0 || n > partBlocks; d.bad {
		return p
	}
	p.blocks = make([]block, n)
	var before block
	for i := range p.blocks {
		k := &p.blocks[i]
		k.start = before.start + uint32(d.uint())
		k.first = before.first + d.uint()
		k.samples = uint32(d.uint())
		if k.count() > 0 {
			k.minAt = before.minAt + d.int()
			k.maxAt = k.minAt + int64(d.uint())
			if p.samples == 0 {
				p.minAt, p.maxAt = k.minAt, k.maxAt
			}
			p.minAt, p.maxAt = min(p.minAt, k.minAt), max(p.maxAt, k.maxAt)
			p.samples += k.count()
			before.minAt = k.minAt
		}
		p.damaged = p.damaged || k.damaged()
		before.start, before.first = k.start, k.first
	}
	p.where = readWhere(d, n)
	return p
}

func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendEntries(b []byte, list []Entry) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		e := &list[i]
		b = appendBytes(b, e.Key)
		for _, v := range [...]uint64{e.Seq, e.Segment, uint64(e.Offset), uint64(e.Len), uint64(e.Expires)} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

// decoder takes state apart from the left. After the first thing that does not
// fit, bad stays true and all else is nothing.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count takes a number of things, each of which has a byte at least: what is too
// large for that allocates nothing.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count()
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) entries() (list []Entry) {
	for range d.count() {
		list = append(list, Entry{Key: string(d.bytes()), Seq: d.uint(), Pos: Pos{Segment: d.uint(), Offset: uint32(d.uint()), Len: uint32(d.uint())}, Expires: int64(d.uint())})
	}
	return list
}
