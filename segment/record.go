package segment

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"unicode/utf8"

	"github.com/klauspost/crc32"
)

// Kind tells what a record does.
type Kind uint8

// The kinds of records.
const (
	Put    Kind = iota + 1 // gives a key a value
	Delete                 // takes a key away: a tombstone
	Sample                 // appends a sample to a series
)

func (k Kind) String() string {
	switch k {
	case Put:
		return "put"
	case Delete:
		return "delete"
	case Sample:
		return "sample"
	}
	return "kind " + strconv.Itoa(int(k))
}

// Record is one change. Name is the key, or for a Sample the series. Times are
// microseconds since 1970; Expires is 0 for a key that never does. Dur and More
// are as in the line: what had been durable when it was written (0 if the line
// does not say), and whether the commit goes on.
type Record struct {
	Seq     uint64
	Dur     uint64
	More    bool
	Kind    Kind
	Name    string
	Value   []byte
	Expires int64
	At      int64
}

// crcSize is the length of what follows the object in a line: space, 8 digits
// and the newline.
const crcSize = 10

// MaxLine is the longest line that is read, whatever the limits were when it was
// written.
const MaxLine = 256 << 20

// AppendBody appends the part of a record's line that does not depend on its
// place in the log: all from the comma before the name on. It reads Kind, Name,
// Value, Expires and At.
func AppendBody(dst []byte, r *Record) []byte {
	return appendBody(dst, r, IsJSON(r.Value))
}

// AppendHead appends the body of a put or a sample whose value is JSON (IsJSON), but
// for the value and the brace behind it: AppendWhole takes those from where they are. A
// long value is then copied once, to the line.
func AppendHead(dst []byte, r *Record) []byte {
	head := *r
	head.Value = nil
	dst = appendBody(dst, &head, true)
	return dst[:len(dst)-1]
}

// appendBody spells the value as JSON if json says that it is.
func appendBody(dst []byte, r *Record, json bool) []byte {
	switch {
	case r.Kind == Sample:
		dst = append(dst, `,"ser":`...)
		dst = appendString(dst, r.Name)
		dst = append(dst, `,"at":`...)
		dst = appendTime(dst, r.At)
		return appendValue(dst, r.Value, json)
	case utf8.ValidString(r.Name):
		dst = append(dst, `,"key":`...)
		dst = appendString(dst, r.Name)
	default:
		dst = append(dst, `,"k64":`...)
		dst = appendBase64(dst, r.Name)
	}
	if r.Kind == Delete {
		return append(dst, `,"del":true}`...)
	}
	if r.Expires != 0 {
		dst = append(dst, `,"exp":`...)
		dst = appendTime(dst, r.Expires)
	}
	return appendValue(dst, r.Value, json)
}

// appendValue appends the value field and the closing brace: "val" for JSON,
// else "txt" for text that is not longer so than in base64, else "b64".
func appendValue(dst, v []byte, json bool) []byte {
	switch {
	case json:
		dst = append(dst, `,"val":`...)
		dst = append(dst, v...)
	case utf8.Valid(v) && escapedLen(v) <= base64.StdEncoding.EncodedLen(len(v)):
		dst = append(dst, `,"txt":`...)
		dst = appendString(dst, v)
	default:
		dst = append(dst, `,"b64":`...)
		dst = appendBase64(dst, v)
	}
	return append(dst, '}')
}

// maxPrefix bounds what AppendLine puts before the body and behind it.
const maxPrefix = len(`{"seq":9007199254740991,"dur":9007199254740991,"more":true`) + crcSize

// MaxLineSize bounds the length of the line that AppendLine makes of a body.
func MaxLineSize(body int) int { return body + maxPrefix }

// AppendLine appends the line of a record with the given place in the log and a
// body from AppendBody. A dur of 0 is left out.
func AppendLine(dst []byte, seq, dur uint64, more bool, body []byte) []byte {
	start := len(dst)
	dst = append(appendPlace(dst, seq, dur, more), body...)
	return appendCRC(dst, start)
}

// AppendWhole is AppendLine for a body from AppendHead and its value.
func AppendWhole(dst []byte, seq, dur uint64, more bool, head, value []byte) []byte {
	start := len(dst)
	dst = append(appendPlace(dst, seq, dur, more), head...)
	dst = append(append(dst, value...), '}')
	return appendCRC(dst, start)
}

// appendPlace begins the object of a line.
func appendPlace(dst []byte, seq, dur uint64, more bool) []byte {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	if dur != 0 {
		dst = append(dst, `,"dur":`...)
		dst = strconv.AppendUint(dst, dur, 10)
	}
	if more {
		dst = append(dst, `,"more":true`...)
	}
	return dst
}

// AppendRecord appends the line of a record.
func AppendRecord(dst []byte, r *Record) []byte {
	return AppendLine(dst, r.Seq, r.Dur, r.More, AppendBody(nil, r))
}

