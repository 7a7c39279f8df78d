package model

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

// setup is a way to run a store. None of it may change what can be read.
type setup struct {
	segment   int64
	sync      annals.SyncPolicy
	history   int64
	minLive   float64 // of compaction in the background; 0: none
	compact   bool    // by hand, after each step
	reopen    bool    // after each step
	submitted bool    // by Submit instead of Apply
	stepwise  bool    // each batch as a transaction
	save      int     // Options.Checkpoint
	limits    bool    // Options.Retention, beyond which nothing is
}

var genSetup = rapid.Custom(func(t *rapid.T) setup {
	return setup{
		segment:   rapid.SampledFrom([]int64{4 << 10, 64 << 10, 64 << 20}).Draw(t, "segment"),
		sync:      rapid.SampledFrom([]annals.SyncPolicy{annals.SyncAlways, annals.SyncEvery(time.Millisecond), annals.SyncNever}).Draw(t, "sync"),
		history:   rapid.SampledFrom([]int64{0, 20, 1 << 20}).Draw(t, "history"),
		minLive:   rapid.SampledFrom([]float64{0, 0.3, 1}).Draw(t, "min live"),
		compact:   rapid.Bool().Draw(t, "compact"),
		reopen:    rapid.Bool().Draw(t, "reopen"),
		submitted: rapid.Bool().Draw(t, "submitted"),
		stepwise:  rapid.Bool().Draw(t, "stepwise"),
		save:      rapid.SampledFrom([]int{0, 1, 5, 1 << 30}).Draw(t, "save"),
		limits:    rapid.Bool().Draw(t, "limits"),
	}
})

// script is a list of batches and of steps of the clock between them.
type script struct {
	batches [][]write
	ticks   []time.Duration
}

var genScript = rapid.Custom(func(t *rapid.T) (s script) {
	m := &machine{now: 1_750_000_000_000_000, next: 1}
	for range rapid.IntRange(5, 25).Draw(t, "steps") {
		list := m.writes(t, newState())
		for i := range list {
			list[i].conditional = false
		}
		s.batches = append(s.batches, list)
		s.ticks = append(s.ticks, rapid.SampledFrom([]time.Duration{0, 0, 0, time.Second, 50 * time.Minute}).Draw(t, "tick"))
	}
	return s
})

// TestOptionsAgree runs one script under many options and reads the store in many
// ways. Everything that can be read must be the same, sequence numbers included.
func TestOptionsAgree(t *testing.T) {
	fewerChecks(t, 12) // each of them runs five stores
	var sum agreement
	rapid.Check(t, func(t *rapid.T) {
		s := genScript.Draw(t, "script")
		want := play(t, s, setup{segment: 64 << 20}, &sum)
		for range 4 {
			how := genSetup.Draw(t, "setup")
			same(t, want, play(t, s, how, &sum), fmt.Sprintf("%+v", how))
		}
	})
	if !t.Failed() {
		requireAll(t, sum)
	}
}

// agreement counts what a run of TestOptionsAgree has met.
type agreement struct{ stores, lines, byHand, background, expired int }

// fewerChecks has rapid make only so many of its checks in this test.
func fewerChecks(t *testing.T, by int) {
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	n, err := strconv.Atoi(before)
	require.NoError(t, err)
	require.NoError(t, checks.Value.Set(strconv.Itoa(max(1, n/by))))
	t.Cleanup(func() { require.NoError(t, checks.Value.Set(before)) })
}

// play runs a script and returns what every way to read the store shows, which must be
// the same.
func play(t *rapid.T, s script, how setup, sum *agreement) []string {
	fs := faultfs.New()
	var wall atomic.Int64
	wall.Store(1_750_000_000_000_000)
	o := &annals.Options{
		FS: fs, SegmentSize: how.segment, Sync: how.sync, History: how.history, Now: func() time.Time { return time.UnixMicro(wall.Load()) },
		Checkpoint: how.save,
		Compaction: annals.Compaction{Off: how.minLive == 0, MinLive: how.minLive, Rate: 1 << 40, Grace: time.Nanosecond},
	}
	if how.limits {
		o.Retention.Default = annals.Limits{Bytes: 1 << 40, Count: 1 << 40}
	}
	db, err := annals.Open(dir, o)
	require.NoError(t, err)
	defer func() { _ = db.Close() }() // after a failure
	for i, list := range s.batches {
		commit(t, db, list, how)
		wall.Add(s.ticks[i].Microseconds())
		_ = db.Stats() // so that each of them notes the time
		if how.compact {
			stats, err := db.Compact(context.Background(), nil)
			require.NoError(t, err)
			sum.byHand += stats.Inputs
		}
		if how.reopen {
			require.NoError(t, db.Close())
			db, err = annals.Open(dir, o)
			require.NoError(t, err)
		}
	}
	_, err = db.Sync(context.Background())
	require.NoError(t, err)
	lines := dump(t, db, "the store")
	for what, other := range otherways {
		other(t, fs, db, o, func(v view) { same(t, lines, dump(t, v, what), what) })
	}
	sum.stores++
	sum.lines += len(lines)
	st := db.Stats()
	sum.background += int(st.Compaction.Runs)
	for range db.Scan(annals.Range{KeysOnly: true}) {
		st.Keys--
	}
	sum.expired += st.Keys // hidden, and not yet gone
	require.NoError(t, db.Close())
	return lines
}

