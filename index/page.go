package index

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// A table's file is made of pages. Each carries its own checksum, so that a page
// can be checked when it is first used, and a table of any size opens at once:
//
//	data pages   entries in key order, one page behind the other
//	inner pages  the first key of each page below, level by level, the root last
//	hash pages   for each key, where in the data pages its entry is
//	state        what else the index knows, checked as a whole
//	trailer      one page: where all that lies
const (
	// PageSize is the size of a page with its checksum.
	PageSize  = 4096
	pageBytes = PageSize - 4

	dataPage  = 1
	innerPage = 2
	hashPage  = 3
	lastPage  = 4

	pageHead = 3 // kind, count

	// maxTableKey is the longest key in a table. Longer ones stay in memory.
	maxTableKey = 1000
)

// sealPage fills in head and checksum. The number and the table's own mark go
// into the checksum: a page in the wrong place, or of an older file, is no page.
func sealPage(p []byte, kind byte, count int, number uint32, mark uint64) {
	p[0] = kind
	binary.LittleEndian.PutUint16(p[1:], uint16(count))
	binary.LittleEndian.PutUint32(p[pageBytes:], pageSum(p, number, mark))
}

func pageSum(p []byte, number uint32, mark uint64) uint32 {
	var seed [12]byte
	binary.LittleEndian.PutUint64(seed[:], mark)
	binary.LittleEndian.PutUint32(seed[8:], number)
	return crc32.Update(crc32.ChecksumIEEE(seed[:]), crc32.IEEETable, p[:pageBytes])
}

// checkPage tells whether p is page number of the table with this mark, and of the
// right kind.
func checkPage(p []byte, kind byte, number uint32, mark uint64) bool {
	return len(p) == PageSize && p[0] == kind && binary.LittleEndian.Uint32(p[pageBytes:]) == pageSum(p, number, mark)
}

func pageCount(p []byte) int { return int(binary.LittleEndian.Uint16(p[1:])) }

// appendEntry appends an entry of a data page. ordinal stands for its segment.
func appendEntry(b []byte, e *Entry, ordinal uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.Key)))
	b = append(b, e.Key...)
	b = binary.AppendUvarint(b, e.Seq)
	b = binary.AppendUvarint(b, ordinal)
	b = binary.AppendUvarint(b, uint64(e.Offset))
	size := uint64(e.Len) << 1
	if e.Expires != 0 {
		size |= 1
	}
	b = binary.AppendUvarint(b, size)
	if e.Expires != 0 {
		b = binary.AppendVarint(b, e.Expires)
	}
	return b
}

// parseEntry fills in an entry, but for its key and its segment, from the beginning of a
// page's bytes or text. It returns the key, which lies in b, the segment's ordinal, and
// what follows. Pages are checked before: what does not parse is a fault of the program
// that wrote it, and is still no reason to read beyond the page.
func parseEntry[T string | []byte](b T, e *Entry) (key T, ordinal uint64, rest T, ok bool) {
	n, k := 0, 1
	if len(b) > 0 && b[0] < 0x80 {
		n = int(b[0])
	} else if len(b) > 1 && b[1] < 0x80 {
		n, k = int(b[0]&0x7f)|int(b[1])<<7, 2
	} else {
		return b, 0, b, false
	}
	if n > len(b)-k {
		return b, 0, b, false
	}
	key, b = b[k:k+n], b[k+n:]
	var offset, size uint64
	if e.Seq, b, ok = number(b); !ok {
		return b, 0, b, false
	}
	if len(b) > 0 && b[0] < 0x80 { // there are few segments
		ordinal, b = uint64(b[0]), b[1:]
	} else if ordinal, b, ok = number(b); !ok {
		return b, 0, b, false
	}
	if offset, b, ok = number(b); !ok {
		return b, 0, b, false
	}
	if len(b) > 1 && b[0] >= 0x80 && b[1] < 0x80 { // and most lines have 64 to 8191 bytes
		size, b = uint64(b[0]&0x7f)|uint64(b[1])<<7, b[2:]
	} else if size, b, ok = number(b); !ok {
		return b, 0, b, false
	}
	e.Offset, e.Len, e.Expires = uint32(offset), uint32(size>>1), 0
	if size&1 == 0 {
		return key, ordinal, b, true
	}
	u, b, ok := number(b)
	e.Expires = int64(u>>1) ^ -int64(u&1)
	return key, ordinal, b, ok
}

// number reads one that is not negative, and returns what follows.
func number[T string | []byte](b T) (n uint64, rest T, ok bool) {
	if len(b) > 4 { // almost all of them are short
		w := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		switch {
		case w&0x80 == 0:
			return uint64(w & 0x7f), b[1:], true
		case w&0x8000 == 0:
			return uint64(w&0x7f | w>>1&0x3f80), b[2:], true
		case w&0x800000 == 0:
			return uint64(w&0x7f | w>>1&0x3f80 | w>>2&0x1fc000), b[3:], true
		case w&0x80000000 == 0:
			return uint64(w&0x7f | w>>1&0x3f80 | w>>2&0x1fc000 | w>>3&0xfe00000), b[4:], true
		}
	}
	return longNumber(b)
}

// longNumber is number for any length, also near the end of b.
func longNumber[T string | []byte](b T) (n uint64, rest T, ok bool) {
	var head [binary.MaxVarintLen64]byte
	n, k := binary.Uvarint(head[:copy(head[:], b)])
	if k <= 0 {
		return 0, b[len(b):], false
	}
	return n, b[k:], true
}

// hash spreads keys over the hash pages. It must be the same in every process;
// the constants are those of wyhash (Wang Yi).
func hash[T string | []byte](key T) uint64 {
	const k0, k1 = 0xa0761d6478bd642f, 0xe7037ed1a0b428db
	h := uint64(len(key)) ^ k0
	for len(key) >= 8 {
		h = fold(h^load64(key), k1)
		key = key[8:]
	}
	var tail uint64
	for i := range len(key) {
		tail |= uint64(key[i]) << (8 * i)
	}
	return fold(fold(h^tail, k1), k0)
}

func load64[T string | []byte](b T) uint64 {
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// A hash page holds slots of eight bytes behind its head: the number of the data
// page plus one (0: the slot is free), the offset of the entry in it, and 16 bits
// of the hash.
const (
	slotsAt      = 4 // behind the head and the overflow mark
	slotBytes    = 8
	slotsPerPage = (pageBytes - slotsAt) / slotBytes
	overflowAt   = 3 // 1 if keys of this page went on to the next one
	// fullSlots is how many slots of a page are used on average.
	fullSlots = slotsPerPage * 3 / 4
)

type slot struct {
	page   uint32
	offset uint16
	print  uint16
}

func slotAt(p []byte, i int) slot {
	v := binary.LittleEndian.Uint64(p[slotsAt+i*slotBytes:])
	return slot{uint32(v), uint16(v >> 32), uint16(v >> 48)}
}

func putSlot(p []byte, i int, s slot) {
	binary.LittleEndian.PutUint64(p[slotsAt+i*slotBytes:], uint64(s.page)|uint64(s.offset)<<32|uint64(s.print)<<48)
}

// place tells where a hash belongs: in which page, from which slot on, with which
// print.
func place(h uint64, pages uint32) (page uint32, first int, print uint16) {
	hi, _ := bits.Mul64(h, uint64(pages))
	return uint32(hi), int(uint32(h>>16) % slotsPerPage), uint16(h)
}
