package fuzz

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/annalsdb/annals"
)

// write is one write of a commit, as the model knows it.
type write struct {
	kind    annals.Kind
	name    string // of the key or series
	value   string
	expires time.Time
}

// record is a write that was submitted, under the number that it must have.
type record struct {
	write
	seq  uint64
	more bool
}

// entry is what a key, or one sample of a crashSeries, holds.
type entry struct {
	value   string
	seq     uint64
	expires time.Time
}

// state is a store after some commit.
type state struct {
	keys    map[string]entry
	samples []entry
	last    uint64 // the number of the last record; numbers that were skipped count
	records int    // how many of the ledger's records led here

	shown string    // what a reader sees ...
	at    time.Time // ... at this time
}

// ledger is what was submitted to a store, in order: its states after each
// commit, from the empty one on, and its records. It shares no code with the
// store.
type ledger struct {
	states  []*state
	records []record
}

func newLedger() ledger { return ledger{states: []*state{{}}} }

// fork returns a ledger that knows the first n commits, up to number last, and
// goes on by itself.
func (l *ledger) fork(n int, last uint64) ledger {
	end := *l.states[n]
	end.last = last
	return ledger{states: append(l.states[:n:n], &end), records: l.records[:end.records:end.records]}
}

func (l *ledger) submitted() int { return len(l.states) - 1 }

// submit adds a commit whose first record gets the number next.
func (l *ledger) submit(next uint64, writes []write) *state {
	old := l.states[len(l.states)-1]
	s := &state{keys: maps.Clone(old.keys), samples: slices.Clip(old.samples), last: next + uint64(len(writes)) - 1}
	if s.keys == nil {
		s.keys = map[string]entry{}
	}
	for i, w := range writes {
		e := entry{w.value, next + uint64(i), w.expires}
		switch w.kind {
		case annals.KindPut:
			s.keys[w.name] = e
		case annals.KindDelete:
			delete(s.keys, w.name)
		case annals.KindSample:
			s.samples = append(s.samples, e)
		}
		l.records = append(l.records, record{w, e.seq, i < len(writes)-1})
	}
	s.records = len(l.records)
	l.states = append(l.states, s)
	return s
}

// at returns the state that all records up to a number lead to, and whether the
// number is the end of a commit.
func (l *ledger) at(seq uint64) (i int, whole bool) {
	for i = len(l.states) - 1; i > 0 && l.states[i].last > seq; i-- {
	}
	return i, l.states[i].last == seq
}

// find returns the one of the states from floor on that shows this. Where several
// do, since the last commits have only deleted what was not there, the numbers on
// disk decide: last is the greatest.
func (l *ledger) find(shown string, floor int, last uint64, now time.Time) (found int, ok bool) {
	for i := floor; i < len(l.states); i++ {
		if l.states[i].show(now) == shown && (!ok || l.states[i].last <= last) {
			found, ok = i, true
		}
	}
	return found, ok
}

var showing sync.Mutex

// show returns what a reader sees at a time, with all numbers.
func (s *state) show(now time.Time) string {
	showing.Lock() // the hook may run in any of the store's goroutines
	defer showing.Unlock()
	if s.shown != "" && s.at.Equal(now) {
		return s.shown
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.keys)) {
		if e := s.keys[k]; e.expires.IsZero() || now.Before(e.expires) {
			showEntry(&b, k, e.seq, e.value)
		}
	}
	for _, e := range s.samples {
		showEntry(&b, "a sample", e.seq, e.value)
	}
	s.shown, s.at = b.String()+"end", now
	return s.shown
}

func showEntry(b *strings.Builder, what string, seq uint64, value string) {
	fmt.Fprintf(b, "%d %s=", seq, what)
	b.WriteString(value)
	b.WriteByte('\n')
}

// viewer is a Store or a Reader.
type viewer interface {
	Snapshot() *annals.Snapshot
}

// view returns what a store shows, spelled as the model's states are, and the
// number that its snapshot has.
func view(db viewer) (shown string, seq uint64, err error) {
	s := db.Snapshot()
	defer s.Close()
	var b strings.Builder
	for e, err := range s.Scan(annals.Range{}) {
		if err != nil {
			return "", 0, err
		}
		showEntry(&b, e.Key, e.Seq, string(e.Value))
	}
	for e, err := range s.Samples(crashSeries, annals.Window{}) {
		if err != nil {
			return "", 0, err
		}
		showEntry(&b, "a sample", e.Seq, string(e.Value))
	}
	return b.String() + "end", s.Seq(), nil
}

// differs says in which way a record that the store gives is not the one that was
// submitted, "" if it is.
func (r *record) differs(got annals.Record) string {
	name := got.Key
	if got.Kind == annals.KindSample {
		name = got.Series
	}
	same := got.Seq == r.seq && got.Kind == r.kind && name == r.name && string(got.Value) == r.value && got.Expires.Equal(r.expires)
	if same && (got.More == r.more) {
		return ""
	}
	return fmt.Sprintf("record %d is a %v of %q, %.20q, more: %v; submitted was %d, a %v of %q, %.20q, more: %v",
		got.Seq, got.Kind, name, got.Value, got.More, r.seq, r.kind, r.name, r.value, r.more)
}
