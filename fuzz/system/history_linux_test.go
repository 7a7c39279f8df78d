package system

import (
	"encoding/base64"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// op is one line of load's input, spelled as export spells it.
type op struct {
	name        string
	sample, del bool
	line        string
}

// commit is the ops that become true together.
type commit struct {
	ops  []op
	upTo int    // how many ops there are up to its end, all commits together
	sum  uint64 // of the state after it
}

// input is what load reads for the commit.
func (c *commit) input() string {
	var b strings.Builder
	for i, o := range c.ops {
		if i < len(c.ops)-1 {
			b.WriteString(`{"more":true,` + o.line[1:] + "\n")
		} else {
			b.WriteString(o.line + "\n")
		}
	}
	return b.String()
}

// state is what a store holds, reduced to a sum that two states share only if
// they are the same.
type state struct {
	keys    map[string]string // the op that gave the key its value
	samples map[string]int    // how many
	sum     uint64
}

var hashSeed = maphash.MakeSeed()

func hash(text string) uint64 { return maphash.String(hashSeed, text) }

func newState() *state { return &state{keys: map[string]string{}, samples: map[string]int{}} }

func (s *state) apply(o op) {
	switch old, there := s.keys[o.name]; {
	case o.sample:
		s.samples[o.name]++
		s.sum += hash(fmt.Sprintf("sample %d: %s", s.samples[o.name], o.line))
	case o.del:
		delete(s.keys, o.name)
		if there {
			s.sum -= hash(old)
		}
	default:
		s.keys[o.name] = o.line
		s.sum += hash(o.line)
		if there {
			s.sum -= hash(old)
		}
	}
}

// history is what was submitted to a store that nobody else writes to.
type history struct {
	rnd     *rand.Rand
	commits []commit
	state   *state // after all of them
	known   int    // so many ops are known to be there and must stay
	lastSeq uint64 // the greatest sequence number ever acknowledged
	live    bool   // few keys are written twice: nothing to compact
	fat     bool   // values are large: a disk is soon full
	made    int    // ops ever made, so that no two are alike
}

func newHistory(rnd *rand.Rand) *history { return &history{rnd: rnd, state: newState()} }

// next makes one more commit: a single op mostly, sometimes several, now and then
// one that takes many pages.
func (h *history) next() *commit {
	n := 1
	if h.rnd.IntN(4) == 0 {
		n = 2 + h.rnd.IntN(5)
	}
	size := h.rnd.IntN(200)
	switch {
	case h.fat:
		size = h.rnd.IntN(24 << 10)
	case h.rnd.IntN(16) == 0:
		size = 4<<10 + h.rnd.IntN(40<<10)
	}
	return h.add(n, size)
}

// add makes a commit of n ops, the first with a value of size bytes.
func (h *history) add(n, size int) *commit {
	var ops []op
	for range n {
		ops = append(ops, h.makeOp(size))
		size = h.rnd.IntN(100)
	}
	return h.record(ops...)
}

// record adds a commit of these ops.
func (h *history) record(ops ...op) *commit {
	for _, o := range ops {
		h.state.apply(o)
	}
	h.commits = append(h.commits, commit{ops: ops, upTo: h.ops() + len(ops), sum: h.state.sum})
	return &h.commits[len(h.commits)-1]
}

// ops is how many ops were submitted.
func (h *history) ops() int {
	if len(h.commits) == 0 {
		return 0
	}
	return h.commits[len(h.commits)-1].upTo
}

func (h *history) makeOp(size int) op {
	h.made++
	key := fmt.Sprintf("key-%d", h.rnd.IntN(60))
	if h.live {
		key = fmt.Sprintf("key-%d", h.made)
	}
	text := strings.Repeat("0123456789abcdef", size/16+1)[:size]
	switch h.rnd.IntN(10) {
	case 0:
		return op{name: key, del: true, line: fmt.Sprintf(`{"key":%q,"del":true}`, key)}
	case 1, 2:
		name := fmt.Sprintf("series-%d", h.rnd.IntN(3))
		return op{name: name, sample: true, line: fmt.Sprintf(`{"ser":%q,"val":{"n":%d,"x":%q}}`, name, h.made, text)}
	case 3:
		value := append([]byte{0xff, byte(h.made), byte(h.made >> 8), byte(h.made >> 16)}, text...)
		return op{name: key, line: fmt.Sprintf(`{"key":%q,"b64":%q}`, key, base64.StdEncoding.EncodeToString(value))}
	case 4:
		return op{name: key, line: fmt.Sprintf(`{"key":%q,"txt":"line %d\n%s"}`, key, h.made, text)}
	default:
		return op{name: key, line: fmt.Sprintf(`{"key":%q,"val":{"n":%d,"x":%q}}`, key, h.made, text)}
	}
}

// forget drops all commits but the first n: they are not in the store, and never
// will be.
func (h *history) forget(n int) {
	if n == len(h.commits) {
		return
	}
	h.commits = h.commits[:n]
	h.state = newState()
	for _, c := range h.commits {
		for _, o := range c.ops {
			h.state.apply(o)
		}
	}
}

// clone returns a history that goes on from here by itself, with random numbers of
// its own.
func (h *history) clone(rnd *rand.Rand) *history {
	c := *h
	c.rnd, c.commits = rnd, slices.Clone(h.commits)
	c.state = &state{keys: maps.Clone(h.state.keys), samples: maps.Clone(h.state.samples), sum: h.state.sum}
	return &c
}

// check holds the store in dir against the history: it verifies, and holds the
// state after a prefix of the commits with everything that is known to be there.
// What came after that prefix is forgotten, what is in it must stay.
func (h *history) check(t testing.TB, dir string) {
	t.Helper()
	there := newState()
	if _, err := os.Stat(filepath.Join(dir, "MANIFEST")); err == nil { // else the store was not even begun
		require.Contains(t, must(t, "verify", dir), "no damage")
		there = read(t, dir)
	}
	for n := len(h.commits); n >= 0; n-- {
		upTo, sum := 0, uint64(0)
		if n > 0 {
			upTo, sum = h.commits[n-1].upTo, h.commits[n-1].sum
		}
		if sum == there.sum {
			require.GreaterOrEqual(t, upTo, h.known, "acknowledged ops are lost: the store holds the first %d of %d, and %d were acknowledged", upTo, h.ops(), h.known)
			h.forget(n)
			h.known = upTo
			return
		}
	}
	h.explain(t, there)
}

// complete is check for a store from which nothing may be missing, acknowledged
// or not.
func (h *history) complete(t testing.TB, dir string) {
	t.Helper()
	h.known = h.ops()
	h.check(t, dir)
}

// explain says how the store differs from what was acknowledged.
func (h *history) explain(t testing.TB, there *state) {
	t.Helper()
	n := 0
	for n < len(h.commits) && h.commits[n].upTo < h.known {
		n++
	}
	all := h.ops()
	h.forget(n)
	var diff []string
	for key, line := range h.state.keys {
		if there.keys[key] != line {
			diff = append(diff, fmt.Sprintf("%.80s is %.80s", line, there.keys[key]))
		}
	}
	for key, line := range there.keys {
		if h.state.keys[key] == "" {
			diff = append(diff, fmt.Sprintf("%.80s should not be there, or not yet", line))
		}
	}
	require.FailNow(t, "the store holds the state after no prefix of what was submitted",
		"%d ops submitted, %d acknowledged; against the state after those, samples %v are %v, and of the keys\n%s",
		all, h.known, h.state.samples, there.samples, strings.Join(diff[:min(len(diff), 8)], "\n"))
}

// exported begins a line of an export: a key, or a sample with what the store has
// added to it.
var exported = regexp.MustCompile(`^\{(?:"seq":\d+,)?"(key|ser)":"([^"]*)",(?:"at":-?[\d.]+,)?`)

// read returns all that a reader finds in the store.
func read(t testing.TB, dir string) *state {
	t.Helper()
	s := newState()
	for line := range strings.Lines(must(t, "export", dir)) {
		m := exported.FindStringSubmatch(line)
		require.NotNil(t, m, "%.200q", line)
		value := strings.TrimSuffix(line[len(m[0]):], "\n")
		s.apply(op{name: m[2], sample: m[1] == "ser", line: fmt.Sprintf("{%q:%q,%s", m[1], m[2], value)})
	}
	return s
}
