package index

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
)

// model is what an index should know, kept the simple way: every line of every
// segment, and the newest record of each key.
type model struct {
	segments []*modelSegment // in order of their first seq; the last one is being written
	number   uint64          // of the newest segment
	seq      uint64
	entries  map[string]Entry
}

type modelSegment struct {
	number  uint64
	inOrder bool
	size    int64
	lines   []Change
}

func newModel() *model {
	m := &model{entries: map[string]Entry{}}
	m.segments = append(m.segments, m.segment(true))
	return m
}

func (m *model) segment(inOrder bool) *modelSegment {
	m.number++
	return &modelSegment{number: m.number, inOrder: inOrder, size: 90}
}

// add gives a line its place.
func (s *modelSegment) add(c Change) Change {
	c.Pos = Pos{Segment: s.number, Offset: uint32(s.size), Len: c.Len}
	s.size += int64(c.Len)
	s.lines = append(s.lines, c)
	return c
}

func (m *model) open() *modelSegment { return m.segments[len(m.segments)-1] }

// change makes one more record.
func (m *model) change(rng *rand.Rand) Change {
	m.seq++
	c := Change{Seq: m.seq, Name: nameOf(rng.IntN(60)), Pos: Pos{Len: uint32(50 + rng.IntN(9000))}}
	switch rng.IntN(6) {
	case 0:
		c.Op = Delete
	case 1, 2:
		c.Op, c.Name, c.At = Sample, fmt.Sprintf("s%d", rng.IntN(8)), rng.Int64N(2000)-1000
	default:
		c.Op = Put
		if rng.IntN(3) == 0 {
			c.Expires = 1 + rng.Int64N(1000)
		}
	}
	c = m.open().add(c)
	m.apply(c)
	return c
}

// nameOf makes a key; some fit into no table.
func nameOf(i int) string {
	if i%10 == 3 {
		return fmt.Sprintf("k%02d%01200d", i, 0)
	}
	return fmt.Sprintf("k%02d", i)
}

func (m *model) apply(c Change) {
	switch c.Op {
	case Put:
		m.entries[c.Name] = Entry{Key: c.Name, Seq: c.Seq, Expires: c.Expires, Pos: c.Pos}
	case Delete:
		delete(m.entries, c.Name)
	}
}

func (m *model) clone() *model {
	c := *m
	c.entries = maps.Clone(m.entries)
	c.segments = nil
	for _, s := range m.segments {
		copied := *s
		copied.lines = slices.Clone(s.lines)
		c.segments = append(c.segments, &copied)
	}
	return &c
}

// compact rewrites a run of sealed segments, in the model and in the index, as the
// store does, in one of its two ways: meanwhile there may be writes, and checkpoints.
func (m *model) compact(t *testing.T, rng *rand.Rand, x *Index, meanwhile func()) {
	if len(m.segments) < 3 {
		return
	}
	from := rng.IntN(len(m.segments) - 2)
	to := from + 1 + rng.IntN(len(m.segments)-1-from)
	inputs := slices.Clone(m.segments[from:to])
	oldest := from == 0
	keys, samples := m.segment(false), m.segment(true)
	var moves *Moves
	if rng.IntN(4) > 0 {
		moves = x.NewMoves(rng.IntN(200))
	}
	m.checkLive(t, rng, x, inputs)
	var numbers []uint64
	var expired, kept []Change
	for _, s := range inputs {
		numbers = append(numbers, s.number)
		for _, c := range s.lines {
			alive := m.entries[c.Name].Seq == c.Seq
			switch {
			case c.Op == Sample:
				samples.add(c)
			case c.Op == Delete && !oldest:
				kept = append(kept, c)
			case c.Op == Put && alive && oldest && c.Expires != 0 && c.Expires < 300:
				expired = append(expired, c)
			case c.Op == Put && alive:
				kept = append(kept, c)
			}
		}
	}
	slices.SortFunc(kept, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Seq, b.Seq)) })
	for _, c := range kept {
		keys.add(c)
	}
	meanwhile()
	if moves == nil {
		x.Move(keys.lines)
		meanwhile()
	} else {
		m.move(t, rng, x, moves, keys, meanwhile)
	}
	x.Drop(expired)
	var outputs []*Stretch
	var made []*modelSegment
	if len(samples.lines) > 0 {
		s := x.NewStretch(samples.number)
		for i := range samples.lines {
			c := &samples.lines[i]
			s.Add([]byte(c.Name), c.Seq, c.At, c.Offset, c.Len)
		}
		s.Done()
		outputs = append(outputs, s)
		made = append(made, samples)
	}
	x.Replace(numbers, outputs)

	for _, c := range keys.lines {
		if e := m.entries[c.Name]; c.Op == Put && e.Seq == c.Seq {
			e.Pos = c.Pos
			m.entries[c.Name] = e
		}
	}
	for _, c := range expired {
		if m.entries[c.Name].Seq == c.Seq {
			delete(m.entries, c.Name)
		}
	}
	if len(keys.lines) > 0 {
		made = append(made, keys)
	}
	m.segments = slices.Replace(m.segments, from, to, made...)
}

