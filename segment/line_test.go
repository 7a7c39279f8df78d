package segment

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const id = `"store":"` + ours + `"`

// goodObjects are objects of lines that must be accepted, by kind.
var goodObjects = map[LineKind][]string{
	RecordLine: {
		`{"seq":1,"key":"user:1","val":{"name":"Ann","age":41}}`,
		`{"seq":9007199254740991,"key":"k","val":1}`,
		`{"seq":2,"dur":1,"key":"","val":""}`,
		`{"seq":2,"dur":0,"key":"k","val":1}`,
		`{"seq":2,"more":true,"key":"k","val":1}`,
		`{"seq":9,"dur":9007199254740991,"more":true,"key":"k","txt":"two\nlines"}`,
		`{"seq":3,"key":"k","b64":"AAEC/w=="}`,
		`{"seq":3,"key":"k","b64":"AAE="}`,
		`{"seq":3,"key":"k","b64":"+/+/"}`,
		`{"seq":3,"key":"k","b64":""}`,
		`{"seq":3,"key":"k","txt":""}`,
		`{"seq":4,"key":"k","del":true}`,
		`{"seq":4,"k64":"/w==","del":true}`,
		`{"seq":4,"k64":"","val":1}`,
		`{"seq":5,"key":"k","exp":1732290000.000000,"val":1}`,
		`{"seq":5,"key":"k","exp":0.000000,"val":1}`,
		`{"seq":5,"key":"k","exp":-1.000000,"txt":"x"}`,
		`{"seq":6,"ser":"hall","at":-9007199254.740991,"val":{"t":21.5}}`,
		`{"seq":6,"ser":"","at":0.000000,"b64":"AAEC"}`,
		`{"seq":6,"ser":"é\"\\\b\f\n\r\t\u0000\u001f` + "\x7f" + `","at":9007199254.740991,"txt":"\u000a"}`,
		`{"seq":7,"key":"k","val":1,"exp":no JSON at all}`,
		`{"seq":7,"key":"k","val":}}`,
		`{"seq":7,"key":"k","val":` + "\xff" + `}`,
		`{"seq":7,"key":"k","txt":"` + "\xff" + `"}`,
		`{"seq":7,"key":"k","val":{"seq":8,"key":"no","del":true}}`,
		`{"seq":7,"key":"sealed\",\"crc\":","val":1}`,
	},
	MarkLine: {
		`{"dur":8,"now":1732284001.000000}`,
		`{"dur":0,"now":-0.000001}`,
	},
	HeaderLine: {
		`{"annals":1,` + id + `,"segment":2,"first":8193}`,
		`{"annals":1,` + id + `,"segment":5,"first":8193,"from":[4]}`,
		`{"annals":1,` + id + `,"segment":5,"first":8193,"from":[4,9007199254740991]}`,
		`{"annals":1,` + id + `,"segment":9,"from":[1,2],"compacted":true,"order":"key"}`,
		`{"annals":1,` + id + `,"segment":9,"from":[1],"compacted":true,"order":"seq"}`,
	},
	FooterLine: {
		`{"sealed":2,"first":8193,"last":16384,"records":8192,"bytes":1048576,"crc":"9a0b1c2d"}`,
		`{"sealed":2,"first":1,"last":1,"records":1,"bytes":0,"crc":"00000000"}`,
	},
}

