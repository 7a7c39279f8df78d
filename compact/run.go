package compact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// Input is a segment to rewrite.
type Input struct {
	Footer segment.Footer
	Path   string
	R      io.ReaderAt
	Mapped []byte // the same as memory, until Run returns; it may fault. nil: there is none
	Apart  bool   // a segment that is no input holds samples between this one and the input before it
}

// Verdict says what becomes of a record.
type Verdict uint8

// The verdicts.
const (
	Keep   Verdict = iota
	Drop           // dead: a newer record of the key exists, or nothing needs its tombstone any more
	Expire         // the key's present record, expired long ago
)

var errCut = errors.New("the file is shorter than it was")

// Job is one compaction.
type Job struct {
	FS          replace.FS
	Dir         string
	Store       string
	SegmentSize int64   // of outputs
	Inputs      []Input // in the order of their first seq
	Parallel    bool    // large inputs are read on two cores, and outputs finished on another

	// Judge says what becomes of a record of an input, given by its number. It must not
	// keep l. Two calls may be made at a time, as of NewSegment.
	Judge func(input uint64, l *segment.Line) Verdict
	// NewSegment returns a number for a file.
	NewSegment func() uint64
	// Samples is called with the number of each output that holds samples, when it is
	// read again: add then with each of them, in order, and the name of its series, of
	// which neither may be kept, and done at the end. Outputs may be read two at a time.
	// It may be nil.
	Samples func(output uint64) (add func(series []byte, l *segment.Line), done func())
	// Keys is the same for outputs that hold keys, if it is not nil.
	Keys func(output uint64) (add func(key []byte, l *segment.Line), done func())
	// Pace is called after so many bytes were read or written; its error stops
	// the job. One call is made at a time.
	Pace func(ctx context.Context, bytes int) error

	shrink int // if not 0, sizes of work are divided by it, for tests
}

// Dead is a record that was left behind though nothing newer exists.
type Dead struct {
	Name string
	Seq  uint64
}

// Output is a segment that was written.
type Output struct {
	Header segment.Header
	Footer segment.Footer
}

// Result is what Run did.
type Result struct {
	Outputs []Output
	Expired []Dead
	Kept    int64 // records
	Dropped int64 // records
}

const (
	runBytes      = 32 << 20  // of lines that are in memory to be sorted, on each core
	quietBytes    = 4 << 20   // the same for a job beside which others work: it has time, they may need the memory
	sampleBytes   = 4 << 20   // of samples that are in memory until it is their turn, on each core
	streamBytes   = 128 << 10 // of lines that are read ahead from a segment in key order
	paceBytes     = 8 << 10   // how much is done between two calls of Pace, in a large job
	parallelBytes = 4 << 20   // from here on inputs are read on two cores
	finishBytes   = 1 << 20   // from here on an output is finished while the next is written
)

// Run does steps 1 to 4 of the package comment. After an error no output is
// left. A damaged input is a *segment.CorruptError.
func Run(ctx context.Context, job *Job) (_ *Result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRun(ctx, job)
	defer func() {
		if err != nil {
			cancel()
			err = errors.Join(err, r.discard())
		}
	}()
	runs, later, err := r.look()
	if err != nil {
		return nil, err
	}
	sorted, err := r.gather(later)
	if err != nil {
		return nil, err
	}
	if err := r.lanes[0].endOutput(); err != nil {
		return nil, err
	}
	if err := r.mergeAll(append(runs, sorted...)); err != nil {
		return nil, err
	}
	if err := r.removeSpills(); err != nil {
		return nil, err
	}
	if n := r.copied(); n != r.tally.kept {
		return nil, fmt.Errorf("%d records were to be copied and %d were", r.tally.kept, n)
	}
	if len(r.outputs()) > 0 {
		if err := job.FS.SyncDir(job.Dir); err != nil {
			// The directory is the log's too, and only one caller is told.
			return nil, &replace.SyncError{Path: job.Dir, Err: err}
		}
	}
	return r.result(), nil
}