// AppendOp appends the JSON object of a record without checksum or newline: the
// dialect of the command line. A Seq of 0 is left out. JSON with spaces around it
// is spelled as text: whoever reads the object with a JSON parser could not tell
// them from the object's own.
func AppendOp(dst []byte, r *Record) []byte {
	dst = append(dst, '{')
	start := len(dst)
	if r.Seq != 0 {
		dst = append(dst, `,"seq":`...)
		dst = strconv.AppendUint(dst, r.Seq, 10)
	}
	if r.More {
		dst = append(dst, `,"more":true`...)
	}
	v := r.Value
	dst = appendBody(dst, r, IsJSON(v) && v[0] != ' ' && v[len(v)-1] != ' ')
	return append(dst[:start], dst[start+1:]...) // without the first comma
}

// appendCRC ends the line whose object begins at start.
func appendCRC(dst []byte, start int) []byte {
	crc := checksum(dst[start:])
	dst = append(dst, ' ')
	dst = appendHex(dst, crc)
	return append(dst, '\n')
}

func appendHex(dst []byte, crc uint32) []byte {
	return binary.BigEndian.AppendUint64(dst, hexWord(crc))
}

// hexWord is a checksum in 8 hex digits, the first of them in the highest byte:
// each half of a byte is moved into a byte of its own, and all eight become digits
// at once.
func hexWord(crc uint32) uint64 {
	w := uint64(crc)
	w = (w<<16 | w) & 0x0000FFFF0000FFFF
	w = (w<<8 | w) & 0x00FF00FF00FF00FF
	w = (w<<4 | w) & 0x0F0F0F0F0F0F0F0F
	letters := (w + 0x0606060606060606) >> 4 & 0x0101010101010101 // 1 for 10 and above
	return w + '0'*0x0101010101010101 + letters*('a'-'9'-1)
}

// Checksum continues a CRC32 over more bytes of a segment; it begins with 0.
func Checksum(crc uint32, p []byte) uint32 { return crc32.Update(crc, crc32.IEEETable, p) }

// tails holds, for each byte at the end of four, at the one before it and so on,
// what it adds to the CRC.
var tails = func() (t [4][256]uint32) {
	t[0] = *crc32.IEEETable
	for k := 1; k < len(t); k++ {
		for i, c := range t[k-1] {
			t[k][i] = c>>8 ^ t[0][byte(c)]
		}
	}
	return t
}()

// checksum is crc32.ChecksumIEEE, faster for a line: that one takes the bytes behind
// the last multiple of 16, half of its time, one by one.
func checksum(p []byte) uint32 {
	n := len(p) &^ 15
	crc := ^crc32.Update(0, crc32.IEEETable, p[:n])
	for p = p[n:]; len(p) >= 4; p = p[4:] {
		crc ^= binary.LittleEndian.Uint32(p)
		crc = tails[3][byte(crc)] ^ tails[2][byte(crc>>8)] ^ tails[1][byte(crc>>16)] ^ tails[0][crc>>24]
	}
	for _, c := range p {
		crc = crc>>8 ^ tails[0][byte(crc)^c]
	}
	return ^crc
}

// checkLine applies rules 1 to 3 to a line without its newline and returns its
// object.
func checkLine(line []byte) (object []byte, err error) {
	n := len(line) - (crcSize - 1)
	if n < 2 {
		return nil, errShort
	}
	object = line[:n]
	if end := line[n:]; end[0] != ' ' || binary.BigEndian.Uint64(end[1:]) != hexWord(checksum(object)) {
		return nil, badChecksum(end)
	}
	if hasControl(object) {
		return nil, errControl
	}
	if object[0] != '{' || object[n-1] != '}' {
		return nil, errObject
	}
	return object, nil
}

// badChecksum says what is wrong with the end of a line.
func badChecksum(end []byte) error {
	if end[0] != ' ' {
		return errSpacing
	}
	for _, c := range end[1:] {
		if hexValue(c) < 0 {
			return errHex
		}
	}
	return errChecksum
}

// hasControl tells whether b holds a byte below 0x20, eight bytes at a time: a
// byte x below 0x20 is one where x-0x20 borrows and x itself has no high bit. A
// borrow can reach a neighbour only if there was such a byte, so the answer for
// the whole word is exact.
func hasControl(b []byte) bool {
	if len(b) < 8 {
		for _, c := range b {
			if c < 0x20 {
				return true
			}
		}
		return false
	}
	found := below(binary.LittleEndian.Uint64(b[len(b)-8:])) // it may overlap with the one before
	for ; len(b) > 32; b = b[32:] {
		w, x := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		y, z := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
		found |= below(w) | below(x) | below(y) | below(z)
	}
	for ; len(b) > 8; b = b[8:] {
		found |= below(binary.LittleEndian.Uint64(b))
	}
	return found&highBits != 0
}

// below marks the lowest byte of a word that is below 0x20, and maybe some above it.
func below(w uint64) uint64 { return (w - 0x20*eachByte) &^ w }