// badObjects are objects that no line may hold, by why not.
var badObjects = map[string]string{
	"a name without its field":       `{"seq":1,","at":1.000000,"val":0}`,
	"a value without its field":      `{"seq":1,"key":"k"QUJD"}`,
	"nothing in it":                  `{}`,
	"an array":                       `["seq",1]`,
	"a string":                       `"seq"`,
	"a number":                       `12`,
	"space in front":                 ` {"seq":1,"key":"k","val":1}`,
	"space behind":                   `{"seq":1,"key":"k","val":1} `,
	"unknown kind":                   `{"commit":1}`,
	"the article's kind":             `{"key":"k","val":1}`,
	"field in the wrong case":        `{"SEQ":1,"key":"k","val":1}`,
	"space inside":                   `{"seq": 1,"key":"k","val":1}`,
	"space before a field":           `{"seq":1, "key":"k","val":1}`,
	"seq 0":                          `{"seq":0,"key":"k","val":1}`,
	"seq 2^53":                       `{"seq":9007199254740992,"key":"k","val":1}`,
	"seq 2^64+1":                     `{"seq":18446744073709551617,"key":"k","val":1}`,
	"seq of 17 digits":               `{"seq":10000000000000001,"key":"k","val":1}`,
	"seq with leading zero":          `{"seq":01,"key":"k","val":1}`,
	"seq negative":                   `{"seq":-1,"key":"k","val":1}`,
	"seq with sign":                  `{"seq":+1,"key":"k","val":1}`,
	"seq a fraction":                 `{"seq":1.0,"key":"k","val":1}`,
	"seq with exponent":              `{"seq":1e0,"key":"k","val":1}`,
	"seq in hex":                     `{"seq":0x1,"key":"k","val":1}`,
	"seq a string":                   `{"seq":"1","key":"k","val":1}`,
	"seq missing":                    `{"seq":,"key":"k","val":1}`,
	"seq alone":                      `{"seq":1}`,
	"dur 2^53":                       `{"seq":1,"dur":9007199254740992,"key":"k","val":1}`,
	"dur with leading zero":          `{"seq":1,"dur":00,"key":"k","val":1}`,
	"dur empty":                      `{"seq":1,"dur":,"key":"k","val":1}`,
	"more false":                     `{"seq":1,"more":false,"key":"k","val":1}`,
	"more before dur":                `{"seq":2,"more":true,"dur":1,"key":"k","val":1}`,
	"dur twice":                      `{"seq":2,"dur":1,"dur":1,"key":"k","val":1}`,
	"key before seq":                 `{"key":"k","seq":1,"val":1}`,
	"no name":                        `{"seq":1,"val":1}`,
	"two names":                      `{"seq":1,"key":"k","ser":"s","val":1}`,
	"no value":                       `{"seq":1,"key":"k"}`,
	"value before key":               `{"seq":1,"val":1,"key":"k"}`,
	"unknown field":                  `{"seq":1,"key":"k","xyz":1,"val":1}`,
	"at for a key":                   `{"seq":1,"key":"k","at":1.000000,"val":1}`,
	"exp for a series":               `{"seq":1,"ser":"s","exp":1.000000,"val":1}`,
	"series without at":              `{"seq":1,"ser":"s","val":1}`,
	"series deleted":                 `{"seq":1,"ser":"s","at":1.000000,"del":true}`,
	"delete with exp":                `{"seq":1,"key":"k","exp":1.000000,"del":true}`,
	"del false":                      `{"seq":1,"key":"k","del":false}`,
	"junk behind del":                `{"seq":1,"key":"k","del":true,"val":1}`,
	"junk behind txt":                `{"seq":1,"key":"k","txt":"x","val":1}`,
	"junk behind b64":                `{"seq":1,"key":"k","b64":"AAEC"}}`,
	"val empty":                      `{"seq":1,"key":"k","val":}`,
	"txt not a string":               `{"seq":1,"key":"k","txt":1}`,
	"txt without end":                `{"seq":1,"key":"k","txt":"x}`,
	"txt that ends in a backslash":   `{"seq":1,"key":"k","txt":"x\"}`,
	"key not a string":               `{"seq":1,"key":1,"val":1}`,
	"key without end":                `{"seq":1,"key":"k}`,
	"key in invalid UTF-8":           `{"seq":1,"key":"` + "\xff" + `","val":1}`,
	"key with a surrogate":           `{"seq":1,"key":"` + "\xed\xa0\x80" + `","val":1}`,
	"key in overlong UTF-8":          `{"seq":1,"key":"` + "\xc0\x80" + `","val":1}`,
	"series in invalid UTF-8":        `{"seq":1,"ser":"` + "é\xc3" + `","at":1.000000,"val":1}`,
	"needless escape of a slash":     `{"seq":1,"key":"\/","val":1}`,
	"needless escape of a letter":    `{"seq":1,"key":"\u0061","val":1}`,
	"needless escape of é":           `{"seq":1,"key":"\u00e9","val":1}`,
	"escape in upper-case hex":       `{"seq":1,"key":"\u001F","val":1}`,
	"escape cut short":               `{"seq":1,"key":"\u001","val":1}`,
	"escape of DEL":                  `{"seq":1,"key":"\u007f","val":1}`,
	"unknown escape":                 `{"seq":1,"key":"\a","val":1}`,
	"k64 with a bad letter":          `{"seq":1,"k64":"/w=-","val":1}`,
	"b64 without padding":            `{"seq":1,"key":"k","b64":"AAEC/w"}`,
	"b64 with one = too few":         `{"seq":1,"key":"k","b64":"AAEC/w="}`,
	"b64 with one = too many":        `{"seq":1,"key":"k","b64":"AAE=="}`,
	"b64 with = inside":              `{"seq":1,"key":"k","b64":"AA==AAEC"}`,
	"b64 of = only":                  `{"seq":1,"key":"k","b64":"===="}`,
	"b64 with spare bits, one byte":  `{"seq":1,"key":"k","b64":"AB=="}`,
	"b64 with spare bits, two bytes": `{"seq":1,"key":"k","b64":"AAF="}`,
	"b64 of the URL alphabet":        `{"seq":1,"key":"k","b64":"-_-_"}`,
	"b64 with a line end, escaped":   `{"seq":1,"key":"k","b64":"AA\nEC"}`,
	"b64 with a space":               `{"seq":1,"key":"k","b64":"AAE "}`,
	"b64 with = at 1024 letters":     `{"seq":1,"key":"k","b64":"` + strings.Repeat("A", 1022) + `==AAAA"}`,
	"time without decimals":          `{"seq":1,"key":"k","exp":1,"val":1}`,
	"time with five decimals":        `{"seq":1,"key":"k","exp":1.00000,"val":1}`,
	"time with seven decimals":       `{"seq":1,"key":"k","exp":1.0000000,"val":1}`,
	"time with leading zero":         `{"seq":1,"key":"k","exp":01.000000,"val":1}`,
	"time with plus":                 `{"seq":1,"key":"k","exp":+1.000000,"val":1}`,
	"time minus zero":                `{"seq":1,"key":"k","exp":-0.000000,"val":1}`,
	"time 2^53 µs":                   `{"seq":1,"ser":"s","at":9007199254.740992,"val":1}`,
	"time -2^53 µs":                  `{"seq":1,"ser":"s","at":-9007199254.740992,"val":1}`,
	"time of 11 digits":              `{"seq":1,"ser":"s","at":10000000000.000000,"val":1}`,
	"mark without now":               `{"dur":8}`,
	"mark with more":                 `{"dur":8,"now":1.000000,"x":1}`,
	"mark of 2^53":                   `{"dur":9007199254740992,"now":1.000000}`,
	"mark the other way round":       `{"now":1.000000,"dur":8}`,
	"header of format 0":             `{"annals":0,` + id + `,"segment":2,"first":1}`,
	"header with leading zero":       `{"annals":01,` + id + `,"segment":2,"first":1}`,
	"header without store":           `{"annals":1,"segment":2,"first":1}`,
	"store of 31 digits":             `{"annals":1,"store":"` + ours[1:] + `","segment":2,"first":1}`,
	"store of 33 digits":             `{"annals":1,"store":"0` + ours + `","segment":2,"first":1}`,
	"store in upper case":            `{"annals":1,"store":"` + strings.ToUpper(ours) + `","segment":2,"first":1}`,
	"segment 0":                      `{"annals":1,` + id + `,"segment":0,"first":1}`,
	"first 0":                        `{"annals":1,` + id + `,"segment":2,"first":0}`,
	"no first":                       `{"annals":1,` + id + `,"segment":2}`,
	"from nothing":                   `{"annals":1,` + id + `,"segment":2,"first":1,"from":[]}`,
	"from 0":                         `{"annals":1,` + id + `,"segment":2,"first":1,"from":[0]}`,
	"from with a comma too many":     `{"annals":1,` + id + `,"segment":2,"first":1,"from":[1,]}`,
	"from with a space":              `{"annals":1,` + id + `,"segment":2,"first":1,"from":[1, 2]}`,
	"from and no first":              `{"annals":1,` + id + `,"segment":2,"from":[1]}`,
	"compacted with first":           `{"annals":1,` + id + `,"segment":2,"first":1,"from":[1],"compacted":true,"order":"key"}`,
	"compacted from nothing":         `{"annals":1,` + id + `,"segment":2,"compacted":true,"order":"key"}`,
	"compacted false":                `{"annals":1,` + id + `,"segment":2,"from":[1],"compacted":false,"order":"key"}`,
	"compacted without order":        `{"annals":1,` + id + `,"segment":2,"from":[1],"compacted":true}`,
	"unknown order":                  `{"annals":1,` + id + `,"segment":2,"from":[1],"compacted":true,"order":"time"}`,
	"junk behind the header":         `{"annals":1,` + id + `,"segment":2,"first":1,"x":1}`,
	"MANIFEST's head":                `{"annals":1,` + id + `,"generation":7,"segments":2,"next":5,"seq":9,"history":1,"clock":1.000000}`,
	"footer of segment 0":            `{"sealed":0,"first":1,"last":1,"records":1,"bytes":1,"crc":"00000000"}`,
	"footer with first above last":   `{"sealed":2,"first":2,"last":1,"records":1,"bytes":1,"crc":"00000000"}`,
	"footer without records":         `{"sealed":2,"first":1,"last":1,"records":0,"bytes":1,"crc":"00000000"}`,
	"footer with first 0":            `{"sealed":2,"first":0,"last":1,"records":1,"bytes":1,"crc":"00000000"}`,
	"footer with 7 digits":           `{"sealed":2,"first":1,"last":1,"records":1,"bytes":1,"crc":"0000000"}`,
	"footer with 9 digits":           `{"sealed":2,"first":1,"last":1,"records":1,"bytes":1,"crc":"000000000"}`,
	"footer in upper-case hex":       `{"sealed":2,"first":1,"last":1,"records":1,"bytes":1,"crc":"0000000A"}`,
	"footer with a number as crc":    `{"sealed":2,"first":1,"last":1,"records":1,"bytes":1,"crc":0}`,
	"footer with negative bytes":     `{"sealed":2,"first":1,"last":1,"records":1,"bytes":-1,"crc":"00000000"}`,
	"junk behind the footer":         `{"sealed":2,"first":1,"last":1,"records":1,"bytes":1,"crc":"00000000"}}`,
}

