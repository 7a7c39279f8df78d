package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// Input is a segment to rewrite.
type Input struct {
	Footer segment.Footer
	Path   string
	R      io.ReaderAt
	Apart  bool // a segment that is no input holds samples between this one and the input before it
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

	// Judge says what becomes of a record of an input. It must not keep v.
	Judge func(v *segment.View, name string) Verdict
	// NewSegment returns a number for an output.
	NewSegment func() uint64
	// Pace is called after so many bytes were read or written; its error stops
	// the job.
	Pace func(ctx context.Context, bytes int) error
}

// Record is one that was copied, or an expired one that was left behind.
type Record struct {
	Kind    segment.Kind
	Name    string
	Seq     uint64
	Expires int64
	At      int64
	Segment uint64 // where it lies now
	Offset  int64
	Len     int

	input int // of a record that is yet to be copied: where it lies
}

// Output is a segment that was written.
type Output struct {
	Header  segment.Header
	Footer  segment.Footer
	Records []Record
}

// Result is what Run did.
type Result struct {
	Outputs []Output
	Expired []Record // left behind, though nothing newer exists
	Kept    int64    // records
	Dropped int64    // records
}

// Run does steps 1 to 4 of the package comment. After an error no output is
// left. A damaged input is a *segment.CorruptError.
func Run(ctx context.Context, job *Job) (_ *Result, err error) {
	r := &run{Job: job, ctx: ctx}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.discard())
		}
	}()
	for i := range job.Inputs {
		if err := r.read(i); err != nil {
			return nil, err
		}
	}
	if err := r.endOutput(); err != nil {
		return nil, err
	}
	if err := r.copyKeys(); err != nil {
		return nil, err
	}
	for i := range r.result.Outputs {
		if err := r.recheck(&r.result.Outputs[i]); err != nil {
			return nil, err
		}
	}
	if len(r.result.Outputs) > 0 {
		if err := job.FS.SyncDir(job.Dir); err != nil {
			// The directory is the log's too, and only one caller is told.
			return nil, &replace.SyncError{Path: job.Dir, Err: err}
		}
	}
	return &r.result, nil
}

// run is a Job at work.
type run struct {
	*Job
	ctx     context.Context
	keys    []Record // live puts and deletes, to be copied in key order
	writer  *Writer
	written []*Writer
	result  Result
}

// read is step 1 for one input. Samples are copied at once, since they lie in
// the right order; keys are noted.
func (r *run) read(i int) error {
	in := &r.Inputs[i]
	if in.Apart {
		if err := r.endOutput(); err != nil {
			return err
		}
	}
	end := int64(0) // of the last good record
	problems, err := segment.CheckSealed(in.R, in.Footer.Size(), in.Path, r.Store, in.Footer, func(l *segment.Line) error {
		end = l.End()
		if err := r.pace(len(l.Bytes)); err != nil {
			return err
		}
		return r.take(i, l)
	})
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &segment.CorruptError{Path: in.Path, Offset: end, Reason: errCut.Error()}
	}
	if err != nil {
		return fmt.Errorf("compacting %q: %w", in.Path, err)
	}
	if len(problems) > 0 {
		return problems[0]
	}
	return nil
}

func (r *run) pace(bytes int) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	return r.Pace(r.ctx, bytes)
}

func (r *run) take(input int, l *segment.Line) error {
	v := &l.View
	rec := Record{Kind: v.Kind, Name: v.Name(), Seq: v.Seq, Expires: v.Expires, At: v.At, Offset: l.Offset, Len: int(l.Size), input: input}
	switch r.Judge(v, rec.Name) {
	case Expire:
		r.result.Expired = append(r.result.Expired, rec)
		fallthrough
	case Drop:
		r.result.Dropped++
		return nil
	}
	r.result.Kept++
	if v.Kind == segment.Sample {
		return r.add(rec, segment.BySeq, l.Bytes)
	}
	r.keys = append(r.keys, rec)
	return nil
}

