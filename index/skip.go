package index

import (
	"encoding/binary"
	"math/bits"
)

// skipTo returns what is left of a page's entries from a key on. Most have the shape of
// the one before. Where that is so the processor need not wait for one entry's size to
// look at the next one.
func skipTo(b []byte, count int, from string) (rest []byte, left int, err error) {
	var s shape
	var e Entry
	for ; count > 0; count-- {
		if !s.fits(b) {
			s = shapeOf(b)
		}
		key, size := b, s.size
		if s.room > 0 {
			key = b[1 : 1+s.key]
		} else { // a rare one
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

// shape is how long an entry and its key are, and what tells that in the 16 bytes behind
// the key: which of them are the last ones of a number, and that it does not expire.
// Without room it is none.
type shape struct {
	key, size, room   int
	low, high         uint64
	lowMask, highMask uint64
}

func (s *shape) fits(b []byte) bool {
	return len(b) >= s.room && s.room > 0 && int(b[0]) == s.key &&
		binary.LittleEndian.Uint64(b[1+s.key:])&s.lowMask == s.low && binary.LittleEndian.Uint64(b[1+s.key+8:])&s.highMask == s.high
}

// shapeOf returns the shape of the entry at the beginning of b, none if the entry must
// be taken apart for that. Of the numbers behind the key the ends are counted, eight
// bytes at a time: it takes a third of the time to read them.
func shapeOf(b []byte) (s shape) {
	if len(b) == 0 {
		return s
	}
	n := int(b[0])
	if n >= 0x80 || len(b) < 1+n+16 {
		return s
	}
	low, high := binary.LittleEndian.Uint64(b[1+n:]), binary.LittleEndian.Uint64(b[1+n+8:])
	ends := endsIn(low) | endsIn(high)<<8
	if bits.OnesCount64(ends) < 4 {
		return s
	}
	ends &= ends - 1
	ends &= ends - 1
	expires := 8 * (bits.TrailingZeros64(ends) + 1) // the bit behind the third number
	if b[1+n+expires/8]&1 != 0 {
		return s // it expires: there is one number more
	}
	ends &= ends - 1
	size := bits.TrailingZeros64(ends) + 1
	s = shape{key: n, size: 1 + n + size, room: 1 + n + 16}
	s.lowMask = highBits&(1<<(8*size)-1) | 1<<expires // a shift by 64 and more leaves nothing
	s.highMask = highBits & (1<<max(8*size-64, 0) - 1)
	if expires >= 64 {
		s.highMask |= 1 << (expires - 64)
	}
	s.low, s.high = low&s.lowMask, high&s.highMask
	return s
}

const highBits = 0x8080808080808080

// endsIn returns a bit for each byte of w that is the last one of a number.
func endsIn(w uint64) uint64 {
	return ^w >> 7 & 0x0101010101010101 * 0x0102040810204080 >> 56
}