const object = `{"seq":8193,"key":"user:1","val":{"name":"Ann"}}` // its checksum has letters

// badLines are lines whose frame is wrong.
var badLines = map[string]struct {
	line   string
	reason error
}{
	"only a checksum":           {"00000000\n", errShort},
	"nothing but space and sum": {" 00000000\n", errShort},
	"one byte":                  {"x\n", errShort},
	"no checksum":               {object + "\n", errSpacing},
	"upper-case hex":            {object + strings.ToUpper(line(object)[len(object):]), errHex},
	"seven digits":              {strings.Replace(line(object), " ", " ", 1)[:len(line(object))-2] + "\n", errSpacing},
	"nine digits":               {object + " 0" + line(object)[len(object)+1:], errSpacing},
	"padded with a space":       {object + "  " + line(object)[len(object)+2:], errHex},
	"two spaces":                {object + " " + line(object)[len(object):], errChecksum},
	"a tab":                     {object + "\t" + line(object)[len(object)+1:], errSpacing},
	"no space":                  {object + line(object)[len(object)+1:], errSpacing},
	"wrong checksum":            {object + " 00000000\n", errChecksum},
	"0x before the checksum":    {object + " 0x" + line(object)[len(object)+3:], errHex},
	"a space behind":            {strings.TrimSuffix(line(object), "\n") + " \n", errSpacing},
	"CR LF":                     {strings.TrimSuffix(line(object), "\n") + "\r\n", errSpacing},
	"NUL inside":                {line("{\"seq\":1,\"key\":\"\x00\",\"val\":1}"), errControl},
	"control byte inside":       {line("{\"seq\":1,\"key\":\"k\",\"val\":\"\x1f\"}"), errControl},
	"tab inside":                {line("{\"seq\":1,\"key\":\"k\",\"val\":\t1}"), errControl},
	"CR inside":                 {line("{\"seq\":1,\"key\":\"k\",\"val\":1\r}"), errControl},
	"only NULs":                 {strings.Repeat("\x00", 40) + "\n", errSpacing},
	"cut short":                 {strings.TrimSuffix(line(object), "\n"), errNoNewline},
}

