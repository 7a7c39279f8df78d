package segment

import (
	"bytes"
	"unicode/utf8"
)

// View is a record read in place: its name and value point into the line that it
// was decoded from and hold as long as that does.
type View struct {
	Seq     uint64
	Dur     uint64
	More    bool
	Kind    Kind
	Expires int64
	At      int64

	name, value     []byte
	nameAs, valueAs encoding
}

// encoding is how a name or value is spelled.
type encoding uint8

const (
	asIs encoding = iota
	asEscaped
	asBase64
)

// DecodeLine decodes a whole record line, newline included, as a reader does who
// knows where one begins and ends.
func DecodeLine(line []byte) (v View, err error) {
	err = v.Decode(line)
	return v, err
}

// Decode is DecodeLine into a View that is there already.
func (v *View) Decode(line []byte) error {
	*v = View{}
	if len(line) == 0 || line[len(line)-1] != '\n' {
		return errNoNewline
	}
	object, err := checkLine(line[:len(line)-1])
	if err != nil {
		return err
	}
	return v.decodeRecord(object)
}

// DecodeBody decodes what AppendBody made.
func DecodeBody(body []byte) (View, error) {
	var v View
	p := parser{b: body}
	v.decodeBody(&p)
	if p.bad {
		return View{}, errObject
	}
	return v, nil
}

// Name returns the key or series.
func (v *View) Name() string {
	if v.nameAs == asIs {
		return string(v.name)
	}
	return string(appendDecoded(nil, v.name, v.nameAs))
}

// AppendName appends the key or series to dst.
func (v *View) AppendName(dst []byte) []byte { return appendDecoded(dst, v.name, v.nameAs) }

// NameIs tells whether the key or series is name, without allocating.
func (v *View) NameIs(name string) bool {
	if v.nameAs == asIs {
		return string(v.name) == name
	}
	return v.Name() == name
}

// Plain returns the value where it lies in the line, if it is spelled as it is.
func (v *View) Plain() (value []byte, ok bool) {
	return v.value[:len(v.value):len(v.value)], v.valueAs == asIs
}

// AppendValue appends the value's bytes; nothing for a Delete.
func (v *View) AppendValue(dst []byte) []byte {
	if dst == nil && v.valueAs == asIs {
		dst = make([]byte, 0, len(v.value))
	}
	return appendDecoded(dst, v.value, v.valueAs)
}

// Record returns a copy that does not depend on the line.
func (v *View) Record() Record {
	r := Record{Seq: v.Seq, Dur: v.Dur, More: v.More, Kind: v.Kind, Name: v.Name(), Expires: v.Expires, At: v.At}
	if v.Kind != Delete {
		r.Value = v.AppendValue(nil)
	}
	return r
}

func appendDecoded(dst, b []byte, as encoding) []byte {
	switch as {
	case asEscaped:
		return appendUnescaped(dst, b)
	case asBase64:
		dst, err := base64Std.AppendDecode(dst, b)
		if err != nil {
			panic("segment: base64 changed after it was checked")
		}
		return dst
	}
	return append(dst, b...)
}

// decodePut is decodeRecord for the commonest of records: a put of JSON under a key
// of plain ASCII, with no expiry. It gives up on all else, and leaves v as it was.
// In one piece it takes half of the time that the parser does.
func (v *View) decodePut(b []byte) bool {
	const seqField, durField, moreField, keyField, valField = `{"seq":`, `,"dur":`, `,"more":true`, `,"key":"`, `","val":`
	if len(b) < len(seqField) || string(b[:len(seqField)]) != seqField {
		return false
	}
	seq, b := leadingNumber(b[len(seqField):])
	dur := uint64(0)
	if len(b) >= len(durField) && string(b[:len(durField)]) == durField {
		if dur, b = leadingNumber(b[len(durField):]); dur == 0 {
			return false
		}
	}
	more := len(b) >= len(moreField) && string(b[:len(moreField)]) == moreField
	if more {
		b = b[len(moreField):]
	}
	if seq == 0 || len(b) < len(keyField) || string(b[:len(keyField)]) != keyField {
		return false
	}
	b = b[len(keyField):]
	n := plainLen(b)
	if len(b)-n < len(valField)+2 || string(b[n:n+len(valField)]) != valField || b[len(b)-1] != '}' {
		return false
	}
	v.Seq, v.Dur, v.More, v.Kind, v.name, v.value = seq, dur, more, Put, b[:n], b[n+len(valField):len(b)-1]
	return true
}

// leadingNumber takes a number of 1 to 15 digits, which does not begin with 0, from
// the start of b; it returns 0 if there is none.
func leadingNumber(b []byte) (n uint64, rest []byte) {
	i := 0
	for i < len(b) && b[i]-'0' <= 9 {
		n = n*10 + uint64(b[i]-'0')
		i++
	}
	if i == 0 || i > 15 || b[0] == '0' {
		return 0, b
	}
	return n, b[i:]
}

