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
// is not safe for concurrent use, and may be applied more than once.
type Batch struct {
	ops   []batchOp
	bytes int64
	err   error   // the first write that can't be made
	after *Commit // without which the batch must not be made
}

// batchOp is one write of a batch.
type batchOp struct {
	rec         wal.Record
	size        int           // of the value
	value       []byte        // kept only until the record's time is known
	ttl         time.Duration // of a put, if value is kept
	ifSeq       uint64
	conditional bool
}

// Put gives key a value.
func (b *Batch) Put(key string, value []byte, opts ...PutOption) {
	b.key(batchOp{rec: wal.Record{Kind: segment.Put, Name: key}, size: len(value)}, value, opts)
}

// Delete takes key away. That it is absent is no error.
func (b *Batch) Delete(key string, opts ...PutOption) {
	b.key(batchOp{rec: wal.Record{Kind: segment.Delete, Name: key}}, nil, opts)
}

func (b *Batch) key(op batchOp, value []byte, opts []PutOption) {
	if len(op.rec.Name) > maxKey {
		b.fail(fmt.Errorf("%w: the key is %d bytes long, the limit is %d", ErrTooLarge, len(op.rec.Name), maxKey))
		return
	}
	for _, opt := range opts {
		switch {
		case opt.kind == optIfSeq:
			op.conditional, op.ifSeq = true, uint64(opt.n)
		case op.rec.Kind == segment.Delete:
			b.fail(fmt.Errorf("annals: a delete can't expire"))
			return
		case opt.kind == optTTL:
			op.ttl, op.value = time.Duration(opt.n), append([]byte{}, value...)
		case opt.kind == optExpires:
			op.rec.Expires = opt.n
		}
	}
	if op.rec.Expires >= segment.MaxTime {
		b.fail(fmt.Errorf("%w: an expiry that far ahead can't be written", ErrTooLarge))
		return
	}
	b.add(op, value)
}

// Append adds a sample to a series, which needs no making. Its name is valid
// UTF-8 of 1 to 255 bytes.
func (b *Batch) Append(series string, value []byte, opts ...AppendOption) {
	if len(series) == 0 || len(series) > maxSeries || !utf8.ValidString(series) {
		b.fail(fmt.Errorf("%w: the name of series %.300q must be valid UTF-8 of 1 to %d bytes", ErrTooLarge, series, maxSeries))
		return
	}
	op := batchOp{rec: wal.Record{Kind: segment.Sample, Name: series}, size: len(value)}
	if len(opts) == 0 {
		op.value = append([]byte{}, value...)
	}
	for _, opt := range opts {
		op.rec.At = opt.at
	}
	if op.rec.At <= -segment.MaxTime || op.rec.At >= segment.MaxTime {
		b.fail(fmt.Errorf("%w: a sample's time can't be that far from 1970", ErrTooLarge))
		return
	}
	b.add(op, value)
}

func (b *Batch) add(op batchOp, value []byte) {
	if len(value) > maxValueLimit {
		b.fail(fmt.Errorf("%w: the value is %d bytes long, the limit is %d", ErrTooLarge, len(value), maxValueLimit))
		return
	}
	if op.value == nil {
		op.encode(value)
	}
	b.bytes += int64(segment.MaxLineSize(max(len(op.rec.Body), len(op.value))))
	b.ops = append(b.ops, op)
}

// encode makes the body of the record's line, which is also our copy of the value.
func (op *batchOp) encode(value []byte) {
	r := segment.Record{Kind: op.rec.Kind, Name: op.rec.Name, Value: value, Expires: op.rec.Expires, At: op.rec.At}
	op.rec.Body = segment.AppendBody(make([]byte, 0, len(op.rec.Name)+len(value)+48), &r)
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
func (b *Batch) Len() int { return len(b.ops) }

// Reset empties the batch.
func (b *Batch) Reset() { *b = Batch{ops: b.ops[:0]} }

// records returns the batch as the log takes it, or why it can't be written.
// Expiries are counted from now, the store's time; samples without a time of their
// own get that of the wall clock.
func (b *Batch) records(maxValue int, now, wall int64) ([]wal.Record, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.bytes > maxCommit {
		return nil, fmt.Errorf("%w: the batch takes up to %d bytes in the log, the limit is %d", ErrTooLarge, b.bytes, maxCommit)
	}
	records := make([]wal.Record, len(b.ops))
	for i := range b.ops {
		op := b.ops[i]
		if op.size > maxValue {
			return nil, fmt.Errorf("%w: the value is %d bytes long, the limit is %d (Options.MaxValue)", ErrTooLarge, op.size, maxValue)
		}
		if op.value != nil {
			if err := op.date(now, wall); err != nil {
				return nil, err
			}
		}
		if size := segment.MaxLineSize(len(op.rec.Body)); size > segment.MaxLine {
			return nil, fmt.Errorf("%w: the record takes up to %d bytes in the log, the limit is %d", ErrTooLarge, size, segment.MaxLine)
		}
		records[i] = op.rec
	}
	return records, nil
}

// date gives a record the time that it was waiting for.
func (op *batchOp) date(now, wall int64) error {
	if op.rec.Kind == segment.Sample {
		op.rec.At = max(min(wall, segment.MaxTime-1), 1-segment.MaxTime)
	} else if op.rec.Expires = expiry(now, op.ttl); op.rec.Expires >= segment.MaxTime {
		return fmt.Errorf("%w: an expiry that far ahead can't be written", ErrTooLarge)
	}
	op.encode(op.value)
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
