package fuzz

import (
	"iter"
	"math/rand/v2"
	"path"

	"github.com/annalsdb/annals/fuzz/faultfs"
)

// fates says of each pending effect what a crash makes of it.
type fates []faultfs.Fate

// seenState is a state that was judged: the same bytes must be judged again if more
// has become visible since.
type seenState struct {
	digest           uint64
	floor, submitted int
}

// crash judges what a crash before op, or at rest, can leave.
func (m *machine) crash(op faultfs.Op) {
	m.look()
	effects := m.fs.Effects()
	p := &planner{machine: m, effects: effects, since: m.last.op}
	if m.last.floor != m.floor || len(effects) < m.last.effects {
		p.since = 0
	}
	p.sort()
	for f := range p.all() {
		m.crashed(op, effects, f)
	}
	if m.depth == 1 && m.rnd.IntN(m.kills) == 0 {
		m.kill(op)
	}
	m.last.op, m.last.floor, m.last.effects = m.fs.Ops(), m.floor, len(effects)
}

// crashed judges one state.
func (m *machine) crashed(op faultfs.Op, effects []faultfs.Effect, f fates) {
	m.sum.made++
	after := m.fs.CrashTo(func(i int) faultfs.Fate { return f[i] })
	key := seenState{after.Digest("LOCK"), m.floor, m.submitted()}
	if m.seen[key] {
		return
	}
	m.seen[key] = true
	m.sum.note(m, effects, f)
	m.judge(after, &story{m: m, op: op, effects: effects, fates: f, parent: m.origin})
}

// planner chooses the crash states of one moment.
type planner struct {
	*machine
	effects []faultfs.Effect
	since   int // states with nothing from this operation on have been made before

	free  []int // the effects that matter: all but those on LOCK's contents
	fresh []int // of these, those since then
	write []int // of these, the pieces of the last write
}

// sort finds out which effects matter. What LOCK holds is no evidence of anything.
func (p *planner) sort() {
	for i, e := range p.effects {
		if path.Base(e.Op.Path) == "LOCK" {
			continue
		}
		p.free = append(p.free, i)
		if e.Op.N < p.since {
			continue
		}
		p.fresh = append(p.fresh, i)
		if e.Op.Kind != faultfs.Write || e.Size {
			continue
		}
		if len(p.write) > 0 && p.effects[p.write[0]].Op.N < e.Op.N {
			p.write = p.write[:0]
		}
		if len(p.write) == 0 || p.effects[p.write[0]].Op.N == e.Op.N {
			p.write = append(p.write, i)
		}
	}
}

// all yields the states. Those of few effects are all subsets; those of more are
// none, all, each prefix, each all-but-one, each only-one, and random subsets. Then
// come writes that are not just there or not. In a recovery there are fewer, or
// there would be no end.
func (p *planner) all() iter.Seq[fates] {
	return func(yield func(fates) bool) {
		if len(p.fresh) == 0 && p.since > 0 {
			return
		}
		random := *crashRandom
		switch {
		case p.depth > 1:
			p.choose(yield, func(int) bool { return false })
			p.choose(yield, func(int) bool { return true })
			random = 1
		case len(p.free) <= *crashAll:
			for bits := range 1 << len(p.free) {
				p.choose(yield, func(i int) bool { return bits>>i&1 == 1 })
			}
		default:
			p.choose(yield, func(int) bool { return false })
			p.choose(yield, func(int) bool { return true })
			for i := range p.free {
				p.choose(yield, func(j int) bool { return j < i })
				p.choose(yield, func(j int) bool { return j != i })
				p.choose(yield, func(j int) bool { return j == i })
			}
		}
		for range random {
			yield(p.subset(func(int) bool { return p.rnd.IntN(2) == 0 }))
			yield(p.torn(func(int) bool { return p.rnd.IntN(3) > 0 }))
		}
		if p.depth == 1 {
			p.fills(yield)
			p.lengths(yield)
		}
	}
}

// subset keeps some of the effects that matter, by their places in free.
func (p *planner) subset(keep func(i int) bool) fates {
	f := make(fates, len(p.effects))
	if p.rnd.IntN(2) == 0 {
		for i := range f {
			f[i] = faultfs.Kept // what LOCK holds
		}
	}
	for i, at := range p.free {
		f[at] = faultfs.Gone
		if keep(i) {
			f[at] = faultfs.Kept
		}
	}
	return f
}

// choose yields a subset that has something fresh in it.
func (p *planner) choose(yield func(fates) bool, keep func(i int) bool) {
	f := p.subset(keep)
	if p.since == 0 {
		yield(f)
		return
	}
	for _, i := range p.fresh {
		if f[i] != faultfs.Gone {
			yield(f)
			return
		}
	}
}

// torn is a subset in which what is not there of a write may be anything.
func (p *planner) torn(keep func(i int) bool) fates {
	f := p.subset(keep)
	for _, i := range p.free {
		if e := p.effects[i]; f[i] == faultfs.Gone && e.Op.Kind == faultfs.Write && !e.Size {
			f[i] = tear(p.rnd, e)
		}
	}
	return f
}

// tear cuts a write short somewhere.
func tear(rnd *rand.Rand, e faultfs.Effect) faultfs.Fate {
	return faultfs.Fate{Bytes: rnd.IntN(int(e.Len)), Rest: faultfs.Fill(rnd.IntN(4))}
}

// fills yields, for each piece of the last write, states in which it alone is not
// what was written.
func (p *planner) fills(yield func(fates) bool) {
	for _, i := range p.write {
		all := []faultfs.Fill{faultfs.Zeros, faultfs.Ones, faultfs.Noise}
		if !*crashBoth {
			all = all[p.rnd.IntN(3):][:1]
		}
		for _, fill := range all {
			for _, n := range []int{0, p.rnd.IntN(int(p.effects[i].Len))} {
				f := p.subset(func(int) bool { return true })
				f[i] = faultfs.Fate{Bytes: n, Rest: fill}
				yield(f)
			}
		}
	}
}

// lengths yields states in which the last write was cut short at a byte, every one
// of its text, some of its padding, all before it being there: with the new length
// of the file, and with that which the bytes give it.
func (p *planner) lengths(yield func(fates) bool) {
	if len(p.write) == 0 {
		return
	}
	first := p.effects[p.write[0]].Off
	end, text := first, first
	for _, i := range p.write {
		e := p.effects[i]
		end = max(end, e.Off+e.Len)
		if e.End > 0 {
			text = max(text, e.Off+int64(e.End))
		}
	}
	lengths := int64(*crashLengths)
	if p.rich {
		lengths = min(lengths, 16) // of its many writes
	}
	step := max(1, (text-first)/lengths)
	for at := first + 1 + p.rnd.Int64N(step); at < end; at += step {
		if at > text {
			step = max(step, 256)
		}
		yield(p.cut(at, true))
		yield(p.cut(at, false))
	}
}

func (p *planner) cut(at int64, grown bool) fates {
	f := p.subset(func(int) bool { return true })
	op := p.effects[p.write[0]].Op.N
	for _, i := range p.free {
		e := p.effects[i]
		if e.Op.N == op && (!e.Size || !grown) {
			f[i] = faultfs.Fate{Bytes: int(max(0, min(at-e.Off, e.Len)))}
		}
	}
	return f
}