// checkLive asks for each line of some segments.
func (m *model) checkLive(t *testing.T, rng *rand.Rand, x *Index, inputs []*modelSegment) {
	sizes := map[uint64]int64{}
	for _, s := range inputs {
		sizes[s.number] = s.size
	}
	live, err := x.Live(sizes, rng.IntN(2) == 0)
	require.NoError(t, err)
	for _, s := range m.segments {
		for _, c := range s.lines {
			_, asked := sizes[s.number]
			if c.Op == Put {
				require.Equal(t, asked && m.entries[c.Name].Seq == c.Seq, live.Has(s.number, int64(c.Offset)), "%d", c.Seq)
			}
		}
	}
}

// move moves the keys as a level, to one output or two.
func (m *model) move(t *testing.T, rng *rand.Rand, x *Index, moves *Moves, keys *modelSegment, meanwhile func()) {
	to := moves.Output(keys.number)
	for i, c := range keys.lines {
		if rng.IntN(20) == 0 {
			meanwhile()
		}
		if i%movesSlice == movesSlice/2 {
			to.flush()
		}
		name := []byte(c.Name)
		to.Add(name, c.Op == Delete, Entry{Seq: c.Seq, Expires: c.Expires, Pos: Pos{Offset: c.Offset, Len: c.Len}})
		clear(name)
	}
	to.Done()
	if rng.IntN(3) == 0 {
		m.checkpoint(t, rng, x, meanwhile)
	}
	meanwhile()
	before := x.Snapshot()
	want := slices.Collect(entries(t, before.Range("", "", false)))
	moves.Adopt([]uint64{keys.number})
	moves.End()
	require.Equal(t, want, slices.Collect(entries(t, before.Range("", "", false))), "a snapshot")
}

// TestIndexAgainstModel does the same things to an index and to the model.
func TestIndexAgainstModel(t *testing.T) {
	rng := seed.Rand(t)
	for range 6 {
		m, x := newModel(), New()
		x.limit = 2000 // units of eight bytes: some tens of changes
		apply := func() {
			var batch []Change
			for range 1 + rng.IntN(5) {
				batch = append(batch, m.change(rng))
			}
			x.Apply(batch)
		}
		type moment struct {
			*Snapshot
			m *model
		}
		var moments []moment
		var last uint64
		var tab *Table
		fresh := uint64(0) // segments from this number on came after the table
		for range 300 {
			switch rng.IntN(32) {
			case 30, 31:
				before := m.number
				if l, made := m.checkpoint(t, rng, x, apply); made != nil {
					last, tab, fresh = l, made, before+1
				}
			case 0:
				m.compact(t, rng, x, apply)
			case 1, 2:
				if len(m.open().lines) > 0 {
					m.segments = append(m.segments, m.segment(true))
				}
			case 3:
				moments = append(moments, moment{x.Snapshot(), m.clone()})
			default:
				apply()
			}
		}
		check(t, rng, m, x)
		for _, past := range moments {
			checkSnapshot(t, rng, past.m, past.Snapshot)
		}

		if tab != nil {
			check(t, rng, m, m.restore(t, rng, tab, last, func(n uint64) bool { return n >= fresh }))
		}

		// The builder, given the same lines in any order, knows the same, and goes on as well.
		x = build(rng, m)
		check(t, rng, m, x)
		for range 30 {
			apply()
		}
		check(t, rng, m, x)
		if t.Failed() {
			return
		}
	}
}

