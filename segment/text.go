package segment

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// escapes holds, for each byte that a JSON string must escape, how: the letter
// behind the backslash, 'u' for \u00xx, 0 for a byte that stands for itself.
var escapes = func() (t [256]byte) {
	for c := range 0x20 {
		t[c] = 'u'
	}
	t['\b'], t['\f'], t['\n'], t['\r'], t['\t'] = 'b', 'f', 'n', 'r', 't'
	t['"'], t['\\'] = '"', '\\'
	return t
}()

// unescapes is the way back: for the letter behind a backslash the byte.
var unescapes = [256]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', '"': '"', '\\': '\\'}

const (
	eachByte = 0x0101010101010101
	highBits = 0x8080808080808080
)

// plain returns how many bytes s begins with that stand for themselves in a JSON
// string. It looks at eight at a time: (x-1)&^x has the high bit of the lowest byte
// that is 0, and (w-0x20)&^w that of the lowest one below 0x20. A borrow sets wrong
// bits only above a right one, and the lowest is all that counts.
func plain(s []byte) int {
	i := 0
	for ; len(s)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(s[i:])
		quote, backslash := w^'"'*eachByte, w^'\\'*eachByte
		found := (quote-eachByte)&^quote | (backslash-eachByte)&^backslash | (w-0x20*eachByte)&^w
		if found &= highBits; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(s) && escapes[s[i]] == 0 {
		i++
	}
	return i
}

// appendString appends s, which must be UTF-8, as a JSON string.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := len(dst)
	dst = append(dst, s...)
	n := plain(dst[start:])
	if n < len(s) {
		dst = appendEscaped(dst[:start+n], []byte(s[n:]))
	}
	return append(dst, '"')
}

func appendEscaped(dst, s []byte) []byte {
	for len(s) > 0 {
		if e := escapes[s[0]]; e == 'u' {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[s[0]>>4], hexDigits[s[0]&15])
		} else {
			dst = append(dst, '\\', e)
		}
		n := 1 + plain(s[1:])
		dst = append(dst, s[1:n]...)
		s = s[n:]
	}
	return dst
}

// escapedLen is the length of s between the quotes of appendString.
func escapedLen(s []byte) int {
	n := len(s)
	for i := plain(s); i < len(s); i += 1 + plain(s[i+1:]) {
		if escapes[s[i]] == 'u' {
			n += 5
		} else {
			n++
		}
	}
	return n
}

// plainLen returns how many bytes at the start of b are ASCII and stand for
// themselves in a string, eight bytes at a time. Each term sets a byte's high bit
// if the byte is '"', a backslash, below 0x20, or not ASCII. What a borrow sets
// besides lies above such a byte, so the lowest is exact.
func plainLen(b []byte) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^'"'*ones, w^'\\'*ones
		stop := ((quote-ones)&^quote | (slash-ones)&^slash | (w - 0x20*ones) | w) & high
		if stop != 0 {
			return i + bits.TrailingZeros64(stop)/8
		}
	}
	for i < len(b) && escapes[b[i]] == 0 && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// scanString returns the length of the string contents at the start of b, up to
// the closing quote, and whether they hold an escape; -1 if there is no string.
func scanString(b []byte) (n int, escaped bool) {
	for i := plainLen(b); i < len(b); i++ {
		switch escapes[b[i]] {
		case 0:
			continue
		case '"':
			return i, escaped
		case '\\':
			escaped = true
			size := escapeLen(b[i:])
			if size == 0 {
				return -1, false
			}
			i += size - 1
		default:
			return -1, false
		}
	}
	return -1, false
}

// escapeLen is the length of the escape that b begins with: 2, 6 (\u0000 to
// \u001f in lower case), or 0 if it is none of those that appendString writes.
func escapeLen(b []byte) int {
	switch {
	case len(b) >= 2 && unescapes[b[1]] != 0:
		return 2
	case len(b) >= 6 && b[1] == 'u' && b[2] == '0' && b[3] == '0' &&
		(b[4] == '0' || b[4] == '1') && hexValue(b[5]) >= 0:
		return 6
	}
	return 0
}

// appendUnescaped appends the bytes that string contents accepted by scanString
// stand for.
func appendUnescaped(dst, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		if s[i+1] == 'u' {
			dst = append(dst, byte(hexValue(s[i+4])<<4|hexValue(s[i+5])))
			s = s[i+6:]
		} else {
			dst = append(dst, unescapes[s[i+1]])
			s = s[i+2:]
		}
	}
}

// hexValue is the value of a lower-case hex digit, -1 for any other byte.
// Upper case is refused: bit 5 of a digit a-f is its case, so a lenient reader
// would not notice when that bit flips.
func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// base64Std refuses spare bits that are not zero: one spelling.
var base64Std = base64.StdEncoding.Strict()

func appendBase64[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	dst = base64Std.AppendEncode(dst, []byte(s))
	return append(dst, '"')
}

// validBase64 tells whether b is what appendBase64 writes between the quotes.
func validBase64(b []byte) bool {
	if len(b)%4 != 0 || bytes.ContainsAny(b, "\r\n") {
		return false // the decoder would skip line ends
	}
	var chunk [3 * 256]byte
	for len(b) > 0 {
		n := min(len(b), 4*256)
		if n < len(b) && b[n-1] == '=' {
			return false
		}
		if _, err := base64Std.Decode(chunk[:], b[:n]); err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}

// MaxSeq is the greatest sequence number, the greatest integer that every JSON
// reader keeps exactly.
const MaxSeq = 1<<53 - 1

// MaxTime bounds times: a time in microseconds is above -MaxTime and below it.
const MaxTime = 1 << 53

// appendTime appends microseconds as seconds with six decimals.
func appendTime(dst []byte, micros int64) []byte {
	if micros < 0 {
		dst = append(dst, '-')
		micros = -micros
	}
	dst = strconv.AppendInt(dst, micros/1e6, 10)
	frac := micros % 1e6
	dst = append(dst, '.')
	for div := int64(1e5); div > 0; div /= 10 {
		dst = append(dst, '0'+byte(frac/div%10))
	}
	return dst
}

// IsJSON reports whether v is kept under "val": JSON as RFC 8259 has it, in
// valid UTF-8, without a byte below 0x20 and nested at most 128 deep.
func IsJSON(v []byte) bool {
	return len(v) > 0 && validJSON(v) && (isPlainASCII(v) || !hasControl(v) && utf8.Valid(v))
}

// isPlainASCII tells whether b holds neither a byte below 0x20 nor one above 0x7f, eight
// bytes at a time: the one has its high bit behind the subtraction, the other before it.
// No other byte has, unless such a one borrows from it.
func isPlainASCII(b []byte) bool {
	const each = 0x20 * eachByte
	found := uint64(0)
	for ; len(b) >= 32 && found&highBits == 0; b = b[32:] {
		w, x := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		y, z := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
		found = (w - each) | w | (x - each) | x | (y - each) | y | (z - each) | z
	}
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		found |= (w - each) | w
	}
	for _, c := range b {
		found |= uint64(c) | (uint64(c) - 0x20)
	}
	return found&highBits == 0
}
