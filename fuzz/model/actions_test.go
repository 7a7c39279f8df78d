package model

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/annalsdb/annals"
)

// errAborted is what a transaction returns that is not to be made.
var errAborted = errors.New("aborted")

// write draws one write.
func (m *machine) write(t *rapid.T, s *state) write {
	w := write{verb: rapid.SampledFrom([]verb{put, put, put, remove, add}).Draw(t, "verb")}
	if w.verb == add {
		w.name, w.value = rapid.SampledFrom(series).Draw(t, "series"), m.value(t)
		if rapid.Bool().Draw(t, "at") {
			w.at = micro(m.now).Add(time.Duration(rapid.IntRange(-5000, 5000).Draw(t, "at")) * 700 * time.Nanosecond)
		}
		return w
	}
	w.name = genKey.Draw(t, "key")
	if w.verb == put {
		w.value = m.value(t)
		switch rapid.IntRange(0, 7).Draw(t, "expires") {
		case 0, 1:
			w.lives, w.ttl = true, genTTL.Draw(t, "ttl")
		case 2:
			w.expires = micro(m.now).Add(genTTL.Draw(t, "expires in") + 1)
		}
	}
	switch rapid.IntRange(0, 5).Draw(t, "condition") {
	case 0:
		w.conditional, w.ifSeq = true, s.seqOf(w.name, m.now)
	case 1:
		w.conditional, w.ifSeq = true, s.keys[w.name].seq // which may have expired
	case 2:
		w.conditional, w.ifSeq = true, uint64(rapid.IntRange(0, int(m.next)).Draw(t, "if seq"))
	}
	return w
}

func (m *machine) writes(t *rapid.T, s *state) (list []write) {
	for range rapid.IntRange(1, 6).Draw(t, "writes") {
		list = append(list, m.write(t, s))
	}
	return list
}

// one makes a write through the method that is for it.
func (m *machine) one(t *rapid.T) {
	w := m.write(t, m.state)
	records, conflict := m.state.decide([]write{w}, m.next, m.now, m.wall.Load())
	var err error
	switch w.verb {
	case put:
		err = m.db.Put(w.name, []byte(w.value), w.options()...)
	case remove:
		err = m.db.Delete(w.name, w.options()...)
	case add:
		var seq uint64
		seq, err = m.db.Append(w.name, []byte(w.value), w.appendOptions()...)
		require.Equal(t, m.next, seq, "Append")
	}
	m.decided(t, err, conflict)
	m.took(records)
}

func (m *machine) decided(t *rapid.T, err error, conflict bool) {
	if conflict {
		m.sum.conflicts++
		require.ErrorIs(t, err, annals.ErrConflict)
		return
	}
	require.NoError(t, err)
}

func (m *machine) batch(t *rapid.T) {
	list := m.writes(t, m.state)
	records, conflict := m.state.decide(list, m.next, m.now, m.wall.Load())
	seq, err := m.db.Apply(batch(list))
	m.decided(t, err, conflict)
	if !conflict {
		require.Equal(t, records[len(records)-1].seq, seq, "Apply")
	}
	m.took(records)
}

// apply makes a batch that has no conditions.
func (m *machine) apply(t *rapid.T, list ...write) {
	records, _ := m.state.decide(list, m.next, m.now, m.wall.Load())
	_, err := m.db.Apply(batch(list))
	require.NoError(t, err)
	m.took(records)
}

// junk is a put of so many bytes, which the next one makes dead.
func (m *machine) junk(size int) write {
	m.serial++
	return write{verb: put, name: "b", value: fmt.Sprintf("%d%s", m.serial, strings.Repeat("f", size))}
}

// rotate fills a small segment.
func (m *machine) rotate(t *rapid.T) { m.apply(t, m.junk(4000)) }

