package segment

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// anyBytes returns bytes of a kind that is hard in its own way.
func anyBytes(r *rand.Rand, limit int) []byte {
	b := make([]byte, r.IntN(limit+1))
	alphabets := []string{
		"abc", "\x00\x1f\x7f\"\\/", "\n\r\t\b\f\v", "é€😀 ", "\xff\xc0\x80a", "{}[],:\"0123456789.eE+-truefalsn ",
	}
	alphabet := alphabets[r.IntN(len(alphabets))]
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
		if r.IntN(20) == 0 {
			b[i] = byte(r.Uint32())
		}
	}
	return b
}

func anyRecord(r *rand.Rand) Record {
	rec := Record{Seq: 1 + r.Uint64N(MaxSeq), More: r.IntN(2) == 0, Kind: Kind(1 + r.IntN(3)), Name: string(anyBytes(r, 20)), Value: anyBytes(r, 40)}
	if r.IntN(2) == 0 {
		rec.Dur = r.Uint64N(rec.Seq)
	}
	switch rec.Kind {
	case Delete:
		rec.Value = nil
	case Put:
		if r.IntN(2) == 0 {
			rec.Expires = 1 + r.Int64N(MaxTime-1)
		}
	case Sample:
		rec.Name = strings.ToValidUTF8(rec.Name, "?")
		rec.At = r.Int64N(2*MaxTime-1) - MaxTime + 1
	}
	return rec
}

// requireRoundTrip writes a record and reads it again, by each way there is.
func requireRoundTrip(t testing.TB, want Record) {
	t.Helper()
	value := want.Value
	raw := AppendRecord([]byte("before"), &want)[len("before"):]
	require.LessOrEqual(t, len(raw), MaxLineSize(len(AppendBody(nil, &want))))
	v, err := DecodeLine(raw)
	require.NoError(t, err, "%q", raw)
	got := v.Record()
	require.Equal(t, string(want.Value), string(got.Value))
	require.True(t, v.NameIs(want.Name))
	require.False(t, v.NameIs(want.Name+"x"))
	want.Value, got.Value = nil, nil
	require.Equal(t, want, got)

	if whole := want; whole.Kind != Delete && IsJSON(value) {
		whole.Value = value
		head := AppendHead([]byte("before"), &whole)[len("before"):]
		require.Equal(t, string(raw), string(AppendWhole(nil, whole.Seq, whole.Dur, whole.More, head, value)))
	}
	body, err := DecodeBody(AppendBody(nil, &want))
	require.NoError(t, err)
	require.Equal(t, want.Name, body.Name())

	s := NewScanner(bytes.NewReader(raw), 0, int64(len(raw)))
	require.True(t, s.Scan())
	require.Equal(t, RecordLine, s.Line().Kind)
	require.Equal(t, v, s.Line().View)
}

func TestAnyKeyAndAnyValueComeBackByteForByte(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	for range 12_000 {
		requireRoundTrip(t, anyRecord(r))
	}
	for c := range 256 { // each byte alone, as key and as value
		b := []byte{byte(c)}
		requireRoundTrip(t, Record{Seq: 1, Kind: Put, Name: string(b), Value: b})
	}
	requireRoundTrip(t, Record{Seq: 1, Kind: Put})
	requireRoundTrip(t, Record{Seq: MaxSeq, Dur: MaxSeq, More: true, Kind: Sample, Name: "s", At: -MaxTime + 1})
	big := bytes.Repeat([]byte{0xff, 'a', '\n'}, 1<<20)
	requireRoundTrip(t, Record{Seq: 1, Kind: Put, Name: string(big[:64<<10]), Value: big})
}

