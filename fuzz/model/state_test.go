package model

import (
	"slices"
	"strings"
	"time"
)

// state is what a store should hold: a map, and a list for each series. Times are in
// microseconds, as the log keeps them. Keys that have expired stay in it, since what
// is expired depends on the time.
type state struct {
	keys   map[string]entry
	series map[string][]sample
}

type entry struct {
	value   string
	seq     uint64
	expires int64 // 0: never
}

type sample struct {
	value string
	seq   uint64
	at    int64
}

// verb is what a record does.
type verb string

const (
	put    verb = "put"
	remove verb = "delete"
	add    verb = "append"
)

// record is one change, as a watcher should see it.
type record struct {
	seq     uint64
	verb    verb
	name    string
	value   string
	expires int64
	at      int64
	more    bool
}

func newState() *state {
	return &state{keys: map[string]entry{}, series: map[string][]sample{}}
}

func (s *state) clone() *state {
	c := newState()
	for k, e := range s.keys {
		c.keys[k] = e
	}
	for name, list := range s.series {
		c.series[name] = slices.Clone(list)
	}
	return c
}

func (s *state) apply(r record) {
	switch r.verb {
	case put:
		s.keys[r.name] = entry{value: r.value, seq: r.seq, expires: r.expires}
	case remove:
		delete(s.keys, r.name)
	case add:
		s.series[r.name] = append(s.series[r.name], sample{value: r.value, seq: r.seq, at: r.at})
	}
}

// get returns a key that is there at a time.
func (s *state) get(key string, now int64) (entry, bool) {
	e, ok := s.keys[key]
	if !ok || e.expires != 0 && now >= e.expires {
		return entry{}, false
	}
	return e, true
}

// span is a range of keys, as the API has it.
type span struct {
	prefix, from, to string
	reverse          bool
	limit            int
	keysOnly         bool
}

// found is a key with its entry.
type found struct {
	key string
	entry
}

// scan looks at every key there is.
func (s *state) scan(r span, now int64) (list []found) {
	for key := range s.keys {
		e, ok := s.get(key, now)
		if !ok || !strings.HasPrefix(key, r.prefix) || key < r.from || r.to != "" && key >= r.to {
			continue
		}
		if r.keysOnly {
			e.value = ""
		}
		list = append(list, found{key, e})
	}
	slices.SortFunc(list, func(a, b found) int {
		if r.reverse {
			a, b = b, a
		}
		return strings.Compare(a.key, b.key)
	})
	if r.limit > 0 && len(list) > r.limit {
		list = list[:r.limit]
	}
	return list
}

// window selects samples, as the API does.
type window struct {
	since, until time.Time
	first, last  uint64
	reverse      bool
	limit        int
}

func (s *state) samples(series string, w window) (list []sample) {
	for _, p := range s.series[series] {
		at := time.UnixMicro(p.at)
		if !w.since.IsZero() && at.Before(w.since) || !w.until.IsZero() && !at.Before(w.until) {
			continue
		}
		if p.seq < w.first || w.last != 0 && p.seq > w.last {
			continue
		}
		list = append(list, p)
	}
	if w.reverse {
		slices.Reverse(list)
	}
	if w.limit > 0 && len(list) > w.limit {
		list = list[:w.limit]
	}
	return list
}

// summary is what is told of a series as a whole.
type summary struct {
	name              string
	samples           int
	firstSeq, lastSeq uint64
	first, last       int64
}

func (s *state) summaries() (list []summary) {
	for name, samples := range s.series {
		if len(samples) == 0 {
			continue
		}
		sum := summary{name: name, samples: len(samples), firstSeq: samples[0].seq, lastSeq: samples[len(samples)-1].seq}
		sum.first, sum.last = samples[0].at, samples[0].at
		for _, p := range samples {
			sum.first, sum.last = min(sum.first, p.at), max(sum.last, p.at)
		}
		list = append(list, sum)
	}
	slices.SortFunc(list, func(a, b summary) int { return strings.Compare(a.name, b.name) })
	return list
}

// write is one operation of a batch or transaction, before it is decided.
type write struct {
	verb  verb
	name  string
	value string

	ttl     time.Duration
	expires time.Time // if not zero
	lives   bool      // ttl counts

	conditional bool
	ifSeq       uint64

	at time.Time // of a sample, if not zero
}

// record is the write as it is made at a time of the store and of the wall clock.
func (w write) record(now, wall int64) record {
	r := record{verb: w.verb, name: w.name, value: w.value}
	switch {
	case w.verb == add && w.at.IsZero():
		r.at = wall
	case w.verb == add:
		r.at = w.at.UnixMicro()
	case w.lives:
		r.expires = max(now+roundUp(int64(w.ttl)), 1)
	case !w.expires.IsZero():
		r.expires = max(roundUp(w.expires.UnixNano()), 1)
	}
	return r
}

// roundUp turns nanoseconds into microseconds.
func roundUp(nanos int64) int64 {
	micros := nanos / 1000
	if nanos > micros*1000 {
		micros++
	}
	return micros
}

// decide makes the writes of a batch, or tells that one of its conditions does not
// hold. Conditions are about the state before the batch.
func (s *state) decide(writes []write, next uint64, now, wall int64) (records []record, conflict bool) {
	seen := map[string]bool{}
	for i, w := range writes {
		if w.verb != add {
			if w.conditional && (seen[w.name] || s.seqOf(w.name, now) != w.ifSeq) {
				return nil, true
			}
			seen[w.name] = true
		}
		r := w.record(now, wall)
		r.seq, r.more = next+uint64(i), i < len(writes)-1
		records = append(records, r)
	}
	return records, false
}

func (s *state) seqOf(key string, now int64) uint64 {
	e, _ := s.get(key, now)
	return e.seq
}