// bury has an old segment that is alive hold a value, and a newer one that is dead take
// it away: compaction in the background rewrites the newer one alone, and must keep what
// hides the old value.
func (m *machine) bury(t *rapid.T) {
	key := keys[rapid.IntRange(0, len(keys)-2).Draw(t, "key")]
	m.serial++
	alive := write{verb: add, name: "s", value: strings.Repeat("s", 1700)}
	m.apply(t, write{verb: put, name: key, value: fmt.Sprint(m.serial)}, alive, alive)
	hides := write{verb: remove, name: key}
	if rapid.Bool().Draw(t, "expires") {
		hides = write{verb: put, name: key, value: "brief", lives: true, ttl: time.Second}
	}
	m.apply(t, hides, m.junk(3000))
	if hides.lives {
		m.wall.Add((2 * time.Hour).Microseconds())
		m.now = max(m.now, m.wall.Load()+m.lead)
		m.sum.expiries++
	}
	m.rotate(t)
	m.rotate(t)
	m.settle()
	m.reopen(t)
	m.sum.buried++
}

// update runs a transaction on what is queued already.
func (m *machine) update(t *rapid.T, queued *state, next uint64, done func()) (records []record) {
	s := queued.clone()
	abort := rapid.IntRange(0, 4).Draw(t, "abort") == 0
	err := m.db.Update(func(tx *annals.Tx) error {
		defer done()
		for range rapid.IntRange(0, 5).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "read") == 0 {
				m.read(t, tx, s, m.now)
				continue
			}
			w := m.write(t, s)
			r := w.record(m.now, m.wall.Load())
			r.seq = next + uint64(len(records))
			conflict := w.conditional && w.verb != add && s.seqOf(w.name, m.now) != w.ifSeq
			m.decided(t, m.writeTx(t, tx, w, r.seq), conflict)
			if !conflict {
				s.apply(r)
				records = append(records, r)
			}
		}
		compare(t, tx, s, m.now, "in a transaction")
		if abort {
			return errAborted
		}
		return nil
	})
	if abort {
		m.sum.aborts++
		require.ErrorIs(t, err, errAborted)
		return nil
	}
	require.NoError(t, err)
	for i := range records {
		records[i].more = i < len(records)-1
	}
	return records
}

func (m *machine) writeTx(t *rapid.T, tx *annals.Tx, w write, seq uint64) error {
	switch w.verb {
	case put:
		return tx.Put(w.name, []byte(w.value), w.options()...)
	case remove:
		return tx.Delete(w.name, w.options()...)
	}
	got, err := tx.Append(w.name, []byte(w.value), w.appendOptions()...)
	require.Equal(t, seq, got, "Append in a transaction")
	return err
}

func (m *machine) tx(t *rapid.T) { m.took(m.update(t, m.state, m.next, func() {})) }

// queue submits batches while the disk takes its time: none is visible, and yet each
// is decided by those before it, as is a transaction.
func (m *machine) queue(t *rapid.T) {
	open := m.setGate()
	defer open()
	s, next := m.state.clone(), m.next
	var commits []*annals.Commit
	var made [][]record
	var conflicts []bool
	for range rapid.IntRange(1, 4).Draw(t, "batches") {
		list := m.writes(t, s)
		records, conflict := s.decide(list, next, m.now, m.wall.Load())
		commits = append(commits, m.db.Submit(batch(list)))
		made, conflicts = append(made, records), append(conflicts, conflict)
		for _, r := range records {
			s.apply(r)
		}
		next += uint64(len(records))
	}
	if m.lazy() {
		compare(t, m.db, s, m.now, "buffered")
	} else {
		compare(t, m.db, m.state, m.now, "with writes on their way, which are not durable")
	}
	last := m.update(t, s, next, open)
	for i, c := range commits {
		seq, err := c.Wait(context.Background())
		m.decided(t, err, conflicts[i])
		if n := len(made[i]); n > 0 {
			require.Equal(t, made[i][n-1].seq, seq, "Wait")
		}
		m.took(made[i])
	}
	m.took(last)
	m.sum.queued += len(commits)
}

// read holds a random part of a view against the state.
func (m *machine) read(t *rapid.T, v view, s *state, now int64) {
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		compareKey(t, v, genKey.Draw(t, "key"), s, now, "read")
	case 1, 2:
		compareScan(t, v, genSpan.Draw(t, "span"), s, now, "read")
	case 3:
		name := rapid.SampledFrom(series).Draw(t, "series")
		compareSamples(t, v, name, genWindow(t, s.series[name]), s, "read")
	}
}

func (m *machine) look(t *rapid.T) {
	for range 5 {
		m.read(t, m.db, m.state, m.now)
	}
}

