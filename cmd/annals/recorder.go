package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/annalsdb/annals"
)

// A recorder asks its sources, each in its own time, and writes what they say. Between
// the two is a queue in memory, so that neither a slow source nor a full disk stops a
// source:
//
//	beats, commands, input -> queue -> write -> the store
type recorder struct {
	store      *annals.Store
	beats      []*beat       // of this machine
	commands   []*execSource // run anew each time
	input      io.Reader     // whose lines go to series; nil for none
	series     string
	intake     *intake       // of items that other programs drop; nil for none
	queueLimit int           // bytes that may wait for room on the disk; 0 is 16 MiB
	retry      time.Duration // how often to look for that room; 0 is a second

	warn   func(format string, args ...any)
	onTick func(tick)                        // after each commit; nil for nobody
	onWait func(waiting, dropped int)        // while the disk is full; nil for nobody
	clock  func() (time.Time, time.Duration) // the wall clock, and a time that nobody can set; nil for the system's

	queue *queue
	n     int // commits of measurements, of write alone

	mu struct {
		sync.Mutex
		troubles map[string]*trouble // by series
		wall     time.Time           // of the last look at the clock
		up       time.Duration
	}
}

// A beat measures some sources at equal intervals. What they say at one moment is one
// commit.
type beat struct {
	every   time.Duration
	sources []source
}

// A moment is what becomes one commit: the samples of one time.
type moment struct {
	at      time.Time
	samples []taken
	gap     *gap // instead of samples: that some are missing here
	bytes   int
}

// taken is one sample on its way, and how it is shown.
type taken struct {
	series string
	value  []byte
	text   string
}

// A tick is a moment that was written.
type tick struct {
	n     int // from 1
	at    time.Time
	shown []string
	size  int    // bytes of its values
	count int    // of its samples
	seq   uint64 // of its last sample
}

// addSource adds a source to the beat of its interval.
func (r *recorder) addSource(every time.Duration, s source) {
	for _, b := range r.beats {
		if b.every == every {
			b.sources = append(b.sources, s)
			return
		}
	}
	r.beats = append(r.beats, &beat{every, []source{s}})
}

// run records until ctx ends, which is no error, or until the input does and there is
// nothing else to record.
func (r *recorder) run(ctx context.Context) error {
	if r.clock == nil {
		start := time.Now()
		r.clock = func() (time.Time, time.Duration) { now := time.Now(); return now, now.Sub(start) }
	}
	if r.queueLimit == 0 {
		r.queueLimit = 16 << 20
	}
	if r.retry == 0 {
		r.retry = time.Second
	}
	r.queue = newQueue(r.queueLimit)
	r.mu.troubles = map[string]*trouble{}
	r.mu.wall, r.mu.up = r.clock()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sources, writer sync.WaitGroup
	var failure error
	writer.Go(func() {
		if failure = r.write(); failure != nil {
			cancel(failure)
		}
	})
	for _, b := range r.beats {
		sources.Go(func() { r.runBeat(ctx, b, cancel) })
	}
	for _, c := range r.commands {
		sources.Go(func() { r.runCommand(ctx, c) })
	}
	if r.input != nil {
		sources.Go(func() { r.runInput(ctx) })
	}
	if r.intake != nil {
		sources.Go(func() { r.runIntake(ctx, cancel) })
	}
	sources.Wait()
	r.queue.close()
	writer.Wait()
	if failure != nil {
		return failure
	}
	if cause := context.Cause(ctx); errors.Is(cause, errNothingMeasured) || errors.Is(cause, annals.ErrFailed) {
		return cause
	}
	return nil
}

var errNothingMeasured = errors.New("none of the sources could measure anything")

// runBeat measures until ctx ends.
func (r *recorder) runBeat(ctx context.Context, b *beat, fail func(error)) {
	r.measure(b, r.now()) // gives the rates something to count from
	ticker := time.NewTicker(b.every)
	defer ticker.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if ctx.Err() != nil { // both were ready
			return
		}
		m := r.measure(b, r.now())
		switch {
		case len(m.samples) > 0:
			r.queue.put(m)
		case first && len(r.beats) == 1 && len(r.commands) == 0 && r.input == nil && r.intake == nil:
			fail(errNothingMeasured)
		}
	}
}