// Other languages read the object with what they have; so can encoding/json.
func TestAStockParserReadsEveryRecord(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 5_000 {
		want := anyRecord(r)
		raw := AppendRecord(nil, &want)
		var got struct {
			Seq           uint64
			Key, Ser, Txt *string
			K64, B64      []byte
			Val           json.RawMessage
			Del           bool
		}
		require.NoError(t, json.Unmarshal(raw[:len(raw)-crcSize], &got), "%q", raw)
		require.Equal(t, want.Seq, got.Seq)
		require.Equal(t, want.Kind == Delete, got.Del)
		name := string(got.K64)
		for _, p := range []*string{got.Key, got.Ser} {
			if p != nil {
				name = *p
			}
		}
		require.Equal(t, want.Name, name)
		value := string(got.B64)
		switch {
		case got.Txt != nil:
			value = *got.Txt
		case got.Val != nil:
			continue // encoding/json trims the spaces around it
		}
		require.Equal(t, string(want.Value), value)
	}
}

func nested(depth int) string {
	return strings.Repeat("[", depth) + strings.Repeat("]", depth)
}

func nestedObjects(depth int) string {
	return strings.Repeat(`{"a":`, depth-1) + "{}" + strings.Repeat("}", depth-1)
}

func TestHowAValueIsSpelled(t *testing.T) {
	long := strings.Repeat("a", 30)
	for _, c := range []struct{ why, value, field string }{
		{"JSON", `{"name":"Ann","age":41}`, `"val":{"name":"Ann","age":41}`},
		{"JSON with its spaces", ` {"a" : [ 1 , 2 ] } `, `"val": {"a" : [ 1 , 2 ] } `},
		{"duplicate names are JSON", `{"a":1,"a":2}`, `"val":{"a":1,"a":2}`},
		{"a number too great for a float is JSON", `1e999999`, `"val":1e999999`},
		{"half a surrogate pair, escaped, is JSON", `"\ud800"`, `"val":"\ud800"`},
		{"DEL is no control byte of JSON", "\"\x7f\"", "\"val\":\"\x7f\""},
		{"JSON with a line end", "[1,\n2]" + long, `"txt":"[1,\n2]` + long + `"`},
		{"JSON with a tab", "[1,\t2]", `"txt":"[1,\t2]"`},
		{"text", "hello", `"txt":"hello"`},
		{"nothing", "", `"txt":""`},
		{"spaces only", "  ", `"txt":"  "`},
		{"two values are not JSON", `1 2`, `"txt":"1 2"`},
		{"a byte order mark is not JSON", "\ufeff1", "\"txt\":\"\ufeff1\""},
		{"JSON in invalid UTF-8", "\"\xff\"", `"b64":"Iv8i"`},
		{"a surrogate in UTF-8", "\xed\xa0\x80", `"b64":"7aCA"`},
		{"not UTF-8", "\xff\xfe", `"b64":"//4="`},
		{"text as long as in base64", `a"b`, `"txt":"a\"b"`},
		{"text longer than in base64", `a""`, `"b64":"YSIi"`},
		{"control bytes", "\x01\x02", `"b64":"AQI="`},
		{"depth 127", nested(127), `"val":` + nested(127)},
		{"depth 128", nested(128), `"val":` + nested(128)},
		{"depth 129", nested(129), `"txt":"` + nested(129) + `"`},
		{"objects of depth 128", nestedObjects(128), `"val":` + nestedObjects(128)},
	} {
		t.Run(c.why, func(t *testing.T) {
			want := Record{Seq: 7, Kind: Put, Name: "k", Value: []byte(c.value)}
			require.Equal(t, line(`{"seq":7,"key":"k",`+c.field+`}`), string(AppendRecord(nil, &want)))
			requireRoundTrip(t, want)
		})
	}
}

// The rule compares what stands between the quotes.
func TestTextIsChosenUpToTheLengthOfBase64(t *testing.T) {
	for plain := range 40 {
		for quotes := range 40 {
			v := "a" + strings.Repeat("a", plain) + strings.Repeat(`"`, quotes)
			text := 1+plain+2*quotes <= base64.StdEncoding.EncodedLen(len(v))
			require.Equal(t, text, strings.HasPrefix(string(appendValue(nil, []byte(v), IsJSON([]byte(v)))), `,"txt":`), "%q", v)
		}
	}
}