// build gives the lines of a model to a Builder: segments in any order, and
// within those that have no order of numbers, lines in any order.
func build(rng *rand.Rand, m *model) *Index {
	b := NewBuilder()
	for _, i := range rng.Perm(len(m.segments)) {
		s := m.segments[i]
		lines := slices.Clone(s.lines)
		if !s.inOrder {
			rng.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		}
		b.Add(lines, s.inOrder)
	}
	x, err := b.Index()
	if err != nil {
		panic(err)
	}
	return x
}

// checkpoint makes a table of the index, with changes meanwhile. One in three comes
// to nothing.
func (m *model) checkpoint(t *testing.T, rng *rand.Rand, x *Index, meanwhile func()) (last uint64, tab *Table) {
	c := x.Freeze()
	last = c.Last()
	meanwhile()
	file := &memory{}
	if rng.IntN(3) == 0 {
		_, err := c.Write(file, rng.Uint64(), nil, func(int) error { return nil })
		require.NoError(t, err)
		meanwhile()
		return 0, nil
	}
	size, err := c.Write(file, rng.Uint64(), []byte("head"), func(int) error { return nil })
	require.NoError(t, err)
	require.Len(t, file.b, int(size))
	meanwhile()
	tab, err = OpenTable(file.b)
	require.NoError(t, err)
	c.Adopt(tab)
	return last, tab
}

// restore builds an index from a table: it is given all lines of the segments in
// again, and all lines above last.
func (m *model) restore(t *testing.T, rng *rand.Rand, tab *Table, last uint64, again func(uint64) bool) *Index {
	tab, err := OpenTable(tab.data) // what the other one has forgotten is its own
	require.NoError(t, err)
	head, err := Head(tab)
	require.NoError(t, err)
	require.Equal(t, "head", string(head))
	b, err := Restore(tab, last, func(n uint64) bool {
		return !again(n) && slices.ContainsFunc(m.segments, func(s *modelSegment) bool { return s.number == n })
	})
	require.NoError(t, err)
	for _, i := range rng.Perm(len(m.segments)) {
		s := m.segments[i]
		b.Add(slices.DeleteFunc(slices.Clone(s.lines), func(c Change) bool { return c.Seq <= last && !again(s.number) }), s.inOrder)
	}
	x, err := b.Index()
	require.NoError(t, err)
	return x
}

// check holds the whole index against the model.
func check(t *testing.T, rng *rand.Rand, m *model, x *Index) {
	t.Helper()
	require.Equal(t, len(m.entries), x.Len())
	require.Equal(t, m.seq, x.Last())
	for i := range 70 {
		key := nameOf(i)
		e, ok, err := x.Get(key)
		require.NoError(t, err)
		want, has := m.entries[key]
		require.Equal(t, has, ok)
		require.Equal(t, want, e)
	}
	for n := uint64(1); n <= m.number+1; n++ {
		got, want := x.Usage(n), m.usage(n)
		require.GreaterOrEqual(t, got.LatestExpiry, want.LatestExpiry)
		got.LatestExpiry = want.LatestExpiry
		require.Equal(t, want, got, "segment %d", n)
	}
	m.checkFind(t, x)
	checkSnapshot(t, rng, m, x.Snapshot())
}

// usage counts again what an index counts as it goes.
func (m *model) usage(number uint64) (u Usage) {
	for _, e := range m.entries {
		if e.Segment == number {
			u.Keys++
			u.Entries += int64(e.Len)
			if e.Expires != 0 {
				u.Expiring += int64(e.Len)
				u.LatestExpiry = max(u.LatestExpiry, e.Expires)
			}
		}
	}
	for _, s := range m.segments {
		for _, c := range s.lines {
			switch {
			case s.number != number:
			case c.Op == Sample:
				u.Samples += int64(c.Len)
			case c.Op == Delete:
				u.Tombstones += int64(c.Len)
			}
		}
	}
	return u
}

