package model

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
)

// view is what a Store, Reader, Snapshot and Tx have in common.
type view interface {
	Get(key string) ([]byte, error)
	Lookup(key string) (annals.Entry, error)
	Scan(r annals.Range) iter.Seq2[annals.Entry, error]
	Samples(series string, w annals.Window) iter.Seq2[annals.Sample, error]
	Series() iter.Seq2[annals.SeriesInfo, error]
}

// compare holds all that can be read against the state at a time.
func compare(t require.TestingT, v view, s *state, now int64, what string) {
	for _, key := range keys {
		if _, there := s.get(key, now); there || len(key) < 1000 { // else the scan tells, and makes no error of 64 KiB
			compareKey(t, v, key, s, now, what)
		}
	}
	compareScan(t, v, span{}, s, now, what)
	for _, name := range series {
		compareSamples(t, v, name, window{}, s, what)
	}
	compareSeries(t, v, s, what)
}

func compareKey(t require.TestingT, v view, key string, s *state, now int64, what string) {
	want, there := s.get(key, now)
	e, err := v.Lookup(key)
	value, getErr := v.Get(key)
	if !there {
		if !errors.Is(err, annals.ErrNotFound) || !errors.Is(getErr, annals.ErrNotFound) {
			require.Fail(t, "a key that should not be there", "%s: key %.40q: %v %v", what, key, err, getErr)
		}
		return
	}
	if err != nil || getErr != nil {
		require.Fail(t, "a key is missing", "%s: key %.40q: %v %v", what, key, err, getErr)
	}
	if got := entryOf(e); got != want || e.Key != key || string(value) != want.value {
		require.Fail(t, "a key has another value", "%s: key %.40q: have %.200v and %.80q, want %.200v", what, key, got, value, want)
	}
}

func entryOf(e annals.Entry) entry {
	got := entry{value: string(e.Value), seq: e.Seq}
	if !e.Expires.IsZero() {
		got.expires = e.Expires.UnixMicro()
	}
	return got
}

func compareScan(t require.TestingT, v view, r span, s *state, now int64, what string) {
	want := s.scan(r, now)
	var got []found
	for e, err := range v.Scan(annals.Range{Prefix: r.prefix, From: r.from, To: r.to, Reverse: r.reverse, Limit: r.limit, KeysOnly: r.keysOnly}) {
		require.NoError(t, err, "%s: scan %+v", what, r)
		got = append(got, found{e.Key, entryOf(e)})
	}
	same(t, want, got, fmt.Sprintf("%s: scan %.200v", what, r))
}

func compareSamples(t require.TestingT, v view, name string, w window, s *state, what string) {
	want := s.samples(name, w)
	var got []sample
	for p, err := range v.Samples(name, annals.Window{Since: w.since, Until: w.until, FromSeq: w.first, ToSeq: w.last, Reverse: w.reverse, Limit: w.limit}) {
		require.NoError(t, err, "%s: samples of %.20q, %+v", what, name, w)
		require.Equal(t, name, p.Series)
		got = append(got, sample{value: string(p.Value), seq: p.Seq, at: p.At.UnixMicro()})
	}
	same(t, want, got, fmt.Sprintf("%s: samples of %.20q in %+v", what, name, w))
}

func compareSeries(t require.TestingT, v view, s *state, what string) {
	var got []summary
	for info, err := range v.Series() {
		require.NoError(t, err, what)
		got = append(got, summary{
			name: info.Name, samples: int(info.Samples), firstSeq: info.FirstSeq, lastSeq: info.LastSeq,
			first: info.First.UnixMicro(), last: info.Last.UnixMicro(),
		})
	}
	same(t, s.summaries(), got, what+": series")
}

// same requires two lists to be equal and tells where they first differ: the values in
// them may be long.
func same[T comparable](t require.TestingT, want, got []T, what string) {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			require.Fail(t, "not what it should be", "%s: place %d of %d: have %.300q, want %.300q", what, i, len(want), fmt.Sprint(got[i]), fmt.Sprint(want[i]))
		}
	}
	if len(want) != len(got) {
		require.Fail(t, "not as many as there should be", "%s: have %d, want %d: %.500q, want %.500q", what, len(got), len(want), fmt.Sprint(got), fmt.Sprint(want))
	}
}

// recordOf is a record as the model has it.
func recordOf(r annals.Record) record {
	got := record{seq: r.Seq, value: string(r.Value), more: r.More}
	switch r.Kind {
	case annals.KindPut:
		got.verb, got.name = put, r.Key
	case annals.KindDelete:
		got.verb, got.name = remove, r.Key
	case annals.KindSample:
		got.verb, got.name, got.at = add, r.Series, r.At.UnixMicro()
	}
	if !r.Expires.IsZero() {
		got.expires = r.Expires.UnixMicro()
	}
	return got
}

// options are those of a write.
func (w write) options() (opts []annals.PutOption) {
	if w.lives {
		opts = append(opts, annals.TTL(w.ttl))
	} else if !w.expires.IsZero() {
		opts = append(opts, annals.ExpiresAt(w.expires))
	}
	if w.conditional && w.ifSeq == 0 {
		opts = append(opts, annals.IfAbsent())
	} else if w.conditional {
		opts = append(opts, annals.IfSeq(w.ifSeq))
	}
	return opts
}

func (w write) appendOptions() (opts []annals.AppendOption) {
	if !w.at.IsZero() {
		opts = append(opts, annals.At(w.at))
	}
	return opts
}

// batch makes a batch of writes.
func batch(writes []write) *annals.Batch {
	var b annals.Batch
	for _, w := range writes {
		switch w.verb {
		case put:
			b.Put(w.name, []byte(w.value), w.options()...)
		case remove:
			b.Delete(w.name, w.options()...)
		case add:
			b.Append(w.name, []byte(w.value), w.appendOptions()...)
		}
	}
	return &b
}

func micro(m int64) time.Time { return time.UnixMicro(m) }
