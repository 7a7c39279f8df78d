package annals

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"

	"github.com/annalsdb/annals/segment"
)

// FuzzField holds the walk to a field against encoding/json, which builds all of the
// value: whatever the JSON, both find the same number or none.
func FuzzField(f *testing.F) {
	for _, seed := range [][2]string{
		{"val", "-0.5e3"}, {"val.t", `{"t":1,"t":[2]}`}, {"val.a.1.b", `{"a":[{},{"b":7,"c":"}"}]}`},
		{`val.a\.b`, `{ "a.b" : 1e999 }`}, {"val.t", `{"\u0074":1,"":{"t":3}}`}, {"val.0", `[ [1] ,2]`},
	} {
		f.Add(seed[0], []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, field string, value []byte) {
		path, err := parseField(field)
		if err != nil {
			return
		}
		got, ok := path.number(value)
		want, there := slowNumber(path, value)
		if ok != there || got != want {
			t.Errorf("%q of %q: %v %v, want %v %v", field, value, got, ok, want, there)
		}
	})
}

func slowNumber(path fieldPath, value []byte) (float64, bool) {
	var v any
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	if !segment.IsJSON(value) || decoder.Decode(&v) != nil {
		return 0, false
	}
	for _, name := range path {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) || strconv.Itoa(i) != name {
				return 0, false
			}
			v = in[i]
		default:
			return 0, false
		}
	}
	number, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	x, err := number.Float64()
	if err != nil {
		return 0, false
	}
	return x, true
}