func (m *model) series() []Series {
	sums := map[string]Series{}
	for _, s := range m.segments {
		for _, c := range s.lines {
			if c.Op != Sample {
				continue
			}
			sum, had := sums[c.Name]
			if !had {
				sum = Series{Name: c.Name, FirstSeq: c.Seq, MinAt: c.At, MaxAt: c.At}
			}
			sum.Samples++
			sum.Bytes += uint64(c.Len)
			sum.FirstSeq, sum.LastSeq = min(sum.FirstSeq, c.Seq), max(sum.LastSeq, c.Seq)
			sum.MinAt, sum.MaxAt = min(sum.MinAt, c.At), max(sum.MaxAt, c.At)
			sums[c.Name] = sum
		}
	}
	return slices.SortedFunc(maps.Values(sums), func(a, b Series) int { return strings.Compare(a.Name, b.Name) })
}

// checkFind looks for every number and the one above the last.
func (m *model) checkFind(t *testing.T, x *Index) {
	t.Helper()
	var lines []Change
	for _, s := range m.segments {
		if s.inOrder {
			lines = append(lines, s.lines...)
		}
	}
	slices.SortFunc(lines, func(a, b Change) int { return int(a.Seq) - int(b.Seq) })
	for seq := uint64(0); seq <= m.seq+1; seq++ {
		i, _ := slices.BinarySearchFunc(lines, seq, func(c Change, seq uint64) int { return int(c.Seq) - int(seq) })
		b, ok := x.Find(seq)
		require.Equal(t, i < len(lines), ok, "number %d", seq)
		if ok {
			gap := lines[i].Seq > seq && b.Segment == lines[i].Segment && b.End == int64(lines[i].Offset)
			require.True(t, gap || b.holds(lines[i]), "%+v does not hold %+v", b, lines[i])
		}
	}
}

func (b *Block) holds(c Change) bool {
	return b.Segment == c.Segment && b.Start <= int64(c.Offset) && int64(c.Offset)+int64(c.Len) <= b.End
}

func checkSnapshot(t *testing.T, rng *rand.Rand, m *model, s *Snapshot) {
	t.Helper()
	require.Equal(t, len(m.entries), s.Len())
	require.Equal(t, m.seq, s.Last())
	require.ElementsMatch(t, m.series(), s.Series())
	for range 40 {
		key := fmt.Sprintf("k%02d", rng.IntN(70))
		e, ok, err := s.Get(key)
		require.NoError(t, err)
		require.Equal(t, m.entries[key], e)
		require.Equal(t, e.Key != "", ok)

		bound := func() string {
			return []string{"", "k", "k3", fmt.Sprintf("k%02d", rng.IntN(70)), fmt.Sprintf("k%02d\x00", rng.IntN(70)), "z"}[rng.IntN(6)]
		}
		from, to, reverse, limit := bound(), bound(), rng.IntN(2) == 0, 1+rng.IntN(80)
		require.Equal(t, m.scan(from, to, reverse, limit), take(entries(t, s.Range(from, to, reverse)), limit), "%q %q %v", from, to, reverse)

		first, last := 1+rng.Uint64N(m.seq+1), rng.Uint64N(m.seq+2)
		since, until := rng.Int64N(2400)-1200, rng.Int64N(2400)-1200
		switch rng.IntN(3) {
		case 0:
			first, last, since, until = 1, m.seq, math.MinInt64, math.MaxInt64
		case 1:
			last = m.seq
		}
		m.checkBlocks(t, s, fmt.Sprintf("s%d", rng.IntN(9)), first, last, since, until)
	}
}

func (m *model) scan(from, to string, reverse bool, limit int) (found []Entry) {
	for _, key := range slices.Sorted(maps.Keys(m.entries)) {
		if key >= from && (to == "" || key < to) {
			found = append(found, m.entries[key])
		}
	}
	if reverse {
		slices.Reverse(found)
	}
	return found[:min(limit, len(found))]
}

