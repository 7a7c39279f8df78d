package index

import (
	"encoding/binary"
	"math/bits"
)

// skipTo returns what is left of a page's entries from a key on.
func skipTo(b []byte, count int, from string) (rest []byte, left int, err error) {
	var e Entry
	for ; count > 0; count-- {
		key, size := head(b)
		if key == nil { // a rare one
			name, _, rest, whole := parseEntry(b, &e)
			if !whole {
				return nil, 0, errEntry
			}
			key, size = name, len(b)-len(rest)
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
