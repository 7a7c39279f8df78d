package main

import (
	"encoding/json"
	"testing"
)

func TestValuesAreJSONOfTheirSize(t *testing.T) {
	seen := map[string]bool{}
	for _, size := range []int{100, 1 << 10, 64 << 10, 100 << 10} {
		for _, i := range []int{0, 1, 7, 123456, 999_999_999} {
			v := value(i, size)
			if len(v) != size || !json.Valid(v) || seen[string(v)] {
				t.Errorf("value(%d, %d) is %d bytes long: %.200s", i, size, len(v), v)
			}
			seen[string(v)] = true
		}
	}
}