func TestJSONNestedAMillionDeepIsText(t *testing.T) {
	for _, v := range []string{nested(1e6), strings.Repeat("[", 1e6), nestedObjects(1e5)} {
		require.False(t, IsJSON([]byte(v)))
		requireRoundTrip(t, Record{Seq: 1, Kind: Put, Name: "deep", Value: []byte(v)})
	}
	require.Contains(t, string(appendValue(nil, []byte(nested(1e6)), false)), `"txt":"[[`)
}

func TestHowAKeyIsSpelled(t *testing.T) {
	for key, field := range map[string]string{
		"":               `"key":""`,
		"user:1":         `"key":"user:1"`,
		"a\"b\\c/d":      `"key":"a\"b\\c/d"`,
		"\b\f\n\r\t":     `"key":"\b\f\n\r\t"`,
		"\x00\x01\x1f":   `"key":"\u0000\u0001\u001f"`,
		"\x7f<>&\u2028é": "\"key\":\"\x7f<>&\u2028é\"",
		"\ufffd":         "\"key\":\"\ufffd\"",
		"\xff":           `"k64":"/w=="`,
		"a\xc0\x80":      `"k64":"YcCA"`,
	} {
		want := Record{Seq: 1, Kind: Delete, Name: key}
		require.Equal(t, line(`{"seq":1,`+field+`,"del":true}`), string(AppendRecord(nil, &want)))
		requireRoundTrip(t, want)
	}
}

func TestThePlaceOfARecordIsInItsLine(t *testing.T) {
	body := AppendBody(nil, &Record{Kind: Put, Name: "k", Value: []byte("1")})
	for want, got := range map[string][]byte{
		`{"seq":1,"key":"k","val":1}`:                        AppendLine(nil, 1, 0, false, body),
		`{"seq":9,"dur":8,"key":"k","val":1}`:                AppendLine(nil, 9, 8, false, body),
		`{"seq":9,"more":true,"key":"k","val":1}`:            AppendLine(nil, 9, 0, true, body),
		`{"seq":9,"dur":8,"more":true,"key":"k","val":1}`:    AppendLine(nil, 9, 8, true, body),
		`{"seq":9007199254740991,"dur":1,"key":"k","val":1}`: AppendLine(nil, MaxSeq, 1, false, body),
	} {
		require.Equal(t, line(want), string(got))
	}
}

func TestAppendOpIsTheLineWithoutItsPlace(t *testing.T) {
	r := Record{Seq: 5, Dur: 4, More: true, Kind: Put, Name: "k", Value: []byte("1")}
	require.Equal(t, `x{"seq":5,"more":true,"key":"k","val":1}`, string(AppendOp([]byte("x"), &r)))
	r.Seq, r.More = 0, false
	require.Equal(t, `{"key":"k","val":1}`, string(AppendOp(nil, &r)))
	require.Equal(t, `{"key":"k","txt":" 1 "}`, string(AppendOp(nil, &Record{Kind: Put, Name: "k", Value: []byte(" 1 ")})), "a parser would lose the spaces")
	require.Equal(t, `{"key":"k","del":true}`, string(AppendOp(nil, &Record{Kind: Delete, Name: "k"})))
	require.Equal(t, `{"ser":"s","at":-0.000001,"txt":"x"}`, string(AppendOp(nil, &Record{Kind: Sample, Name: "s", At: -1, Value: []byte("x")})))
}

