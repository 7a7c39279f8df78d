package segment

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// naiveIsJSON is the rule, by the standard library.
func naiveIsJSON(v []byte) bool {
	for _, c := range v {
		if c < 0x20 {
			return false
		}
	}
	return utf8.Valid(v) && json.Valid(v) && depth(v) <= 128
}

// depth is how deep valid JSON is nested.
func depth(v []byte) (deepest int) {
	level, inString := 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == '[' || c == '{'):
			level++
			deepest = max(deepest, level)
		case !inString && (c == ']' || c == '}'):
			level--
		}
	}
	return deepest
}

// jsonSeeds are values near each edge of the grammar.
var jsonSeeds = []string{
	``, ` `, `0`, `-0`, `-`, `00`, `01`, `1.`, `.1`, `1.5`, `1e5`, `1E+5`, `1e-5`, `1e`, `1e+`, `1.e5`, `0x1`, `+1`, `1_0`, `-01`, `1e5.5`, `--1`, `0e0`, `-0.0E-0`,
	`true`, `tru`, `truex`, `True`, `false`, `null`, `nul`, `nulll`, `NaN`, `Infinity`,
	`""`, `"`, `"a`, `"\`, `"\"`, `"\""`, `"\u"`, `"\u00"`, `"\u00e9"`, `"\u00E9"`, `"\u00g9"`, `"\ud800"`, `"\u00e`, `"\u00e"`, `"\x41"`, `"\/"`, `"\b\f\n\r\t\\"`, `"\a"`, `'a'`,
	"\"\x7f\"", "\"\x1f\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\u2028\"", "\ufeff1", "\"\x00\"", "\"\\u\x10\x11\x12\x13\"", "\"\\u\xb0000\"", `"\uPPPP"`, `"\u@@@@"`, `"\u000G"`, `"\u` + "`000\"",
	`[]`, `[ ]`, `[1]`, `[1,]`, `[,1]`, `[1 2]`, `[`, `]`, `[]]`, `[[]`, `[}`, `[1}`, `[1,2`, ` [ 1 , 2 ] `, `[[],[]]`, `[[],{}]`, `[1,,2]`,
	`{}`, `{ }`, `{"a":1}`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1 "b":2}`, `{"a":1,"a":2}`, `{a:1}`, `{1:1}`, `{"a":1]`, `{]`, ` { "a" : { "b" : [ ] } } `, `{"a" 1}`, `{"a":1,"b"}`, `{"a`, `{"a":1`, `{"a":{}`, `{"a"::1}`,
	`1 2`, `{}{}`, `[] []`, `1,`, `1 `, ` 1`, "1\n", "\t1", "[\r1]", "[1,\v2]", "\u00a01",
	`"0123456789012345678901234567890"`, `"01234567890123\"5678901234567890"`, `"0123456789\\"`, `"01234567890123456\\\""`, `"01234567890\u00e9012345678\"\"\""`, `"01234567890123\x"`,
	`"0123456789012345678901234567890`, `"01234567890123456\"`, "\"012345678901234567\x1f9012345678901234567890\"", `["012345678901","01234567890","0123456789012\n","\n\n\n\n\n\n\n\n\n\""]`, `"` + strings.Repeat(`\n`, 300) + `"`,
	nested(127), nested(128), nested(129), nestedObjects(127), nestedObjects(128), nestedObjects(129), `"` + strings.Repeat("[", 200) + `"`,
	strings.Repeat("[", 128), strings.Repeat(`{"a":[`, 64) + strings.Repeat(`]}`, 64), strings.Repeat(`{"a":[`, 65) + strings.Repeat(`]}`, 65),
	strings.Repeat("[[],", 100) + "1" + strings.Repeat("]", 100),
}

func TestIsJSONAgreesWithTheStandardLibrary(t *testing.T) {
	valid := 0
	for _, v := range jsonSeeds {
		want := naiveIsJSON([]byte(v))
		require.Equal(t, want, IsJSON([]byte(v)), "%q", v)
		if want {
			valid++
		}
	}
	require.Greater(t, valid, 30)
	require.Greater(t, len(jsonSeeds)-valid, 60)
}

// Small changes of valid JSON stay near the edge of the grammar.
func TestIsJSONAgreesOnMutations(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	const bytes = "{}[],:\"\\0123456789.eE+-truefalsn \x1f\xffub/"
	valid := 0
	for range 100_000 {
		v := []byte(jsonSeeds[r.IntN(len(jsonSeeds))])
		for range 1 + r.IntN(2) {
			i := r.IntN(len(v) + 1)
			switch c := bytes[r.IntN(len(bytes))]; {
			case i == len(v) || r.IntN(3) == 0:
				v = append(v[:i], append([]byte{c}, v[i:]...)...)
			case r.IntN(2) == 0:
				v = append(v[:i], v[i+1:]...)
			default:
				v[i] = c
			}
		}
		want := naiveIsJSON(v)
		require.Equal(t, want, IsJSON(v), "%q", v)
		if want {
			valid++
		}
	}
	require.Greater(t, valid, 5_000) // else there was little to compare
}