func scanOne(t testing.TB, text string) *Line {
	t.Helper()
	s := NewScanner(strings.NewReader(text), 0, int64(len(text)))
	require.True(t, s.Scan())
	l := s.Line()
	require.EqualValues(t, len(text), l.Size)
	require.Equal(t, text, string(l.Bytes))
	return l
}

func TestGoodLinesAreAccepted(t *testing.T) {
	for kind, objects := range goodObjects {
		for _, o := range objects {
			l := scanOne(t, line(o))
			require.NoError(t, l.Reason, "%q", o)
			require.Equal(t, kind, l.Kind, "%q", o)
			_, err := DecodeLine([]byte(line(o)))
			require.Equal(t, kind == RecordLine, err == nil, "%q", o)
		}
	}
}

func TestBadLinesAreRefused(t *testing.T) {
	for why, c := range badLines {
		l := scanOne(t, c.line)
		require.Equal(t, BadLine, l.Kind, why)
		require.ErrorIs(t, l.Reason, c.reason, why)
		_, err := DecodeLine([]byte(c.line))
		require.ErrorIs(t, err, c.reason, why)
	}
	for why, o := range badObjects {
		l := scanOne(t, line(o))
		require.Equal(t, BadLine, l.Kind, why)
		require.ErrorIs(t, l.Reason, errObject, why)
		_, err := DecodeLine([]byte(line(o)))
		require.ErrorIs(t, err, errObject, why)
	}
	_, err := DecodeLine(nil)
	require.ErrorIs(t, err, errNoNewline)
	_, err = DecodeLine([]byte(concat(rec(1), rec(2))))
	require.Error(t, err, "two lines are not one")
}