func TestTimesKeepTheirMicroseconds(t *testing.T) {
	for text, micros := range map[string]int64{
		"0.000000": 0, "0.000001": 1, "-0.000001": -1, "0.999999": 999999, "1.000000": 1e6,
		"1732284000.123456": 1732284000123456, "-1732284000.123456": -1732284000123456,
		"9007199254.740991": MaxTime - 1, "-9007199254.740991": -MaxTime + 1,
	} {
		require.Equal(t, text, string(appendTime(nil, micros)))
		p := parser{b: []byte(text)}
		require.Equal(t, micros, p.time())
		require.False(t, p.bad)
		require.Empty(t, p.b)
	}
	for _, bad := range []string{"", "-", "1", "1.", "1.00000", "01.000000", "00.000000", "+1.000000", "1,000000", ".000000", "-.000000",
		"-0.000000", "1e3.000000", "1.00000x", "1.x00000", "9007199254.740992", "-9007199254.740992", "10000000000.000000", "99999999999999999999.000000"} {
		p := parser{b: []byte(bad)}
		p.time()
		require.True(t, p.bad, "%q", bad)
	}
}

// A time that means never in our records may stand in a foreign line: it was
// long ago, and such a key must not live for ever.
func TestAnExpiryOfZeroOrBeforeIsLongAgo(t *testing.T) {
	for _, exp := range []string{"0.000000", "-1.000000"} {
		v, err := DecodeLine([]byte(line(`{"seq":1,"key":"k","exp":` + exp + `,"val":1}`)))
		require.NoError(t, err)
		require.EqualValues(t, 1, v.Expires)
	}
}

func TestKindsHaveNames(t *testing.T) {
	require.Equal(t, []string{"put", "delete", "sample", "kind 9"}, []string{Put.String(), Delete.String(), Sample.String(), Kind(9).String()})
}

// Whole words and rests, at every position.
func TestControlBytesAreFoundWhereverTheyAre(t *testing.T) {
	for n := range 40 {
		for _, fill := range []byte{0x20, 0x7f, 0x80, 0x9f, 0xa0, 0xff} {
			b := bytes.Repeat([]byte{fill}, n)
			require.False(t, hasControl(b), "%d of %#x", n, fill)
			for i := range n {
				for _, c := range []byte{0, 1, '\n', 0x1f} {
					b[i] = c
					require.True(t, hasControl(b), "%#x at %d of %d of %#x", c, i, n, fill)
				}
				b[i] = fill
			}
		}
	}
}

func TestPlainASCIIIsToldWhereverTheRestIs(t *testing.T) {
	for n := range 80 {
		for _, fill := range []byte{0x20, 'a', 0x7f} {
			b := bytes.Repeat([]byte{fill}, n)
			require.True(t, isPlainASCII(b), "%d of %#x", n, fill)
			for i := range n {
				for _, c := range []byte{0, '\n', 0x1f, 0x80, 0x9f, 0xa0, 0xff} {
					b[i] = c
					require.False(t, isPlainASCII(b), "%#x at %d of %d of %#x", c, i, n, fill)
				}
				b[i] = fill
			}
		}
	}
}

func TestAValueIsAppendedToWhatIsThere(t *testing.T) {
	for _, value := range []string{`{"v":1}`, "text", "te\nxt", "\x00\xff"} {
		v, err := DecodeLine(AppendRecord(nil, &Record{Seq: 1, Kind: Put, Name: "k", Value: []byte(value)}))
		require.NoError(t, err)
		require.Equal(t, "before"+value, string(v.AppendValue([]byte("before"))))
	}
}

func TestABadBodyIsRefused(t *testing.T) {
	good := AppendBody(nil, &Record{Kind: Put, Name: "k", Value: []byte("text")})
	for n := range good {
		_, err := DecodeBody(good[:n])
		require.ErrorIs(t, err, errObject, "%q", good[:n])
	}
	for _, bad := range []string{`,"key":"k","val":12`, `,"ser":"s","at":1.5`, `,"ser":"s","at":1.`, `{"seq":1` + string(good), `,"key":"` + "\n" + `","val":1}`, `,"key":"k","txt":"` + "\x00" + `"}`} {
		_, err := DecodeBody(slices.Clip([]byte(bad)))
		require.ErrorIs(t, err, errObject, "%q", bad)
	}
}
