package annals

import (
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/annalsdb/annals/segment"
	"github.com/annalsdb/annals/wal"
)

// PutOption is a condition or property of one put or delete: TTL, ExpiresAt,
// IfSeq or IfAbsent.
type PutOption struct {
	kind optionKind
	n    int64 // TTL: nanoseconds; ExpiresAt: microseconds; IfSeq: the number
}

type optionKind uint8

const (
	optTTL optionKind = iota + 1
	optExpires
	optIfSeq
)

// TTL makes the key expire after d, counted from the moment of the write by the
// store's time.
func TTL(d time.Duration) PutOption { return PutOption{optTTL, int64(d)} }

// ExpiresAt makes the key expire at t, rounded up to the microsecond.
func ExpiresAt(t time.Time) PutOption { return PutOption{optExpires, max(ceilMicros(t), 1)} }

// IfSeq makes the write only if the key's present record has this sequence
// number (Entry.Seq); ErrConflict otherwise. 0 stands for a key that is absent,
// deleted or expired.
func IfSeq(seq uint64) PutOption { return PutOption{optIfSeq, int64(seq)} }

// IfAbsent makes the write only if the key is absent, deleted or expired;
// ErrConflict otherwise.
func IfAbsent() PutOption { return IfSeq(0) }

// ceilMicros is a time in microseconds since 1970, rounded up.
func ceilMicros(t time.Time) int64 {
	micros := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		micros++
	}
	return micros
}

// AppendOption is a property of one sample: At.
type AppendOption struct{ at int64 }

// At sets the time that a sample stands for, rounded down to the microsecond. The
// default is the time of the write by the wall clock. A time in the past or the future is fine:
// samples are kept in the order in which they came.
func At(t time.Time) AppendOption { return AppendOption{t.UnixMicro()} }

// Batch gathers writes to be made together: after a crash all of them are there
// or none. The zero value is empty and ready. A Batch copies what it is given; it
// is not safe for concurrent use, must not be copied once it was used, and may be
// applied more than once.
type Batch struct {
	records []wal.Record
	special []special // of some of the records, in order
	bodies  []byte    // memory for the records' bodies, used up to its length
	bytes   int64
	largest int     // the longest value
	err     error   // the first write that can't be made
	after   *Commit // without which the batch must not be made
	lent    bool    // a commit that may be under way still has the bodies
	borrows bool    // values are the caller's for the time of one call, in which it is applied

	commit *wal.Commit // of the last Apply, to be used again
}

// special is what a write is besides its record.
type special struct {
	record      int
	conditional bool
	ifSeq       uint64
	undated     bool          // the record has no body until its time is known
	value       []byte        // of an undated one
	ttl         time.Duration // of an undated put
}

// Put gives key a value.
func (b *Batch) Put(key string, value []byte, opts ...PutOption) {
	b.key(wal.Record{Kind: segment.Put, Name: key}, value, opts)
}

// Delete takes key away. That it is absent is no error.
func (b *Batch) Delete(key string, opts ...PutOption) {
	b.key(wal.Record{Kind: segment.Delete, Name: key}, nil, opts)
}

func (b *Batch) key(r wal.Record, value []byte, opts []PutOption) {
	if len(r.Name) > maxKey {
		b.fail(fmt.Errorf("%w: the key is %d bytes long, the limit is %d", ErrTooLarge, len(r.Name), maxKey))
		return
	}
	var sp special
	for _, opt := range opts {
		switch {
		case opt.kind == optIfSeq:
			sp.conditional, sp.ifSeq = true, uint64(opt.n)
		case r.Kind == segment.Delete:
			b.fail(fmt.Errorf("annals: a delete can't expire"))
			return
		case opt.kind == optTTL:
			sp.undated, sp.ttl = true, time.Duration(opt.n)
		case opt.kind == optExpires:
			r.Expires = opt.n
		}
	}
	if r.Expires >= segment.MaxTime {
		b.fail(fmt.Errorf("%w: an expiry that far ahead can't be written", ErrTooLarge))
		return
	}
	b.add(r, value, sp)
}

// Append adds a sample to a series, which needs no making. Its name is valid
// UTF-8 of 1 to 255 bytes.
func (b *Batch) Append(series string, value []byte, opts ...AppendOption) {
	if len(series) == 0 || len(series) > maxSeries || !utf8.ValidString(series) {
		b.fail(fmt.Errorf("%w: the name of series %.300q must be valid UTF-8 of 1 to %d bytes", ErrTooLarge, series, maxSeries))
		return
	}
	r := wal.Record{Kind: segment.Sample, Name: series}
	for _, opt := range opts {
		r.At = opt.at
	}
	if r.At <= -segment.MaxTime || r.At >= segment.MaxTime {
		b.fail(fmt.Errorf("%w: a sample's time can't be that far from 1970", ErrTooLarge))
		return
	}
	b.add(r, value, special{undated: len(opts) == 0})
}