func TestANewerFormatIsToldFromDamage(t *testing.T) {
	for _, o := range []string{`{"annals":2}`, `{"annals":2,"store":"a new spelling"}`, `{"annals":9007199254740991,` + id + `}`} {
		require.ErrorIs(t, scanOne(t, line(o)).Reason, ErrNewerFormat, o)
	}
	flipped := strings.Replace(header(2, 1), `"annals":1`, `"annals":2`, 1)
	require.ErrorIs(t, scanOne(t, flipped).Reason, errChecksum, "a flipped bit is no newer format")
}

// Every single-bit change of a line makes it invalid, or two lines of it.
func TestNoBitOfALineCanFlipUnnoticed(t *testing.T) {
	for _, objects := range goodObjects {
		for _, o := range objects {
			raw := []byte(line(o))
			for bit := range (len(raw) - 1) * 8 { // without the newline
				raw[bit/8] ^= 1 << (bit % 8)
				_, err := checkLine(raw[:len(raw)-1])
				require.Error(t, err, "%q", raw)
				raw[bit/8] ^= 1 << (bit % 8)
			}
		}
	}
}

func TestWhatIsAcceptedCanBeWrittenAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	accepted := 0
	for range 40_000 {
		raw := []byte(mutated(r))
		l := scanOne(t, string(raw))
		if l.Kind == RecordLine {
			accepted++
			requireRoundTrip(t, l.View.Record())
		}
		require.False(t, errors.Is(l.Reason, ErrNewerFormat) && !strings.HasPrefix(string(raw), `{"annals":`), "%q", raw)
	}
	require.Greater(t, accepted, 1_500)
}

// mutated is a good line with a change or two and the right checksum.
func mutated(r *rand.Rand) string {
	kinds := []LineKind{RecordLine, RecordLine, RecordLine, MarkLine, HeaderLine, FooterLine}
	objects := goodObjects[kinds[r.IntN(len(kinds))]]
	o := []byte(objects[r.IntN(len(objects))])
	const alphabet = `0123456789"\,:{}[].=-+ aAnNwu/é`
	for range 1 + r.IntN(2) {
		i := r.IntN(len(o))
		c := alphabet[r.IntN(len(alphabet))]
		switch r.IntN(4) {
		case 0:
			o = append(o[:i], append([]byte{c}, o[i:]...)...)
		case 1:
			o = append(o[:i], o[i+1:]...)
		case 2: // repeat a piece
			j := i + r.IntN(min(12, len(o)-i))
			o = append(o[:j], append([]byte(string(o[i:j])), o[j:]...)...)
		default:
			o[i] = c
		}
	}
	return line(string(o))
}

func TestReasonsNameFileOffsetAndRange(t *testing.T) {
	e := &CorruptError{Path: "d/1.log", Offset: 7, FirstSeq: 2, LastSeq: 3, Reason: "why"}
	require.Equal(t, `annals: corrupt: "d/1.log" at offset 7, sequence numbers 2 to 3: why`, e.Error())
	require.Equal(t, `annals: corrupt: "d/1.log" at offset 7: why`, (&CorruptError{Path: "d/1.log", Offset: 7, Reason: "why"}).Error())
	require.ErrorIs(t, fmt.Errorf("wrapped: %w", e), ErrCorrupt)
	require.NotErrorIs(t, e, ErrNewerFormat)
}