// entries are what a walk yields that meets no error.
func entries(t testing.TB, all iter.Seq2[Entry, error]) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for e, err := range all {
			require.NoError(t, err)
			if !yield(e) {
				return
			}
		}
	}
}

func take[T any](all iter.Seq[T], limit int) (some []T) {
	for v := range all {
		if some = append(some, v); len(some) == limit {
			break
		}
	}
	return some
}

// checkBlocks makes sure that every sample asked for lies in a block, in order,
// and that every block could hold one.
func (m *model) checkBlocks(t *testing.T, s *Snapshot, series string, first, last uint64, since, until int64) {
	t.Helper()
	blocks := slices.Collect(s.Blocks(series, first, last, since, until, false))
	var samples []Change
	for _, seg := range m.segments {
		for _, c := range seg.lines {
			if c.Op == Sample && c.Name == series && c.Seq >= first && c.Seq <= last && c.At >= since && c.At < until {
				samples = append(samples, c)
			}
		}
	}
	slices.SortFunc(samples, func(a, b Change) int { return int(a.Seq) - int(b.Seq) })
	i := 0
	for _, c := range samples {
		for i < len(blocks) && !blocks[i].holds(c) {
			i++
		}
		require.Less(t, i, len(blocks), "no block, in order, holds %+v", c)
	}
	for i, b := range blocks {
		require.Positive(t, b.Samples)
		require.True(t, b.FirstSeq <= last && b.LastSeq >= first && b.MinAt < until && b.MaxAt >= since, "%+v", b)
		require.LessOrEqual(t, b.End-b.Start, int64(blockBytes+10000))
		require.True(t, i == 0 || blocks[i-1].LastSeq < b.FirstSeq, "%+v", blocks)
		m.checkBlock(t, &b, series)
	}
	backward := slices.Collect(s.Blocks(series, first, last, since, until, true))
	slices.Reverse(backward)
	require.Equal(t, blocks, backward)
	if len(blocks) > 0 {
		require.Equal(t, blocks[:1], take(s.Blocks(series, first, last, since, until, false), 1))
	}
}

// checkBlock counts a block again. The last one of a snapshot may have grown since.
func (m *model) checkBlock(t *testing.T, b *Block, series string) {
	t.Helper()
	again := Block{Segment: b.Segment, Start: b.Start, MinAt: math.MaxInt64, MaxAt: math.MinInt64}
	named := false
	for _, s := range m.segments {
		for _, c := range s.lines {
			if s.number != b.Segment || !b.holds(c) {
				continue
			}
			if again.FirstSeq == 0 {
				again.FirstSeq = c.Seq
			}
			again.LastSeq, again.End = c.Seq, int64(c.Offset)+int64(c.Len)
			if c.Op == Sample {
				again.Samples++
				again.MinAt, again.MaxAt = min(again.MinAt, c.At), max(again.MaxAt, c.At)
				named = named || c.Name == series
			}
		}
	}
	if b.LastSeq <= m.seq {
		// A block reaches to the next one, and numbers and offsets may leave gaps.
		require.LessOrEqual(t, again.LastSeq, b.LastSeq)
		require.LessOrEqual(t, again.End, b.End)
		again.LastSeq, again.End = b.LastSeq, b.End
		require.Equal(t, again, *b)
		require.True(t, named, "no sample of %s in %+v", series, b)
	}
}

// A block that lost its series when a segment went on growing after Builder.Index
// would hide samples.
func TestApplyGoesOnInASegmentOfTheBuilder(t *testing.T) {
	b := NewBuilder()
	b.Add([]Change{{Op: Sample, Name: "old", Seq: 1, Pos: Pos{Segment: 1, Offset: 90, Len: 50}}}, true)
	x, err := b.Index()
	require.NoError(t, err)
	x.Apply([]Change{{Op: Sample, Name: "new", Seq: 2, Pos: Pos{Segment: 1, Offset: 140, Len: 50}}})
	x.Apply([]Change{{Op: Sample, Name: "new", Seq: 3, Pos: Pos{Segment: 2, Offset: 90, Len: 50}}})
	for series, blocks := range map[string]int{"old": 1, "new": 2} {
		require.Len(t, slices.Collect(x.Snapshot().Blocks(series, 1, 3, -1, 1, false)), blocks, series)
	}
}