// tick moves the clock, also back.
func (m *machine) tick(t *rapid.T) {
	by := rapid.SampledFrom([]time.Duration{
		time.Microsecond, time.Second, time.Minute, time.Hour, 30 * time.Hour, -time.Second, -2 * time.Minute, -3 * time.Hour,
	}).Draw(t, "tick")
	before := len(m.state.scan(span{}, m.now))
	m.wall.Add(by.Microseconds())
	if by < 0 {
		m.sum.setBack++
	}
	m.now = max(m.now, m.wall.Load()+m.lead)
	require.Equal(t, m.now, m.db.Stats().Clock.UnixMicro(), "the store's time")
	if len(m.state.scan(span{}, m.now)) < before {
		m.sum.expiries++
	}
}

// snapshot takes one, lets go of one, or looks at one.
func (m *machine) snapshot(t *rapid.T) {
	if len(m.held) < 3 {
		s := m.db.Snapshot()
		if len(m.log) > 0 {
			require.GreaterOrEqual(t, s.Seq(), m.log[len(m.log)-1].seq, "Snapshot.Seq")
		}
		require.Less(t, s.Seq(), m.next, "Snapshot.Seq")
		m.held = append(m.held, &heldSnapshot{Snapshot: s, state: m.state.clone(), now: m.now})
		return
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(t, "snapshot")
	h := m.held[i]
	m.read(t, h, h.state, h.now)
	if rapid.Bool().Draw(t, "keep") {
		return
	}
	compare(t, h, h.state, h.now, "a snapshot")
	require.NoError(t, h.Close())
	_, err := h.Get("a")
	require.ErrorIs(t, err, annals.ErrClosed)
	m.held = append(m.held[:i], m.held[i+1:]...)
}

// watch reads the log from some record on: all of it, in order, and nothing else.
func (m *machine) watch(t *rapid.T) {
	m.sync()
	m.learnHistory()
	first := uint64(rapid.IntRange(0, int(m.next)+2).Draw(t, "from"))
	if first == 0 && !m.opts.Compaction.Off {
		first = m.history
	}
	begin := first
	if first == 0 {
		begin = m.history
	}
	want, got := from(m.log, begin), []record(nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var end error
	if len(want) == 0 && first <= m.next {
		cancel()
	}
	for r, err := range m.db.Watch(ctx, first) {
		if end = err; err != nil {
			break
		}
		if got = append(got, recordOf(r)); len(got) == len(want) {
			cancel() // whatever comes behind would come before the end
		}
	}
	m.sum.watched += len(got)
	var gone *annals.CompactedError
	switch {
	case errors.As(end, &gone) && !m.opts.Compaction.Off: // in the background, just now
		require.Greater(t, gone.First, first)
		before := m.history
		m.learnHistory() // another compaction may have ended since
		require.GreaterOrEqual(t, gone.First, before)
		require.LessOrEqual(t, gone.First, m.history)
	case begin < m.history:
		require.ErrorAs(t, end, &gone)
		require.Equal(t, m.history, gone.First)
	case first > m.next:
		require.ErrorIs(t, end, annals.ErrAhead)
	default:
		require.ErrorIs(t, end, context.Canceled)
		same(t, want, got, fmt.Sprintf("watch from %d", first))
	}
}

func (m *machine) compact(t *rapid.T) {
	m.sync()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if rapid.IntRange(0, 5).Draw(t, "cancel") == 0 {
		cancel()
		_, err := m.db.Compact(ctx, nil)
		require.ErrorIs(t, err, context.Canceled)
		return
	}
	before := m.db.Stats().Keys
	stats, err := m.db.Compact(ctx, nil)
	require.NoError(t, err)
	if stats.Inputs > 0 {
		m.sum.compacts++
		m.record(m.now)
	}
	m.jobs = m.db.Stats().Compaction.Runs // as good as, where some run in the background
	if stats.Dropped > 0 {
		m.sum.compactsThatDropped++
	}
	for _, h := range m.held {
		m.sum.snapshotsOverCompaction++
		compare(t, h, h.state, h.now, "a snapshot held over a compaction")
	}
	m.learnHistory()
	if keys := m.db.Stats().Keys; keys < before && m.opts.Compaction.Off {
		m.sum.expiredGone += before - keys
	}
}

// reopen closes the store and opens it again. The number of the next record stays.
func (m *machine) reopen(t *rapid.T) {
	m.close(m.db)
	m.synced.Store(m.next - 1)
	if m.wrote {
		m.record(m.now)
	}
	m.open()
	require.True(t, m.db.Recovery().Clean)
	m.sum.reopens++
	if m.opts.Compaction.Off {
		history, _, next := m.after()
		require.Equal(t, m.history, history, "history, after a clean close")
		require.Equal(t, m.next, next, "the next number, after a clean close")
	}
}

// crash has the machine stop in the middle of something, and goes on with what the
// disk then may hold. The recovery may crash too.
func (m *machine) crash(t *rapid.T) {
	m.arm(t)
	inside := map[string]func(*rapid.T){
		"write": m.one, "batch": m.batch, "tx": m.tx, "queue": m.queue, "rotate": m.rotate, "compact": m.compact, "reopen": m.reopen,
	}
	inside[rapid.SampledFrom(slices.Sorted(maps.Keys(inside))).Draw(t, "inside")](t)
	m.sum.crashes++
	dead := m.db
	m.fire()
	m.close(dead)
	for again := 0; again < 2 && rapid.IntRange(0, 3).Draw(t, "again") == 0; again++ {
		m.arm(t)
		m.open()
		dead = m.db
		m.fire()
		m.close(dead)
		m.sum.recoveriesCrashed++
	}
	m.open()
	if len(m.db.Recovery().Quarantined) > 0 {
		m.sum.tails++
	}
	m.follow()
}

// others reads the store as others do: beside it, from a backup, from a repaired copy.
func (m *machine) others(t *rapid.T) {
	m.sync()
	r, err := annals.OpenReader(dir, &annals.ReaderOptions{FS: m.fs, Now: m.opts.Now})
	require.NoError(t, err)
	compare(t, r, m.state, m.timeOf(r, m.recorded.Load(), "a reader"), "a reader")
	require.NoError(t, r.Close())

	report, err := annals.VerifyFS(context.Background(), m.fs, dir, nil)
	require.NoError(t, err)
	require.Empty(t, report.Problems)

	m.backups++
	to := fmt.Sprintf("/top/backup%d", m.backups)
	if rapid.IntRange(0, 2).Draw(t, "repair") == 0 && m.opts.Compaction.Off {
		_, err = annals.RepairFS(context.Background(), m.fs, dir, to, nil)
		require.NoError(t, err)
		m.copied(t, to, m.recorded.Load())
		return
	}
	require.NoError(t, m.db.Backup(context.Background(), to))
	m.copied(t, to, m.now)
}

// copied opens a copy of the store, which must hold the same, and removes it.
func (m *machine) copied(t *rapid.T, to string, recorded int64) {
	db, err := annals.Open(to, &annals.Options{FS: m.fs, Now: m.opts.Now, Compaction: annals.Compaction{Off: true}})
	require.NoError(t, err)
	compare(t, db, m.state, m.timeOf(db, recorded, "a copy"), "a copy")
	require.NoError(t, db.Close())
	m.sum.copies++
	entries, err := m.fs.ReadDir(to)
	require.NoError(t, err)
	for _, e := range entries {
		require.NoError(t, m.fs.Remove(filepath.Join(to, e.Name())))
	}
	require.NoError(t, m.fs.Remove(to))
}

// settle gives compaction in the background a chance.
func (m *machine) settle() {
	for runs, i := m.db.Stats().Compaction.Runs, 0; !m.opts.Compaction.Off && i < 10 && runs == m.db.Stats().Compaction.Runs; i++ {
		time.Sleep(100 * time.Microsecond)
	}
}

// check holds everything against the model after each action.
func (m *machine) check(t *rapid.T) {
	m.sum.steps++
	compare(t, m.db, m.state, m.now, "the store")
	st := m.db.Stats()
	require.Empty(t, st.Failed)
	require.Empty(t, st.Damage)
	if m.opts.Compaction.Off { // else it may have taken some that are about to expire
		require.GreaterOrEqual(t, st.Keys, len(m.state.scan(span{}, m.now)), "Stats.Keys")
	}
	require.LessOrEqual(t, st.Keys, len(m.state.keys), "Stats.Keys")
	if !m.lazy() {
		require.GreaterOrEqual(t, st.Durable, m.synced.Load(), "Stats.Durable")
	}
}
