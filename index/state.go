package index

import (
	"encoding/binary"
	"maps"
	"slices"
)

// appendStateLocked appends all that the index knows beside its entries.
func (x *Index) appendStateLocked(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(x.mu.usage)))
	for _, n := range slices.Sorted(maps.Keys(x.mu.usage)) {
		u := x.mu.usage[n]
		b = binary.AppendUvarint(b, n)
		for _, v := range u.fields() {
			b = binary.AppendVarint(b, *v)
		}
	}
	b = x.mu.series.append(b)
	b = binary.AppendUvarint(b, uint64(len(x.mu.log)))
	for _, t := range x.mu.log {
		t.closeBlock()
		b = t.append(b)
	}
	return b
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
		x.mu.log = append(x.mu.log, readStretch(d, uint32(len(x.mu.series.ids))))
	}
}

func (u *Usage) fields() [6]*int64 {
	return [...]*int64{&u.Keys, &u.Entries, &u.Samples, &u.Tombstones, &u.Expiring, &u.LatestExpiry}
}

// append appends the sums of all series in the order of their numbers.
func (t *seriesTable) append(b []byte) []byte {
	names := make([]string, len(t.ids))
	for name, id := range t.ids {
		names[id] = name
	}
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		s, _ := t.sums.Get(Series{Name: name})
		b = appendBytes(b, []byte(name))
		b = binary.AppendUvarint(b, s.Samples)
		b = binary.AppendUvarint(b, s.FirstSeq)
		b = binary.AppendUvarint(b, s.LastSeq)
		b = binary.AppendVarint(b, s.MinAt)
		b = binary.AppendVarint(b, s.MaxAt)
	}
	return b
}

func (t *seriesTable) read(d *decoder) {
	for range d.count() {
		s := Series{Name: string(d.bytes()), Samples: d.uint(), FirstSeq: d.uint(), LastSeq: d.uint(), MinAt: d.int(), MaxAt: d.int()}
		t.ids[s.Name] = uint32(len(t.ids))
		t.sums.ReplaceOrInsert(s)
	}
}

func (t *stretch) append(b []byte) []byte {
	b = binary.AppendUvarint(b, t.segment)
	b = binary.AppendUvarint(b, t.first)
	b = binary.AppendUvarint(b, uint64(len(t.blocks)))
	for i := range t.blocks {
		k := &t.blocks[i]
		b = binary.AppendUvarint(b, uint64(k.Start))
		b = binary.AppendUvarint(b, uint64(k.End))
		b = binary.AppendUvarint(b, k.FirstSeq)
		b = binary.AppendUvarint(b, k.LastSeq)
		b = binary.AppendVarint(b, k.MinAt)
		b = binary.AppendVarint(b, k.MaxAt)
		b = binary.AppendUvarint(b, uint64(k.Samples))
		damaged := byte(0)
		if k.Damaged {
			damaged = 1
		}
		b = append(b, damaged)
		b = binary.AppendUvarint(b, uint64(len(k.series)))
		before := uint32(0)
		for _, id := range k.series {
			b = binary.AppendUvarint(b, uint64(id-before))
			before = id
		}
	}
	return b
}

func readStretch(d *decoder, series uint32) *stretch {
	t := &stretch{segment: d.uint(), first: d.uint()}
	for range d.count() {
		k := block{Block: Block{Segment: t.segment, Start: int64(d.uint()), End: int64(d.uint()), FirstSeq: d.uint(), LastSeq: d.uint(), MinAt: d.int(), MaxAt: d.int(), Samples: int(d.uint())}}
		k.Damaged = d.uint() == 1
		id := uint32(0)
		for range d.count() {
			id += uint32(d.uint())
			d.bad = d.bad || id >= series
			k.series = append(k.series, id)
		}
		t.blocks = append(t.blocks, k)
	}
	d.bad = d.bad || len(t.blocks) == 0
	return t
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