func (b *Batch) add(r wal.Record, value []byte, sp special) {
	if len(value) > maxValueLimit {
		b.fail(fmt.Errorf("%w: the value is %d bytes long, the limit is %d", ErrTooLarge, len(value), maxValueLimit))
		return
	}
	if sp.undated {
		sp.value = append([]byte{}, value...)
	} else {
		b.encode(&r, value)
	}
	if sp.undated || sp.conditional {
		sp.record = len(b.records)
		b.special = append(b.special, sp)
	}
	b.largest = max(b.largest, len(value))
	b.bytes += max(r.LineBound(), int64(segment.MaxLineSize(len(sp.value))))
	b.records = append(b.records, r)
}

// keepBodies bounds the memory that an empty batch keeps for the next bodies.
const keepBodies = 1 << 20

// borrowFrom is how long a value is at the least that is not copied if it may be borrowed.
const borrowFrom = 4 << 10

// encode makes the body of the record's line, which is also our copy of the value.
// Bodies lie one behind the other; where one finds no room new memory begins. A long
// value that may be borrowed stays where it is.
func (b *Batch) encode(r *wal.Record, value []byte) {
	borrow := b.borrows && len(value) >= borrowFrom && r.Kind != segment.Delete && segment.IsJSON(value)
	need := len(r.Name) + 64
	if !borrow {
		need += len(value)
	}
	if cap(b.bodies)-len(b.bodies) < need {
		b.bodies = make([]byte, 0, max(need, min(2*cap(b.bodies), keepBodies)))
	}
	start := len(b.bodies)
	rec := segment.Record{Kind: r.Kind, Name: r.Name, Value: value, Expires: r.Expires, At: r.At}
	if borrow {
		b.bodies = segment.AppendHead(b.bodies, &rec)
		r.Value = value
	} else {
		b.bodies = segment.AppendBody(b.bodies, &rec)
	}
	r.Body = b.bodies[start:len(b.bodies):len(b.bodies)]
}

func (b *Batch) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// After has the batch fail if the commit c, of an earlier Submit to the same
// store, fails. Whoever has many commits in flight and must not leave a hole in
// their order submits each after the one before.
func (b *Batch) After(c *Commit) { b.after = c }

// Len is the number of writes in the batch.
func (b *Batch) Len() int { return len(b.records) }

// Reset empties the batch. It keeps its memory for the writes to come.
func (b *Batch) Reset() {
	bodies := b.bodies[:0]
	if b.lent || cap(bodies) > keepBodies {
		bodies = nil
	}
	*b = Batch{records: b.records[:0], special: b.special[:0], bodies: bodies, commit: b.commit}
}

// ready tells why the batch can't be written, nil if it can, and gives the records
// that wait for it their time, by clock: expiries are counted from now, the store's
// time; samples without a time of their own get that of the wall.
func (b *Batch) ready(maxValue int, clock func() (now, wall int64)) error {
	if b.err != nil {
		return b.err
	}
	if b.bytes > maxCommit {
		return fmt.Errorf("%w: the batch takes up to %d bytes in the log, the limit is %d", ErrTooLarge, b.bytes, maxCommit)
	}
	if b.largest > maxValue {
		return fmt.Errorf("%w: the value is %d bytes long, the limit is %d (Options.MaxValue)", ErrTooLarge, b.largest, maxValue)
	}
	var now, wall int64
	for i := range b.special {
		sp := &b.special[i]
		if !sp.undated {
			continue
		}
		if now == 0 {
			now, wall = clock()
		}
		if err := b.date(&b.records[sp.record], sp, now, wall); err != nil {
			return err
		}
	}
	return nil
}

// date gives a record the time that it was waiting for. If the batch was applied
// before, that commit may still have the body of then.
func (b *Batch) date(r *wal.Record, sp *special, now, wall int64) error {
	if r.Kind == segment.Sample {
		r.At = max(min(wall, segment.MaxTime-1), 1-segment.MaxTime)
	} else if r.Expires = expiry(now, sp.ttl); r.Expires >= segment.MaxTime {
		return fmt.Errorf("%w: an expiry that far ahead can't be written", ErrTooLarge)
	}
	if b.lent {
		r.Body = nil
	}
	r.Body = segment.AppendBody(r.Body[:0], &segment.Record{Kind: r.Kind, Name: r.Name, Value: sp.value, Expires: r.Expires, At: r.At})
	return nil
}

// expiry is now + ttl in microseconds, rounded up; at least 1, since 0 is never.
func expiry(now int64, ttl time.Duration) int64 {
	micros := int64(ttl) / 1000
	if int64(ttl) > micros*1000 {
		micros++
	}
	if micros > math.MaxInt64-max(now, 0) {
		return math.MaxInt64
	}
	return max(now+micros, 1)
}