// run is a Job at work.
type run struct {
	*Job
	ctx      context.Context
	from     []uint64 // the inputs' numbers
	parallel bool
	budget   int   // of lines in memory, to be sorted
	samples  int   // of lines in memory, to be copied
	stream   int   // of lines in memory, of a segment in key order
	large    int64 // from here on an output is finished beside the next
	unit     int   // how much is done between two calls of Pace
	pacing   sync.Mutex
	lanes    []*lane
	spills   []*spill

	mu    sync.Mutex
	tally tally
}

// tally counts what became of the records.
type tally struct {
	kept, dropped int64
	expired       []Dead
}

func newRun(ctx context.Context, job *Job) *run {
	shrink := max(job.shrink, 1)
	r := &run{Job: job, ctx: ctx, budget: runBytes / shrink, samples: sampleBytes / shrink, stream: streamBytes / shrink, large: finishBytes / int64(shrink)}
	r.lanes = []*lane{{run: r, size: job.SegmentSize}}
	total := int64(0)
	for i := range job.Inputs {
		total += job.Inputs[i].Footer.Bytes
		r.from = append(r.from, job.Inputs[i].Footer.Segment)
	}
	if !job.Parallel {
		r.budget = quietBytes / shrink
	}
	r.parallel = job.Parallel && total >= parallelBytes/int64(shrink)
	r.unit = int(min(paceBytes, total/64)) // a small job can be stopped too
	return r
}

// outputs are those of all lanes: of keys in their order.
func (r *run) outputs() (all []*output) {
	for _, l := range r.lanes {
		all = append(all, l.outputs...)
	}
	return all
}

func (r *run) copied() (records int64) {
	for _, o := range r.outputs() {
		records += o.wrote.records
	}
	return records
}

func (r *run) result() *Result {
	result := &Result{Expired: r.tally.expired, Kept: r.tally.kept, Dropped: r.tally.dropped}
	// Cores come across them in any order.
	slices.SortFunc(result.Expired, func(a, b Dead) int { return int(int64(a.Seq) - int64(b.Seq)) })
	for _, o := range r.outputs() {
		result.Outputs = append(result.Outputs, o.Output)
	}
	return result
}

// meter calls Pace now and then. Each goroutine has its own.
type meter struct {
	*run
	bytes int
}

func (m *meter) add(bytes int) error {
	if m.bytes += bytes; m.bytes < m.unit {
		return nil
	}
	return m.flush()
}

func (m *meter) flush() error {
	n := m.bytes
	m.bytes = 0
	if err := m.ctx.Err(); err != nil {
		return err
	}
	m.pacing.Lock()
	defer m.pacing.Unlock()
	return m.Pace(m.ctx, n)
}

// check is step 1 for one input: it reads all of it, and calls visit with each
// record that is to be kept.
func (r *run) check(in *Input, visit func(*segment.Line) error) error {
	m := meter{run: r}
	var t tally
	end := int64(0) // of the last good record
	problems, err := segment.CheckSealed(in.R, in.Footer.Size(), in.Path, r.Store, in.Footer, func(l *segment.Line) error {
		end = l.End()
		if err := m.add(len(l.Bytes)); err != nil {
			return err
		}
		switch r.Judge(in.Footer.Segment, l) {
		case Expire:
			t.expired = append(t.expired, Dead{Name: l.View.Name(), Seq: l.View.Seq})
			fallthrough
		case Drop:
			t.dropped++
			return nil
		}
		t.kept++
		return visit(l)
	})
	if err == nil {
		err = m.flush()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &segment.CorruptError{Path: in.Path, Offset: end, Reason: errCut.Error()}
	}
	if err != nil {
		return fmt.Errorf("compacting %q: %w", in.Path, err)
	}
	if len(problems) > 0 {
		return problems[0]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tally.kept += t.kept
	r.tally.dropped += t.dropped
	r.tally.expired = append(r.tally.expired, t.expired...)
	return nil
}

// discard removes the outputs of a job that failed.
func (r *run) discard() (err error) {
	for _, l := range r.lanes {
		err = errors.Join(err, l.join())
	}
	err = errors.Join(err, r.removeSpills())
	for _, o := range r.outputs() {
		err = errors.Join(err, o.writer.Discard())
	}
	return err
}
