package annals

import (
	"time"

	"github.com/annalsdb/annals/segment"
)

// Kind tells what a record does.
type Kind = segment.Kind

// The kinds of records.
const (
	KindPut    = segment.Put    // gives a key a value
	KindDelete = segment.Delete // takes a key away
	KindSample = segment.Sample // appends a sample to a series
)

// Entry is a key with its present value. Value is the caller's own copy, nil
// under Range.KeysOnly. Expires is zero for a key that never does.
type Entry struct {
	Key     string
	Value   []byte
	Seq     uint64
	Expires time.Time
}

// Sample is one value of a series. At is the time it stands for, to the
// microsecond; Seq says in which order it came.
type Sample struct {
	Series string
	Seq    uint64
	At     time.Time
	Value  []byte
}

// Record is one change as Watch gives it. Key is set for KindPut and KindDelete,
// Series and At for KindSample, Expires for a put that expires. More is true if
// the next record belongs to the same commit.
type Record struct {
	Seq     uint64
	Kind    Kind
	Key     string
	Series  string
	Value   []byte
	At      time.Time
	Expires time.Time
	More    bool
}

// SeriesInfo sums up one series. First and Last are the earliest and the latest
// time of its samples, FirstSeq and LastSeq their first and last sequence number. Once
// Options.Retention has taken samples of it, these are bounds: none lies outside.
type SeriesInfo struct {
	Name     string
	Samples  uint64
	Bytes    int64 // of their lines
	FirstSeq uint64
	LastSeq  uint64
	First    time.Time
	Last     time.Time
}

// Range selects keys: all that begin with Prefix, from From on (included) up to
// To (not included), where "" is unbounded; in bytewise order, or backwards with
// Reverse; at most Limit of them, where 0 is all. KeysOnly leaves values unread.
type Range struct {
	Prefix   string
	From, To string
	Reverse  bool
	Limit    int
	KeysOnly bool
}

// Prefix selects all keys that begin with p.
func Prefix(p string) Range { return Range{Prefix: p} }

// Window selects samples: those whose time is not before Since and before Until,
// and whose sequence number is FromSeq to ToSeq, both included; a zero field is
// unbounded. They come in the order of their sequence numbers, or backwards with
// Reverse; at most Limit of them, where 0 is all.
type Window struct {
	Since, Until   time.Time
	FromSeq, ToSeq uint64
	Reverse        bool
	Limit          int
}

// AppendJSON appends the entry as one JSON object without a newline, the form
// that the command line prints and `annals load` reads:
// {"key":K,"val":V}, with "txt" or "b64" for a value that is not JSON, "k64" for
// a key that is not UTF-8, and "exp" before the value of a key that expires.
func (e Entry) AppendJSON(dst []byte) []byte {
	return segment.AppendOp(dst, &segment.Record{Kind: segment.Put, Name: e.Key, Value: e.Value, Expires: micros(e.Expires)})
}

// AppendJSON appends the sample as one JSON object: {"seq":N,"ser":S,"at":T,"val":V}.
func (s Sample) AppendJSON(dst []byte) []byte {
	return segment.AppendOp(dst, &segment.Record{Seq: s.Seq, Kind: segment.Sample, Name: s.Series, Value: s.Value, At: micros(s.At)})
}

// AppendJSON appends the record as one JSON object in the spelling of the log.
func (r Record) AppendJSON(dst []byte) []byte {
	name := r.Key
	if r.Kind == KindSample {
		name = r.Series
	}
	return segment.AppendOp(dst, &segment.Record{
		Seq: r.Seq, Kind: r.Kind, Name: name, Value: r.Value,
		At: micros(r.At), Expires: micros(r.Expires), More: r.More,
	})
}

// micros is a time as the log spells it: microseconds since 1970, rounded down;
// 0 for the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
