package segment

import "errors"

// ErrOther reports a good line that is another than the one that was expected.
var ErrOther = errors.New("another record lies here than the index says")

// PutValue returns the value of a whole line, newline included, that must be the put of
// this number and key. It lies in the line, unless own is true: then it had to be made.
func PutValue(line []byte, seq uint64, key string) (value []byte, own bool, err error) {
	n := len(line) - 1
	if n < 0 || line[n] != '\n' {
		return nil, false, errNoNewline
	}
	object, err := checkLine(line[:n])
	if err != nil {
		return nil, false, err
	}
	if value, ok := valueOf(object, seq, key); ok {
		return value, false, nil
	}
	var v View
	if err := v.decodeRecord(object); err != nil {
		return nil, false, err
	}
	if v.Kind != Put || v.Seq != seq || !v.NameIs(key) {
		return nil, false, ErrOther
	}
	value, plain := v.Plain()
	if !plain {
		value = v.AppendValue(nil)
	}
	return value, !plain, nil
}

// valueOf takes the value out of an object as View.decodePut does. Who knows what must
// be there need not look for where it ends. ok is false for all but this very put.
func valueOf(b []byte, seq uint64, key string) (value []byte, ok bool) {
	const seqField, durField, moreField, keyField, valField = `{"seq":`, `,"dur":`, `,"more":true`, `,"key":"`, `","val":`
	if len(b) < len(seqField) || string(b[:len(seqField)]) != seqField {
		return nil, false
	}
	n, b := leadingNumber(b[len(seqField):])
	if n != seq || n == 0 {
		return nil, false
	}
	if len(b) >= len(durField) && string(b[:len(durField)]) == durField {
		if n, b = leadingNumber(b[len(durField):]); n == 0 {
			return nil, false
		}
	}
	if len(b) >= len(moreField) && string(b[:len(moreField)]) == moreField {
		b = b[len(moreField):]
	}
	at := len(keyField) + len(key)
	if len(b) < at+len(valField)+2 || string(b[:len(keyField)]) != keyField || string(b[at:at+len(valField)]) != valField || b[len(b)-1] != '}' {
		return nil, false
	}
	if name := b[len(keyField):at]; string(name) != key || plainLen(name) < len(name) {
		return nil, false
	}
	value = b[at+len(valField) : len(b)-1]
	return value[:len(value):len(value)], true
}
