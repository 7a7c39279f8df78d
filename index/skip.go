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
		if _, ok := s.fits(b); !ok {
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
	seq               uint64 // the bits of the first number, in the first of two words
}

// fits tells whether the entry at the beginning of b is of this shape, and returns the
// eight bytes behind its key.
func (s *shape) fits(b []byte) (low uint64, ok bool) {
	if len(b) < s.room || s.room == 0 || int(b[0]) != s.key {
		return 0, false
	}
	low = binary.LittleEndian.Uint64(b[1+s.key:])
	return low, low&s.lowMask == s.low && binary.LittleEndian.Uint64(b[1+s.key+8:])&s.highMask == s.high
}

// seqOf takes the first number out of what fits returned. Nothing in that depends on its
// length, so that the processor has nothing to guess wrong.
func (s *shape) seqOf(low uint64) uint64 {
	n := low & s.seq
	n = n&0x007f007f007f007f | n>>1&0x3f803f803f803f80
	n = n&0x00003fff00003fff | n>>2&0x0fffc0000fffc000
	return n&0x0fffffff | n>>4&0x00fffffff0000000
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
	first := bits.TrailingZeros64(ends) + 1
	ends &= ends - 1
	ends &= ends - 1
	expires := 8 * (bits.TrailingZeros64(ends) + 1) // the bit behind the third number
	if first > 8 || b[1+n+expires/8]&1 != 0 {
		return s // it expires: there is one number more
	}
	ends &= ends - 1
	size := bits.TrailingZeros64(ends) + 1
	s = shape{key: n, size: 1 + n + size, room: 1 + n + 16}
	s.seq = ^uint64(highBits) & (1<<(8*first) - 1)
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
