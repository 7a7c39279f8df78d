package index

import (
	"cmp"
	"encoding/binary"
	"runtime/debug"
	"slices"
	"sync/atomic"
)

const (
	// owedKeys is for how many keys it is looked at a time what their puts have replaced.
	owedKeys = 64
	// owedAhead is how many keys are worth a goroutine, and owedMost how many there may be:
	// who needs the sums waits for so many.
	owedAhead = 512
	owedMost  = 4096
)

// oweLocked takes notice of a key that the top overlay has just come to know. The entry
// that it may have below is counted out later, with those of other keys: to look for
// one takes three waits for memory, one for the next, and most of the time of a put.
// Together many of them are on their way at a time. Until then only usage and len are
// behind; they are for who has called payLocked. This is for a Builder, and
// oweLaterLocked for all others.
func (x *Index) oweLocked(key string) error {
	if x.mu.owed = append(x.mu.owed, key); len(x.mu.owed) < owedKeys {
		return nil
	}
	return x.payLocked()
}

// oweLaterLocked is oweLocked that leaves the looking to another processor, which does it
// without the lock: while the next puts come, or their sync is under way. Not while that
// processor writes a table: the longer it takes the more has to be read again after a crash.
func (x *Index) oweLaterLocked(key string) {
	x.mu.owed = append(x.mu.owed, key)
	switch n := len(x.mu.owed); {
	case n >= owedMost, n >= owedKeys && !x.mu.paying && x.saving.Load():
		x.payLocked() // damage is for who reads the key
	case n >= owedAhead && !x.mu.paying:
		x.mu.paying = true
		go x.payAhead()
	}
}

// payAhead counts out what is owed until that is little. What it finds counts for nothing
// if somebody else has called payLocked meanwhile: below the top overlay entries may have
// changed since.
func (x *Index) payAhead() {
	var olds []Entry
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.mu.owed) >= owedKeys {
		keys := x.mu.owed
		x.mu.owed, x.mu.owedSpare, x.mu.taken = x.mu.owedSpare[:0], nil, keys
		l := x.levels.Load()
		x.mu.Unlock()
		olds, _ = l.replaced(keys, olds[:0])
		x.mu.Lock()
		if x.mu.taken != nil {
			x.countOutAllLocked(olds)
		}
		clear(keys)
		x.mu.taken, x.mu.owedSpare = nil, keys
	}
	x.mu.paying = false
}

// payLocked counts out what is owed. It comes before whatever changes entries below the
// top overlay, or puts another overlay on top. An entry that can't be read, because the
// table is damaged, stays in the count: its segment then goes later than it might.
func (x *Index) payLocked() (err error) {
	l := x.levels.Load()
	for _, keys := range [...][]string{x.mu.taken, x.mu.owed} {
		if len(keys) == 0 {
			continue
		}
		olds, lost := l.replaced(keys, x.mu.olds[:0])
		err = cmp.Or(err, lost)
		x.countOutAllLocked(olds)
		clear(olds)
		x.mu.olds = olds
	}
	x.mu.taken = nil
	clear(x.mu.owed)
	x.mu.owed = x.mu.owed[:0]
	return err
}

func (x *Index) countOutAllLocked(olds []Entry) {
	for i := range olds {
		x.countOutLocked(&olds[i])
	}
}

// replaced appends the entries that some keys have below the top overlay.
func (l *levels) replaced(keys []string, olds []Entry) (_ []Entry, err error) {
	for some := range slices.Chunk(keys, owedKeys) {
		l.fetch(some)
		for _, key := range some {
			old, had, lost := l.below(key)
			err = cmp.Or(err, lost)
			if had {
				olds = append(olds, old)
			}
		}
	}
	return olds, err
}

// fetched keeps the compiler from leaving out loads of which nobody uses the result: those
// of many keys are on their way from memory at a time, where one by one each would be
// waited for.
var fetched atomic.Uint64

// fetch has the processor load what looking for some keys below the top overlay will
// touch. There is no instruction for that in Go: these are loads like others, in loops
// in which none waits for the one before.
func (l *levels) fetch(keys []string) {
	sum := uint64(0)
	for _, o := range l.frozen {
		for _, key := range keys {
			sum += o.fetch(key)
		}
	}
	if l.table != nil {
		sum += l.table.fetch(keys)
	}
	fetched.Store(sum)
}

func (o *overlay) fetch(key string) uint64 {
	s := o.slots.Load()
	return s.list[o.hash(key)&uint32(len(s.list)-1)].Load()
}

// fetch is levels.fetch for the table. Nothing is checked: what the pages lead to may
// be anything, but for memory that is not theirs.
func (t *Table) fetch(keys []string) (sum uint64) {
	if t.t.entries == 0 {
		return 0
	}
	var lost error // a fault is for who looks
	defer catch(t, &lost, debug.SetPanicOnFault(true))
	type probe struct {
		at    int // of the slot, in data
		left  int // slots to the end of its page
		print uint16
	}
	var list [owedKeys]probe
	keys = keys[:min(len(keys), len(list))]
	for i, key := range keys {
		n, first, print := place(hash(key), t.t.hashPages)
		at := int(t.t.innerEnd+n)*PageSize + slotsAt + first*slotBytes
		list[i] = probe{at, slotsPerPage - first, print}
		sum += uint64(t.data[at])
	}
	for _, p := range list[:len(keys)] {
		for b := t.data[p.at:]; p.left > 0; p.left-- {
			v := binary.LittleEndian.Uint64(b)
			if v == 0 {
				break
			}
			if b = b[slotBytes:]; uint16(v>>48) != p.print {
				continue
			}
			if at := (int(uint32(v))-1)*PageSize + int(uint16(v>>32)); at >= 0 && at < len(t.data)-PageSize {
				sum += uint64(t.data[at]) + uint64(t.data[at+32])
			}
			break
		}
	}
	return sum
}
