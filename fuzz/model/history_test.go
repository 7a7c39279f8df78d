package model

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
)

// places is how many keys the concurrent test has: few, so that everybody is in
// everybody's way.
const places = 5

// cells is the state of a store for porcupine: the value of each key, 0 for none. No
// value is ever written twice, so a value stands for its sequence number too, which is
// what IfSeq asks for.
type cells [places]int32

// call is what a client asks for.
type call struct {
	what   string // get, scan, put, cas, tx
	keys   []int
	values []int32 // to write; 0 deletes
	expect int32   // for cas: the value that the key has to have
}

// answer is what came of it.
type answer struct {
	values   []int32 // that were read
	conflict bool    // the condition did not hold
	refused  bool    // an error that says that nothing was written
	unknown  bool    // nobody knows: the store failed or crashed meanwhile
}

// after is the state with the writes of a call.
func (c call) after(s cells) cells {
	for i, v := range c.values {
		s[c.keys[i]] = v
	}
	return s
}

// next returns the states that may follow when a call gets an answer; none if it can't
// get it. A write with an unknown outcome happens at some moment before the crash that
// hid it, or never: that is stricter than an operation without an end, which may happen
// after the crash too.
func next(s cells, c call, a answer) []any {
	holds := c.what != "cas" || s[c.keys[0]] == c.expect
	switch {
	case a.unknown && holds:
		return []any{s, c.after(s)}
	case a.unknown || a.refused:
		return []any{s}
	case a.conflict != !holds:
		return nil
	case a.conflict:
		return []any{s}
	}
	for i, v := range a.values {
		if s[c.keys[i]] != v {
			return nil
		}
	}
	return []any{c.after(s)}
}

// register tells porcupine what a store is. Batches and transactions are about several
// keys, so the map is checked as one.
var register = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{cells{}} },
	Step: func(state, input, output any) []any { return next(state.(cells), input.(call), output.(answer)) },
	Hash: func(state any) (h uint64) {
		for _, v := range state.(cells) {
			h = h*1_000_003 + uint64(v)
		}
		return h
	},
	DescribeOperation: func(input, output any) string { return describe(input.(call), output.(answer)) },
}).ToModel()

func describe(c call, a answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v", c.what, c.keys)
	if c.what == "cas" {
		fmt.Fprintf(&b, " if %d", c.expect)
	}
	if len(c.values) > 0 {
		fmt.Fprintf(&b, " := %v", c.values)
	}
	switch {
	case a.unknown:
		b.WriteString(" ?")
	case a.refused:
		b.WriteString(" refused")
	case a.conflict:
		b.WriteString(" conflict")
	case len(a.values) > 0:
		fmt.Fprintf(&b, " -> %v", a.values)
	}
	return b.String()
}

// overlapping counts the operations that ran at the same time as another one.
func overlapping(history []porcupine.Operation) (n int) {
	for i, a := range history {
		for j, b := range history {
			if i != j && a.Call < b.Return && b.Call < a.Return {
				n++
				break
			}
		}
	}
	return n
}
