package index

import (
	"cmp"
	"encoding/binary"
	"runtime/debug"
	"sync/atomic"
)

// owedKeys is for how many keys it is looked at a time what their puts have replaced.
const owedKeys = 64

// oweLocked takes notice of a key that the top overlay has just come to know. The entry
// that it may have below is counted out later, with those of other keys: to look for
// one takes three waits for memory, one for the next, and most of the time of a put.
// Together many of them are on their way at a time. Until then only usage and len are
// behind; they are for who has called payLocked.
func (x *Index) oweLocked(key string) error {
	if x.mu.owed = append(x.mu.owed, key); len(x.mu.owed) < owedKeys {
		return nil
	}
	return x.payLocked()
}

// payLocked counts out what is owed. It comes before whatever changes entries below the
// top overlay, or puts another overlay on top. An entry that can't be read, because the
// table is damaged, stays in the count: its segment then goes later than it might.
func (x *Index) payLocked() (err error) {
	if len(x.mu.owed) == 0 {
		return nil
	}
	l := x.levels.Load()
	l.fetch(x.mu.owed)
	for _, key := range x.mu.owed {
		old, had, lost := l.below(key)
		err = cmp.Or(err, lost)
		if had {
			x.countOutLocked(&old)
		}
	}
	clear(x.mu.owed)
	x.mu.owed = x.mu.owed[:0]
	return err
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
