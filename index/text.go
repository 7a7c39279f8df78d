package index

import (
	"encoding/binary"
	"math/bits"
)

// parseText is parseEntry for the text of a page: it fills in an entry, but for its
// segment, of which it returns the ordinal. The key points into the text.
func parseText(b string, e *Entry) (rest string, ordinal uint64, ok bool) {
	n, k := 0, 1
	if len(b) > 0 && b[0] < 0x80 {
		n = int(b[0])
	} else if len(b) > 1 && b[1] < 0x80 {
		n, k = int(b[0]&0x7f)|int(b[1])<<7, 2
	} else {
		return "", 0, false
	}
	if n > len(b)-k {
		return "", 0, false
	}
	e.Key, b = b[k:k+n], b[k+n:]
	var offset, size uint64
	if e.Seq, b, ok = textNumber(b); !ok {
		return "", 0, false
	}
	if len(b) > 0 && b[0] < 0x80 { // there are few segments
		ordinal, b = uint64(b[0]), b[1:]
	} else if ordinal, b, ok = textNumber(b); !ok {
		return "", 0, false
	}
	if offset, b, ok = textNumber(b); !ok {
		return "", 0, false
	}
	if len(b) > 1 && b[0] >= 0x80 && b[1] < 0x80 { // and most lines have 64 to 8191 bytes
		size, b = uint64(b[0]&0x7f)|uint64(b[1])<<7, b[2:]
	} else if size, b, ok = textNumber(b); !ok {
		return "", 0, false
	}
	e.Offset, e.Len, e.Expires = uint32(offset), uint32(size>>1), 0
	if size&1 == 0 {
		return b, ordinal, true
	}
	u, b, ok := textNumber(b)
	e.Expires = int64(u>>1) ^ -int64(u&1)
	return b, ordinal, ok
}

// textNumber is number for the text of a page.
func textNumber(b string) (n uint64, rest string, ok bool) {
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

func longNumber(b string) (n uint64, rest string, ok bool) {
	var head [binary.MaxVarintLen64]byte
	n, k := binary.Uvarint(head[:copy(head[:], b)])
	if k <= 0 {
		return 0, "", false
	}
	return n, b[k:], true
}

// skipTo returns what is left of a page's entries from a key on.
func skipTo(b []byte, count int, from string) (rest []byte, left int, err error) {
	var raw rawEntry
	for ; count > 0; count-- {
		key, size := head(b)
		if key == nil { // a rare one
			rest, whole := parseEntry(b, &raw)
			if !whole {
				return nil, 0, errEntry
			}
			key, size = raw.key, len(b)-len(rest)
		}
		if string(key) >= from {
			break
		}
		b = b[size:]
	}
	return b, count, nil
}

// head returns the key of the entry at the beginning of b and the entry's size, nil if
// it must be taken apart for that. Of the numbers behind the key the ends are counted,
// eight bytes at a time: it takes a third of the time to read them.
func head(b []byte) (key []byte, size int) {
	if len(b) == 0 {
		return nil, 0
	}
	n := int(b[0])
	if n >= 0x80 || len(b) < 1+n+16 {
		return nil, 0
	}
	low, high := binary.LittleEndian.Uint64(b[1+n:]), binary.LittleEndian.Uint64(b[1+n+8:])
	ends := endsIn(low) | endsIn(high)<<8
	if bits.OnesCount64(ends) < 4 {
		return nil, 0
	}
	ends &= ends - 1
	ends &= ends - 1
	third := bits.TrailingZeros64(ends)
	if b[1+n+third+1]&1 != 0 {
		return nil, 0 // it expires: there is one number more
	}
	ends &= ends - 1
	return b[1 : 1+n], 1 + n + bits.TrailingZeros64(ends) + 1
}

// endsIn returns a bit for each byte of w that is the last one of a number.
func endsIn(w uint64) uint64 {
	return ^w >> 7 & 0x0101010101010101 * 0x0102040810204080 >> 56
}