// copyKeys copies the keys in their order. Each line is checked once more: the
// input may have gone bad since it was read.
func (r *run) copyKeys() error {
	slices.SortFunc(r.keys, func(a, b Record) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Seq, b.Seq)) })
	var line []byte
	for i := range r.keys {
		rec := r.keys[i]
		in := &r.Inputs[rec.input]
		line = slices.Grow(line[:0], rec.Len)[:rec.Len]
		n, err := in.R.ReadAt(line, rec.Offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("compacting %q at offset %d: %w", in.Path, rec.Offset, err)
		}
		v, err := segment.DecodeLine(line[:n])
		if n < len(line) {
			err = errCut
		} else if err == nil && (v.Seq != rec.Seq || !v.NameIs(rec.Name)) {
			err = errors.New("another record lies here than a moment ago")
		}
		if err != nil {
			return &segment.CorruptError{Path: in.Path, Offset: rec.Offset, FirstSeq: rec.Seq, LastSeq: rec.Seq, Reason: err.Error()}
		}
		if err := r.add(rec, segment.ByKey, line); err != nil {
			return err
		}
		if err := r.pace(rec.Len); err != nil {
			return err
		}
	}
	r.keys = nil
	return r.endOutput()
}

// add copies a line to the present output, or begins the next.
func (r *run) add(rec Record, order segment.Order, line []byte) error {
	if r.writer != nil && r.writer.Size()+int64(len(line)) > r.SegmentSize && r.writer.footer.Records > 0 {
		if err := r.endOutput(); err != nil {
			return err
		}
	}
	if r.writer == nil {
		if err := r.beginOutput(order); err != nil {
			return err
		}
	}
	offset, err := r.writer.Add(rec.Seq, line)
	out := &r.result.Outputs[len(r.result.Outputs)-1]
	rec.Segment, rec.Offset = out.Header.Segment, offset
	out.Records = append(out.Records, rec)
	return err
}

func (r *run) beginOutput(order segment.Order) (err error) {
	h := segment.Header{Store: r.Store, Segment: r.NewSegment(), Order: order}
	for i := range r.Inputs {
		h.From = append(h.From, r.Inputs[i].Footer.Segment)
	}
	if r.writer, err = NewWriter(r.FS, r.Dir, h); err != nil {
		return err
	}
	r.written = append(r.written, r.writer)
	r.result.Outputs = append(r.result.Outputs, Output{Header: h})
	return nil
}

// endOutput is step 2 for the present output.
func (r *run) endOutput() (err error) {
	if r.writer == nil {
		return nil
	}
	out := &r.result.Outputs[len(r.result.Outputs)-1]
	out.Footer, err = r.writer.Finish()
	r.writer = nil
	return err
}

// recheck is step 3: the output is read as Open would read it, and must hold the
// records that were copied, one by one.
func (r *run) recheck(out *Output) (err error) {
	path := r.path(out)
	file, err := r.FS.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	i := 0
	problems, err := segment.CheckSealed(file, info.Size(), path, r.Store, out.Footer, func(l *segment.Line) error {
		if i == len(out.Records) || out.Records[i].Seq != l.View.Seq || !l.View.NameIs(out.Records[i].Name) || out.Records[i].Offset != l.Offset {
			return fmt.Errorf("%q at offset %d: the copy does not hold the record that was copied", path, l.Offset)
		}
		i++
		return r.pace(len(l.Bytes))
	})
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		// Not a CorruptError: nothing lists the copy, the store is as it was.
		return fmt.Errorf("the copy is not what was written: %v", problems[0])
	}
	if i != len(out.Records) {
		return fmt.Errorf("%q: the copy holds %d of %d records", path, i, len(out.Records))
	}
	return nil
}

func (r *run) path(out *Output) string {
	for _, w := range r.written {
		if w.footer.Segment == out.Header.Segment {
			return w.path
		}
	}
	panic("compact: output without a file")
}

// discard removes the outputs of a job that failed.
func (r *run) discard() (err error) {
	for _, w := range r.written {
		err = errors.Join(err, w.Discard())
	}
	return err
}