// decodeRecord applies rule 4 to an object that begins like a record.
// It fills in an empty View and leaves one empty if the object is none.
func (v *View) decodeRecord(object []byte) error {
	if v.decodePut(object) {
		return nil
	}
	p := parser{b: object}
	p.expect(`{"seq":`)
	v.Seq = p.seq()
	if p.accept(`,"dur":`) {
		v.Dur = p.number()
	}
	v.More = p.accept(`,"more":true`)
	v.decodeBody(&p)
	if p.bad {
		*v = View{}
		return errObject
	}
	return nil
}

func (v *View) decodeBody(p *parser) {
	switch {
	case p.accept(`,"key":"`):
		v.Kind = Put
		v.name, v.nameAs = p.utf8()
	case p.accept(`,"k64":"`):
		v.Kind = Put
		v.name, v.nameAs = p.base64(), asBase64
	case p.accept(`,"ser":"`):
		v.Kind = Sample
		v.name, v.nameAs = p.utf8()
		p.expect(`,"at":`)
		v.At = p.time()
		v.decodeValue(p)
		return
	default:
		p.bad = true
		return
	}
	if p.accept(`,"del":true`) {
		v.Kind = Delete
		p.end(`}`)
		return
	}
	if p.accept(`,"exp":`) {
		// A time of 0 or before means long ago; 0 itself is our word for never.
		v.Expires = max(p.time(), 1)
	}
	v.decodeValue(p)
}

// decodeValue takes the rest of the object.
func (v *View) decodeValue(p *parser) {
	switch {
	case p.accept(`,"val":`):
		n := len(p.b) - 1
		if n < 1 || p.b[n] != '}' {
			p.bad = true
			return
		}
		v.value, p.b = p.b[:n], nil
	case p.accept(`,"txt":"`):
		v.value, v.valueAs = p.text()
		p.end(`}`)
	case p.accept(`,"b64":"`):
		v.value, v.valueAs = p.base64(), asBase64
		p.end(`}`)
	default:
		p.bad = true
	}
}

// parser takes an object apart from the left. After the first thing that does
// not fit, bad stays true and all else is nothing.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) accept(s string) bool {
	if len(p.b) < len(s) || string(p.b[:len(s)]) != s {
		return false
	}
	p.b = p.b[len(s):]
	return true
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		p.bad = true
	}
}

// end expects s and nothing behind it.
func (p *parser) end(s string) {
	p.expect(s)
	p.bad = p.bad || len(p.b) != 0
}

// digits takes at most limit digits, without a leading zero unless it is alone.
func (p *parser) digits(limit int) uint64 {
	var n uint64
	i := 0
	for i < len(p.b) && i < limit && p.b[i]-'0' <= 9 {
		n = n*10 + uint64(p.b[i]-'0')
		i++
	}
	if i == 0 || p.b[0] == '0' && i > 1 {
		p.bad = true
		return 0
	}
	p.b = p.b[i:]
	return n
}

// number takes an integer of at most 2^53-1.
func (p *parser) number() uint64 {
	n := p.digits(16)
	if n > MaxSeq {
		p.bad = true
	}
	return n
}

// seq takes a number that is not 0.
func (p *parser) seq() uint64 {
	n := p.number()
	p.bad = p.bad || n == 0
	return n
}

// time takes seconds with six decimals and gives microseconds.
func (p *parser) time() int64 {
	negative := p.accept("-")
	seconds := p.digits(10)
	p.expect(".")
	if p.bad || len(p.b) < 6 {
		p.bad = true
		return 0
	}
	var frac uint64
	for _, c := range p.b[:6] {
		if c-'0' > 9 {
			p.bad = true
			return 0
		}
		frac = frac*10 + uint64(c-'0')
	}
	p.b = p.b[6:]
	micros := int64(seconds*1e6 + frac)
	if micros >= MaxTime || negative && micros == 0 {
		p.bad = true
		return 0
	}
	if negative {
		return -micros
	}
	return micros
}

// text takes string contents and the closing quote.
func (p *parser) text() ([]byte, encoding) {
	n, escaped := scanString(p.b)
	if n < 0 {
		p.bad = true
		return nil, asIs
	}
	s := p.b[:n]
	p.b = p.b[n+1:]
	if escaped {
		return s, asEscaped
	}
	return s, asIs
}

// utf8 takes text that is valid UTF-8, as every name is: readers in other
// languages would take two names for one where they replace what is not.
func (p *parser) utf8() ([]byte, encoding) {
	if n := plainLen(p.b); n < len(p.b) && p.b[n] == '"' {
		s := p.b[:n]
		p.b = p.b[n+1:]
		return s, asIs
	}
	s, as := p.text()
	p.bad = p.bad || !utf8.Valid(s)
	return s, as
}

// base64 takes base64 and the closing quote.
func (p *parser) base64() []byte {
	n := bytes.IndexByte(p.b, '"')
	if n < 0 || !validBase64(p.b[:n]) {
		p.bad = true
		return nil
	}
	s := p.b[:n]
	p.b = p.b[n+1:]
	return s
}

// hex takes a closing-quoted run of n lower-case hex digits.
func (p *parser) hex(n int) string {
	if len(p.b) < n+1 || p.b[n] != '"' {
		p.bad = true
		return ""
	}
	for _, c := range p.b[:n] {
		if hexValue(c) < 0 {
			p.bad = true
			return ""
		}
	}
	s := string(p.b[:n])
	p.b = p.b[n+1:]
	return s
}