// What a line that can't be read may have held is unknown: whoever asks for its
// number, or for a range with it, is led to it, whatever the series.
func TestDamageIsFoundByItsNumber(t *testing.T) {
	rng := seed.Rand(t)
	for range 300 {
		m := newModel()
		for range 1 + rng.IntN(60) {
			m.change(rng)
		}
		s := m.segments[0]
		all := slices.Clone(s.lines)
		from, n := rng.IntN(len(all)), 1+rng.IntN(4)
		bad := all[from:min(len(all), from+n)]
		s.lines = slices.Delete(s.lines, from, from+len(bad))
		b := NewBuilder()
		b.Add(s.lines, true)
		b.Damage(s.number, int64(bad[0].Offset), s.size, all[0].Seq, all[len(all)-1].Seq)
		built, err := b.Index()
		require.NoError(t, err)
		x := built.Snapshot()
		for _, c := range bad {
			blocks := slices.Collect(x.Blocks("any", c.Seq, c.Seq, 0, 0, false))
			require.True(t, slices.ContainsFunc(blocks, func(b Block) bool {
				return b.Start <= int64(bad[0].Offset) && int64(bad[0].Offset) < b.End
			}), "%d of %d to %d: %+v", c.Seq, bad[0].Seq, bad[len(bad)-1].Seq, blocks)
		}
		for i := range s.lines {
			if c := &s.lines[i]; c.Op == Sample {
				blocks := slices.Collect(x.Blocks(c.Name, c.Seq, c.Seq, c.At, c.At+1, false))
				require.True(t, slices.ContainsFunc(blocks, func(b Block) bool { return b.holds(*c) }))
			}
		}
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, end := range map[string]string{
		"": "", "a": "b", "ab": "ac", "a\xff": "b", "a\xff\xff": "b", "\xff": "", "\xff\xff": "", "a\x00": "a\x01", "é": "\xc3\xaa",
	} {
		require.Equal(t, end, PrefixEnd(prefix), "%q", prefix)
	}
	rng := seed.Rand(t)
	random := func() string {
		b := make([]byte, rng.IntN(4))
		for i := range b {
			b[i] = "\x00a\xfe\xff"[rng.IntN(4)]
		}
		return string(b)
	}
	for range 20000 {
		key, prefix := random(), random()
		end := PrefixEnd(prefix)
		require.Equal(t, strings.HasPrefix(key, prefix), key >= prefix && (end == "" || key < end), "%q %q", key, prefix)
	}
}

// fill puts n keys and samples of as many series.
func fill(x *Index, n int) {
	for i := range n {
		name, pos := fmt.Sprintf("%08d", i), Pos{Segment: 1, Offset: uint32(2 * i), Len: 1}
		x.Apply([]Change{{Op: Put, Name: name, Seq: uint64(2*i + 1), Pos: pos}, {Op: Sample, Name: name, Seq: uint64(2*i + 2), Pos: pos}})
	}
}

// A snapshot, and the change behind it, cost the same whatever the size.
func TestSnapshotCostsNothing(t *testing.T) {
	cost := func(n int) (bytes uint64) {
		x := New()
		fill(x, n)
		s := x.Snapshot()
		require.Zero(t, testing.AllocsPerRun(10, func() {
			if x.Snapshot() != s {
				t.Error("an unchanged index has one snapshot")
			}
		}))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const runs = 50
		for i := range runs {
			x.Snapshot()
			pos := Pos{Segment: 1, Offset: uint32(2*n + i), Len: 1}
			name := fmt.Sprintf("%08d", i*n/runs)
			x.Apply([]Change{{Op: Put, Name: name, Seq: uint64(2*n + 2*i + 1), Pos: pos}, {Op: Sample, Name: name, Seq: uint64(2*n + 2*i + 2), Pos: pos}})
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / runs
	}
	little, much := cost(1000), cost(100_000)
	require.Less(t, much, 4*little, "for a hundred times as many keys")
}

// Readers never see half a batch, and what they hold does not change. The race
// detector looks on.
func TestReadersBesideAWriter(t *testing.T) {
	const keys, batches = 40, 400
	x := New()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for over := false; !over; {
				select {
				case <-done:
					over = true
				default:
				}
				s := x.Snapshot()
				for range 2 {
					batch, count := uint64(0), 0
					for e := range s.Range("", "", count%2 == 0) {
						if count == 0 {
							batch = e.Seq / 1000
						}
						if count++; e.Seq/1000 != batch {
							t.Errorf("%q of batch %d beside batch %d", e.Key, e.Seq/1000, batch)
						}
					}
					if count != 0 && count != keys || count != s.Len() {
						t.Errorf("%d keys", count)
					}
				}
				samples := 0
				for b := range s.Blocks("s", 1, s.Last(), math.MinInt64, math.MaxInt64, false) {
					samples += b.Samples
				}
				if batch := s.Last() / 1000; samples < int(batch) {
					t.Errorf("%d samples after batch %d", samples, batch)
				}
				x.Get("k01")
				x.Usage(1)
				s.Series()
				x.Find(s.Last())
				x.Len()
			}
		})
	}
	for batch := range uint64(batches) {
		var changes []Change
		for i := range uint64(keys) {
			changes = append(changes, Change{Op: Put, Name: fmt.Sprintf("k%02d", i), Seq: (batch+1)*1000 + i, Pos: Pos{Segment: 1 + batch/100, Offset: uint32(batch*5000 + i*100), Len: 100}})
		}
		changes = append(changes, Change{Op: Sample, Name: "s", Seq: (batch+1)*1000 + keys, Pos: Pos{Segment: 1 + batch/100, Offset: uint32(batch*5000 + 4000), Len: 1000}})
		x.Apply(changes)
		if batch == 250 {
			x.Move(changes[:1])
			x.Drop([]Change{{Name: "absent"}})
			x.Replace([]uint64{1}, []*Stretch{samplesOf(x, 100)})
		}
	}
	close(done)
	wg.Wait()
}