// otherways are ways to read a store but through itself.
var otherways = map[string]func(t *rapid.T, fs *faultfs.FS, db *annals.Store, o *annals.Options, read func(view)){
	"a snapshot": func(t *rapid.T, _ *faultfs.FS, db *annals.Store, _ *annals.Options, read func(view)) {
		require.NoError(t, db.View(func(s *annals.Snapshot) error { read(s); return nil }))
	},
	"a transaction": func(t *rapid.T, _ *faultfs.FS, db *annals.Store, _ *annals.Options, read func(view)) {
		require.NoError(t, db.Update(func(tx *annals.Tx) error { read(tx); return nil }))
	},
	"a reader": func(t *rapid.T, fs *faultfs.FS, _ *annals.Store, o *annals.Options, read func(view)) {
		r, err := annals.OpenReader(dir, &annals.ReaderOptions{FS: fs, Now: o.Now})
		require.NoError(t, err)
		read(r)
		require.NoError(t, r.Backup(context.Background(), "/copy/of a reader"))
		require.NoError(t, r.Close())
		reopened(t, "/copy/of a reader", o, read)
	},
	"a backup": func(t *rapid.T, _ *faultfs.FS, db *annals.Store, o *annals.Options, read func(view)) {
		require.NoError(t, db.Backup(context.Background(), "/copy/backup"))
		reopened(t, "/copy/backup", o, read)
	},
	"a repaired copy": func(t *rapid.T, fs *faultfs.FS, _ *annals.Store, o *annals.Options, read func(view)) {
		fs = fs.Clone() // at rest
		report, err := annals.RepairFS(context.Background(), fs, dir, "/copy/repaired", nil)
		require.NoError(t, err)
		require.Empty(t, report.Lost)
		c := *o
		c.FS = fs
		reopened(t, "/copy/repaired", &c, read)
	},
	"a killed store": func(t *rapid.T, fs *faultfs.FS, _ *annals.Store, o *annals.Options, read func(view)) {
		c := *o
		c.FS = fs.Clone()
		reopened(t, dir, &c, read)
	},
}

// reopened reads a store that was opened, after compaction by hand too.
func reopened(t *rapid.T, dir string, o *annals.Options, read func(view)) {
	db, err := annals.Open(dir, o)
	require.NoError(t, err)
	read(db)
	_, err = db.Compact(context.Background(), nil)
	require.NoError(t, err)
	read(db)
	require.NoError(t, db.Close())
}

// dump is all that can be read.
func dump(t *rapid.T, v view, what string) (lines []string) {
	for _, backward := range []bool{false, true} {
		for e, err := range v.Scan(annals.Range{Reverse: backward}) {
			require.NoError(t, err, what)
			lines = append(lines, fmt.Sprintf("%q %d %d %q", e.Key, e.Seq, e.Expires.UnixMicro(), e.Value))
		}
		for _, name := range series {
			for p, err := range v.Samples(name, annals.Window{Reverse: backward}) {
				require.NoError(t, err, what)
				lines = append(lines, fmt.Sprintf("%q %d %d %q", name, p.Seq, p.At.UnixMicro(), p.Value))
			}
		}
	}
	for info, err := range v.Series() {
		require.NoError(t, err, what)
		lines = append(lines, fmt.Sprintf("%q: %d, %d to %d, %v to %v", info.Name, info.Samples, info.FirstSeq, info.LastSeq, info.First, info.Last))
	}
	return lines
}

// commit makes a batch in one of the ways there are.
func commit(t *rapid.T, db *annals.Store, list []write, how setup) {
	var err error
	switch {
	case how.stepwise:
		err = db.Update(func(tx *annals.Tx) error {
			for _, w := range list {
				if err := oneTx(tx, w); err != nil {
					return err
				}
			}
			return nil
		})
	case how.submitted:
		_, err = db.Submit(batch(list)).Wait(context.Background())
	default:
		_, err = db.Apply(batch(list))
	}
	require.NoError(t, err)
}

func oneTx(tx *annals.Tx, w write) (err error) {
	switch w.verb {
	case put:
		return tx.Put(w.name, []byte(w.value), w.options()...)
	case remove:
		return tx.Delete(w.name)
	}
	_, err = tx.Append(w.name, []byte(w.value), w.appendOptions()...)
	return err
}
