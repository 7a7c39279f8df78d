package model

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/annalsdb/annals"
)

// client does one call after the other.
type client struct {
	w   *world
	id  int
	rnd *rand.Rand
	saw [places]annals.Entry // what it read last of each key; for conditions
}

func (c *client) work() {
	for range callsEach {
		db, epoch := c.w.current()
		in := c.choose()
		begun := c.w.stamp.Add(1)
		out, err := c.do(db, in)
		c.w.ended(c.id, epoch, begun, in, out, err)
		if errors.Is(err, annals.ErrFailed) {
			c.w.crash(epoch)
		}
	}
}

// value makes a value that nobody has written before; one in six is a delete.
func (c *client) value() int32 {
	if c.rnd.IntN(6) == 0 {
		return 0
	}
	return c.w.values.Add(1)
}

// choose draws a call.
func (c *client) choose() call {
	a := c.rnd.IntN(places)
	b := (a + 1 + c.rnd.IntN(places-1)) % places
	switch n := c.rnd.IntN(20); {
	case n < 6:
		return call{what: "get", keys: []int{a}}
	case n < 7:
		return call{what: "scan", keys: allKeys}
	case n < 11:
		return call{what: "put", keys: []int{a}, values: []int32{c.value()}}
	case n < 14:
		return call{what: "cas", keys: []int{a}, values: []int32{c.value()}, expect: c.seen(a)}
	case n < 16:
		return call{what: "put", keys: []int{a, b}, values: []int32{c.value(), c.value()}}
	case n < 17:
		return call{what: "tx", keys: []int{a, b}} // aborts
	}
	return call{what: "tx", keys: []int{a, b}, values: []int32{c.value(), c.value()}[:1+c.rnd.IntN(2)]}
}

// seen is the value of a key when the client looked last.
func (c *client) seen(key int) int32 {
	if c.saw[key].Seq == 0 {
		return 0
	}
	return valueOf(c.w.c, c.saw[key].Value)
}

func (c *client) do(db *annals.Store, in call) (out answer, err error) {
	switch in.what {
	case "get":
		return c.read(db, in.keys)
	case "scan":
		values, err := readAll(c.w.c, db)
		return answer{values: values}, err
	case "tx":
		return c.tx(db, in)
	}
	var b annals.Batch
	for i, v := range in.values {
		key := keyOf(in.keys[i])
		var opts []annals.PutOption
		if in.what == "cas" {
			opts = append(opts, annals.IfSeq(c.saw[in.keys[0]].Seq))
		}
		if v == 0 {
			b.Delete(key, opts...)
		} else {
			b.Put(key, textOf(v), opts...)
		}
	}
	if c.rnd.IntN(2) == 0 {
		_, err = db.Submit(&b).Wait(context.Background())
		return answer{}, err
	}
	_, err = db.Apply(&b)
	return answer{}, err
}

// lookup is Store.Lookup or Tx.Lookup.
type lookup interface {
	Lookup(key string) (annals.Entry, error)
}

func (c *client) read(from lookup, keys []int) (out answer, err error) {
	for _, key := range keys {
		e, err := from.Lookup(keyOf(key))
		if err != nil && !errors.Is(err, annals.ErrNotFound) {
			return answer{}, err
		}
		c.saw[key] = e
		out.values = append(out.values, c.seen(key))
	}
	return out, nil
}

// tx reads two keys and writes to as many of them as there are values, in one moment.
func (c *client) tx(db *annals.Store, in call) (out answer, err error) {
	saw := c.saw // what a transaction reads may be on its way only: no condition for later
	defer func() { c.saw = saw }()
	err = db.Update(func(tx *annals.Tx) error {
		var err error
		if out, err = c.read(tx, in.keys); err != nil {
			return err
		}
		for i, v := range in.values {
			if v == 0 {
				err = tx.Delete(keyOf(in.keys[i]))
			} else {
				err = tx.Put(keyOf(in.keys[i]), textOf(v))
			}
			if err != nil {
				return err
			}
		}
		if len(in.values) == 0 {
			return errAborted
		}
		return nil
	})
	return out, err
}

// onlooker watches the log through crashes. What it has seen must stay.
type onlooker struct {
	w    *world
	seen []record
	gap  bool // compaction was faster: it has not seen all
}

// watch goes on until ctx ends.
func (o *onlooker) watch(ctx context.Context) {
	for ctx.Err() == nil {
		db, epoch := o.w.current()
		for r, err := range db.Watch(ctx, o.next()) {
			if ctx.Err() != nil || !o.see(epoch, r, err) {
				break
			}
		}
	}
}

// next is the number from which to go on.
func (o *onlooker) next() uint64 {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	if len(o.seen) == 0 {
		return 1
	}
	return o.seen[len(o.seen)-1].seq + 1
}

// see takes what Watch yields and tells whether to go on: not after a crash.
func (o *onlooker) see(epoch int, r annals.Record, err error) bool {
	w := o.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if epoch != w.epoch {
		return false
	}
	var gone *annals.CompactedError
	switch {
	case errors.As(err, &gone):
		o.gap = true
		o.seen = append(o.seen, record{seq: gone.First - 1}) // go on from there
		return false
	case err != nil:
		return w.c.NoError(err, "a watcher that has seen %d records", len(o.seen))
	}
	if n := len(o.seen); n > 0 && r.Seq != o.seen[n-1].seq+1 {
		before := o.seen[n-1]
		w.c.Greater(r.Seq, before.seq, "records out of order")
		w.c.False(before.more, "a commit was torn apart")
		w.c.Contains(w.firsts, r.Seq, "a record was left out")
	}
	o.seen = append(o.seen, recordOf(r))
	w.sum.watched++
	return true
}

// findAgain looks for all that was seen in a store that has recovered from a crash.
func (o *onlooker) findAgain(db *annals.Store) {
	o.w.mu.Lock()
	seen := slices.Clone(o.seen)
	o.w.mu.Unlock()
	history := db.Stats().History
	seen = slices.DeleteFunc(seen, func(r record) bool { return r.seq < history || r.verb == "" })
	if len(seen) == 0 {
		return
	}
	if !o.w.c.GreaterOrEqual(db.Durable(), seen[len(seen)-1].seq, "a watcher was shown a record that a crash took away") {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // one that is missing would be waited for
	defer cancel()
	i := 0
	for r, err := range db.Watch(ctx, seen[0].seq) {
		if errors.Is(err, annals.ErrCompacted) {
			return // just now, in the background
		}
		if !o.w.c.NoError(err) || !o.w.c.Equal(seen[i], recordOf(r), "a watcher was shown a record that a crash took away") {
			return
		}
		o.w.mu.Lock()
		o.w.sum.seenBeforeACrash++
		o.w.mu.Unlock()
		if i++; i == len(seen) {
			return
		}
	}
}

// compare holds what follows from all that was seen against the store at the end.
func (o *onlooker) compare(db *annals.Store) {
	if o.gap {
		return
	}
	s := newState()
	for _, r := range o.seen {
		s.apply(r)
	}
	var got []found
	for e, err := range db.Scan(annals.Range{}) {
		o.w.c.NoError(err)
		got = append(got, found{e.Key, entryOf(e)})
	}
	o.w.c.Equal(s.scan(span{}, 0), got, "what follows from the log that was watched")
	o.w.sum.wholeWatches++
}
