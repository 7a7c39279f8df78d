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
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	if dur != 0 {
		dst = append(dst, `,"dur":`...)
		dst = strconv.AppendUint(dst, dur, 10)
	}
	if more {
		dst = append(dst, `,"more":true`...)
	}
	dst = append(dst, body...)
	return appendCRC(dst, start)
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
	crc := crc32.ChecksumIEEE(dst[start:])
	dst = append(dst, ' ')
	dst = appendHex(dst, crc)
	return append(dst, '\n')
}

func appendHex(dst []byte, crc uint32) []byte {
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[crc>>shift&15])
	}
	return dst
}

// Checksum continues a CRC32 over more bytes of a segment; it begins with 0.
func Checksum(crc uint32, p []byte) uint32 { return crc32.Update(crc, crc32.IEEETable, p) }

// checkLine applies rules 1 to 3 to a line without its newline and returns its
// object.
func checkLine(line []byte) (object []byte, err error) {
	n := len(line) - (crcSize - 1)
	if n < 2 {
		return nil, errShort
	}
	if line[n] != ' ' {
		return nil, errSpacing
	}
	var crc uint32
	for _, c := range line[n+1:] {
		d := hexValue(c)
		if d < 0 {
			return nil, errHex
		}
		crc = crc<<4 | uint32(d)
	}
	object = line[:n]
	if crc32.ChecksumIEEE(object) != crc {
		return nil, errChecksum
	}
	if hasControl(object) {
		return nil, errControl
	}
	if object[0] != '{' || object[n-1] != '}' {
		return nil, errObject
	}
	return object, nil
}

// hasControl tells whether b holds a byte below 0x20, eight bytes at a time: a
// byte x below 0x20 is one where x-0x20 borrows and x itself has no high bit. A
// borrow can reach a neighbour only if there was such a byte, so the answer for
// the whole word is exact.
func hasControl(b []byte) bool {
	const each = 0x20 * eachByte
	for ; len(b) >= 32; b = b[32:] {
		w, x := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		y, z := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
		if ((w-each)&^w|(x-each)&^x|(y-each)&^y|(z-each)&^z)&highBits != 0 {
			return true
		}
	}
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		if (w-each)&^w&highBits != 0 {
			return true
		}
	}
	for _, c := range b {
		if c < 0x20 {
			return true
		}
	}
	return false
}
