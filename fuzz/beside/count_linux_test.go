package beside

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/annalsdb/annals"
)

// Step n of the count is one commit of six records. All that is in the store after it
// follows from n.
const (
	ringKeys = 40 // key r<n mod ringKeys> has the value n
	heldKeys = 5  // of the keys h<n> the last ones are there
	inCommit = 6
)

var padding = strings.Repeat("x", 60)

func value(n uint64) []byte { return fmt.Appendf(nil, "%d %s", n, padding) }

func step(n uint64) *annals.Batch {
	var b annals.Batch
	b.Put("a", value(n))
	b.Put(fmt.Sprint("r", n%ringKeys), value(n))
	b.Put(fmt.Sprint("h", n), value(n))
	b.Delete(fmt.Sprint("h", int64(n)-heldKeys))
	b.Append("count", value(n))
	b.Put("z", value(n))
	return &b
}

func number(v []byte) (uint64, error) {
	digits, rest, _ := strings.Cut(string(v), " ")
	if rest != padding {
		return 0, fmt.Errorf("a torn value: %q", v)
	}
	return strconv.ParseUint(digits, 10, 64)
}

// counted returns the step after which a store is, 0 for an empty one.
func counted(g annals.Getter) (uint64, error) {
	v, err := g.Get("a")
	if errors.Is(err, annals.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return number(v)
}

// state is what can be looked at: a Snapshot.
type state interface {
	annals.Getter
	Scan(annals.Range) iter.Seq2[annals.Entry, error]
	Samples(string, annals.Window) iter.Seq2[annals.Sample, error]
}

// look makes sure that a state is that after one step, and returns it. seen is called
// with the number of each record.
func look(s state, samples int, seen func(seq uint64) error) (n uint64, err error) {
	if n, err = counted(s); err != nil {
		return 0, err
	}
	want := map[string]uint64{}
	if n > 0 {
		want["a"], want["z"] = n, n
	}
	for i := n; i > 0 && i+ringKeys > n; i-- {
		want[fmt.Sprint("r", i%ringKeys)] = i
	}
	for i := n; i > 0 && i+heldKeys > n; i-- {
		want[fmt.Sprint("h", i)] = i
	}
	for e, err := range s.Scan(annals.Range{}) {
		if err != nil {
			return 0, fmt.Errorf("scan: %w", err)
		}
		if err := seen(e.Seq); err != nil {
			return 0, fmt.Errorf("key %q: %w", e.Key, err)
		}
		have, err := number(e.Value)
		if err != nil || have == 0 || want[e.Key] != have {
			return 0, fmt.Errorf("after step %d key %q is %d, not %d (%v)", n, e.Key, have, want[e.Key], err)
		}
		delete(want, e.Key)
	}
	if len(want) > 0 {
		return 0, fmt.Errorf("after step %d these keys are missing: %v", n, want)
	}
	return n, lookAtSamples(s, n, samples, seen)
}

// lookAtSamples makes sure that the last samples, or all if most is 0, are there.
func lookAtSamples(s state, n uint64, most int, seen func(seq uint64) error) error {
	next, found := n, 0
	for sample, err := range s.Samples("count", annals.Window{Reverse: true, Limit: most}) {
		if err != nil {
			return fmt.Errorf("samples: %w", err)
		}
		if err := seen(sample.Seq); err != nil {
			return fmt.Errorf("sample %s: %w", sample.Value, err)
		}
		have, err := number(sample.Value)
		if err != nil || have != next {
			return fmt.Errorf("after step %d there is sample %d in the place of %d (%v)", n, have, next, err)
		}
		next, found = next-1, found+1
	}
	if want := min(n, uint64(most)); found < int(want) || most == 0 && next != 0 {
		return fmt.Errorf("after step %d there are %d samples", n, found)
	}
	return nil
}