// samplesOf is the output of a compaction of the first batches.
func samplesOf(x *Index, batches uint64) *Stretch {
	s := x.NewStretch(9)
	for batch := range batches {
		s.Add([]byte("s"), (batch+1)*1000+40, 0, uint32(90+batch*1000), 1000)
	}
	s.Done()
	return s
}

func BenchmarkIndex(b *testing.B) {
	const n = 1_000_000
	keys := make([]string, n)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range keys {
		keys[i] = fmt.Sprintf("%016x", rnd.Uint64())
	}
	change := func(i int) []Change {
		return []Change{{Op: Put, Name: keys[i%n], Seq: uint64(i + 1), Pos: Pos{Segment: uint64(i / 100_000), Offset: uint32(i%100_000) * 150, Len: 150}}}
	}
	b.Run("put", func(b *testing.B) {
		x, i := New(), 0
		b.ReportAllocs()
		for b.Loop() {
			x.Apply(change(i))
			i++
		}
	})
	x := New()
	before := heap()
	for i := range n {
		x.Apply(change(i))
	}
	b.Logf("%d bytes a key", (heap()-before)/n)
	get := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := x.Get(keys[rnd.IntN(n)]); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	}
	scan := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			count := 0
			for range x.Snapshot().Range("", "", false) {
				count++
			}
			require.Equal(b, n, count)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
	}
	b.Run("get", get)
	b.Run("scan", scan)
	file := &memory{b: make([]byte, 0, 64<<20)}
	c := x.Freeze()
	_, err := c.Write(file, 1, nil, func(int) error { return nil })
	require.NoError(b, err)
	tab, err := OpenTable(file.b)
	require.NoError(b, err)
	c.Adopt(tab)
	b.Run("get from table", get)
	b.Run("scan of table", scan)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
