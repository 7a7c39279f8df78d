package segment

import (
	"bytes"
	"math/bits"
	"sync"

	"github.com/klauspost/crc32"
)

// Inside calls visit with every whole line that lies inside a bad one: behind a
// line that was torn before its newline, before one, or without a newline of its
// own. Bytes, Size and End of such a line leave the newline out. The time it takes
// is linear in the length of the line, whatever that holds.
//
// A pair of a place where an object may begin and a place where a checksum may end
// is a line if the checksum is right. With c(p) for the CRC32 of all bytes before
// p, and Z for what a zero byte behind does to a CRC, the CRC32 of the bytes from s
// to e is c(e) ^ Z^(e-s) c(s). So a claimed checksum is right iff
// Z^-e (c(e) ^ claimed) equals Z^-s c(s): one look into a table for each end, and
// no byte is summed twice. What the table finds is checked like any other line.
func (l *Line) Inside(visit func(*Line) error) error {
	b := bytes.TrimSuffix(l.Bytes, []byte("\n"))
	var c crcAt
	begins := map[uint32]int{} // Z^-s c(s) of places where an object may begin
	begin, end := nextBegin(b, 0), nextEnd(b, 0)
	for end < len(b) {
		if begin < end {
			if len(begins) == maxBegins {
				clear(begins)
			}
			key := unshift(c.of(b, begin), begin)
			if _, known := begins[key]; !known { // of two, the outer one
				begins[key] = begin
			}
			begin = nextBegin(b, begin+1)
			continue
		}
		at := end
		end = nextEnd(b, at+1)
		claimed, ok := parseCRC(b[at:])
		if !ok {
			continue
		}
		from, found := begins[unshift(c.of(b, at)^claimed, at)]
		if !found {
			continue
		}
		next := at + crcSize - 1
		inner := Line{Offset: l.Offset + int64(from), Bytes: b[from:next:next], Size: int64(next - from)}
		object, err := checkLine(inner.Bytes)
		if err != nil || inner.decode(object) != nil {
			continue
		}
		if err := visit(&inner); err != nil {
			return err
		}
		clear(begins)
		begin, end = nextBegin(b, next), nextEnd(b, next)
	}
	return nil
}

// maxBegins bounds the table of Inside. Where there are more places than that,
// the oldest are forgotten.
const maxBegins = 1 << 20

// nextBegin is the first place from at on where an object of ours may begin, the
// end of b if there is none.
func nextBegin(b []byte, at int) int {
	for {
		i := bytes.Index(b[at:], []byte(`{"`))
		if i < 0 {
			return len(b)
		}
		at += i
		for _, first := range [...]string{`{"seq":`, `{"dur":`, `{"annals":`, `{"sealed":`} {
			if bytes.HasPrefix(b[at:], []byte(first)) {
				return at
			}
		}
		at++
	}
}

// nextEnd is the first place from at on where an object may end, with a space
// behind it; the end of b if there is none.
func nextEnd(b []byte, at int) int {
	i := bytes.Index(b[at:], []byte("} "))
	if i < 0 {
		return len(b)
	}
	return at + i + 1
}

// parseCRC takes the space and the checksum at the start of b.
func parseCRC(b []byte) (crc uint32, ok bool) {
	if len(b) < crcSize-1 {
		return 0, false
	}
	for _, c := range b[1 : crcSize-1] {
		d := hexValue(c)
		if d < 0 {
			return 0, false
		}
		crc = crc<<4 | uint32(d)
	}
	return crc, true
}

// crcAt gives the CRC32 of ever longer beginnings of some bytes.
type crcAt struct {
	crc uint32
	at  int
}

func (c *crcAt) of(b []byte, at int) uint32 {
	c.crc, c.at = Checksum(c.crc, b[c.at:at]), at
	return c.crc
}

// linear is a linear map of CRCs: what it makes of each bit.
type linear [32]uint32

func (m *linear) of(crc uint32) (out uint32) {
	for ; crc != 0; crc &= crc - 1 {
		out ^= m[bits.TrailingZeros32(crc)]
	}
	return out
}

// unshifts are Z^-1, Z^-2, Z^-4 and so on.
var unshifts = sync.OnceValue(func() (all [30]linear) {
	var low [256]byte // what the low byte was, by the high one of its table entry
	for i, entry := range crc32.IEEETable {
		low[entry>>24] = byte(i)
	}
	for bit := range 32 {
		shifted := uint32(1) << bit
		i := low[shifted>>24]
		all[0][bit] = (shifted^crc32.IEEETable[i])<<8 | uint32(i)
	}
	for n := 1; n < len(all); n++ {
		for bit := range 32 {
			all[n][bit] = all[n-1].of(all[n-1][bit])
		}
	}
	return all
})

// unshift is Z^-n of a CRC.
func unshift(crc uint32, n int) uint32 {
	all := unshifts()
	for k := 0; n != 0; k, n = k+1, n>>1 {
		if n&1 != 0 {
			crc = all[k].of(crc)
		}
	}
	return crc
}