// measure asks the sources of a beat for a sample each. One that fails is left out.
func (r *recorder) measure(b *beat, now time.Time) moment {
	m := moment{at: now}
	for _, source := range b.sources {
		measured, err := source.measure(now)
		if errors.Is(err, errFirst) {
			continue
		}
		var value []byte
		if err == nil {
			value, err = json.Marshal(measured)
		}
		if r.tell(source.series, b.every, err); err == nil {
			m.add(source.series, value, measured.String())
		}
	}
	return m
}

func (m *moment) add(series string, value []byte, text string) {
	m.samples = append(m.samples, taken{series, value, text})
	m.bytes += len(series) + len(value) + sampleOverhead
}

// sampleOverhead is about what a sample in the queue takes besides its name and value.
const sampleOverhead = 128

// runCommand runs a command again and again until ctx ends.
func (r *recorder) runCommand(ctx context.Context, c *execSource) {
	ticker := time.NewTicker(c.every)
	defer ticker.Stop()
	for {
		values, err := c.run(ctx)
		if ctx.Err() != nil {
			return // which the command was killed for
		}
		r.tell(c.series, c.every, err)
		m := moment{at: r.now()}
		for _, value := range values {
			m.add(c.series, value, shown(c.series, value))
		}
		if len(values) > 0 {
			r.queue.put(m)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// runInput makes each line of the input a sample, until it or ctx ends.
func (r *recorder) runInput(ctx context.Context) {
	lines := newLineReader(interruptible(ctx, r.input))
	for {
		line, err := lines.nextSample()
		switch {
		case ctx.Err() != nil:
			return
		case err == io.EOF:
			if len(r.beats)+len(r.commands) > 0 || r.intake != nil {
				r.warn("standard input has ended; nothing more comes to %s", printable(r.series))
			}
			return
		case err != nil:
			r.warn("standard input: %s; nothing more comes to %s", plain(err.Error()), printable(r.series))
			return
		case len(line) > maxInputLine:
			r.tell(r.series, 0, fmt.Errorf("line %d of standard input has %d bytes, more than %d", lines.number, len(line), maxInputLine))
			continue
		}
		r.tell(r.series, 0, nil)
		m := moment{at: r.now()}
		m.add(r.series, bytes.Clone(line), shown(r.series, line))
		r.queue.putWaiting(ctx, m)
	}
}

// runIntake takes in items until ctx ends. They don't pass through the queue: what is
// not ingested waits in the spool.
func (r *recorder) runIntake(ctx context.Context, fail func(error)) {
	const again = time.Second
	for ctx.Err() == nil {
		err := r.intake.run(ctx, true, 200*time.Millisecond)
		if errors.Is(err, annals.ErrFailed) {
			fail(err)
			return
		}
		r.tell("spool", again, err)
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// maxInputLine is the largest value that a store takes by default.
const maxInputLine = 16 << 20

// shown is a sample as text on a status line.
func shown(series string, value []byte) string {
	const most = 24
	text := string(value[:min(len(value), most)])
	if len(value) > most {
		text += "…"
	}
	return printable(series) + " " + plain(text)
}

// eventSeries is the series of what happens to the recorder itself.
const eventSeries = "annals.record"

// now looks at the clock. One that was set back is told and recorded; it changes
// nothing: samples stay in the order in which they came.
func (r *recorder) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	wall, up := r.clock()
	passed := up - r.mu.up
	back := passed - wall.Round(0).Sub(r.mu.wall.Round(0)) // Round takes Go's own second clock off
	r.mu.wall, r.mu.up = wall, up
	// A clock that is slewed to the right time loses up to a two thousandth.
	if back > max(100*time.Millisecond, passed/1000) {
		r.warn("the clock was set back by %s, to %s; samples stay in the order in which they come", back.Round(time.Millisecond), wall.Format(time.RFC3339))
		m := moment{at: wall}
		m.add(eventSeries, fmt.Appendf(nil, `{"event":"clock","back_s":%.3f}`, back.Seconds()), "clock set back")
		r.queue.put(m)
	}
	return wall
}

// trouble is what is known of a source that failed.
type trouble struct {
	failures int           // since it worked last; 0 if it works
	said     bool          // that it fails now
	text     string        // of the last failure that was said
	told     time.Duration // when
}

// tellAgain is how long the same failure of a source that comes and goes is not told
// again.
const tellAgain = 10 * time.Minute

// tell says once that a source fails, and once that it works again.
func (r *recorder) tell(series string, every time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.mu.troubles[series]
	if t == nil {
		if err == nil {
			return
		}
		t = &trouble{}
		r.mu.troubles[series] = t
	}
	if err == nil {
		if t.said {
			r.warn("%s is recorded again; failures: %d", printable(series), t.failures)
		}
		t.failures, t.said = 0, false
		return
	}
	t.failures++
	text := failureText(err)
	if t.failures > 1 || text == t.text && r.mu.up-t.told < tellAgain {
		return
	}
	t.said, t.text, t.told = true, text, r.mu.up
	if every > 0 {
		text += fmt.Sprintf("; it is tried again every %s", every)
	}
	r.warn("no %s is recorded while this lasts: %s", printable(series), text)
}

// write writes what comes through the queue until that is closed and empty. A full
// disk is waited out, which is told once, and so is its end: that all is written which
// waited, since a little room may be left on a full disk.
func (r *recorder) write() error {
	owed := 0 // moments that waited when the disk was found full, and are not written yet
	for {
		moments, closed := r.queue.next()
		if len(moments) == 0 && closed {
			return nil
		}
		written, err := r.commit(moments)
		r.queue.done(written, isFull(err))
		switch {
		case err == nil && owed > 0:
			if owed -= written; owed <= 0 {
				_, dropped := r.queue.waiting(true)
				r.warn("there is room again; %d samples were dropped", dropped)
			}
		case err == nil:
		case !isFull(err):
			return err
		default:
			waiting, dropped := r.queue.waiting(owed == 0)
			if closed {
				return fmt.Errorf("%d samples could not be written, and %d were dropped before: %w", waiting, dropped, err)
			}
			if owed == 0 {
				r.warn("the disk is full, nothing is recorded until there is room: %s", failureText(err))
			}
			owed = max(owed-written, len(moments)-written)
			if r.onWait != nil {
				r.onWait(waiting, dropped)
			}
			r.queue.pause(r.retry)
		}
	}
}

// commit writes moments in order, each a commit of its own, and returns how many it
// has written.
func (r *recorder) commit(moments []moment) (written int, err error) {
	commits := make([]*annals.Commit, len(moments))
	var batch annals.Batch
	for i := range moments {
		batch.Reset()
		moments[i].addTo(&batch)
		if i > 0 {
			batch.After(commits[i-1])
		}
		commits[i] = r.store.Submit(&batch)
	}
	for i := range moments {
		seq, err := commits[i].Wait(context.Background())
		if err != nil {
			return i, err
		}
		r.n++
		if r.onTick != nil {
			r.onTick(moments[i].tick(r.n, seq))
		}
	}
	return len(moments), nil
}

func (m *moment) addTo(b *annals.Batch) {
	if m.gap != nil {
		b.Append(eventSeries, m.gap.value(), annals.At(m.gap.last))
		return
	}
	for _, s := range m.samples {
		b.Append(s.series, s.value, annals.At(m.at))
	}
}

func (m *moment) tick(n int, seq uint64) tick {
	t := tick{n: n, at: m.at, count: len(m.samples), seq: seq}
	if m.gap != nil {
		t.at, t.count, t.shown = m.gap.last, 1, []string{fmt.Sprintf("%d dropped", m.gap.samples)}
	}
	for _, s := range m.samples {
		t.shown = append(t.shown, s.text)
		t.size += len(s.value)
	}
	return t
}
