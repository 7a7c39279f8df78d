package compact

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"runtime"

	"github.com/annalsdb/annals/segment"
)

// output is an Output that is being made.
type output struct {
	Output
	writer *Writer
	wrote  digest
}

// digest stands for the records of an output: which they are, and where each of
// them lies. Two that are equal are of the same records, but for one chance in
// 2^64.
type digest struct {
	records int64
	seed    maphash.Seed
	sum     uint64
	buf     []byte
}

// add makes a sum of the one before and of the next record.
func (d *digest) add(offset int64, seq uint64, name []byte) {
	b := binary.LittleEndian.AppendUint64(d.buf[:0], d.sum)
	b = binary.LittleEndian.AppendUint64(b, uint64(offset))
	b = binary.LittleEndian.AppendUint64(b, seq)
	d.buf = append(b, name...)
	d.sum = maphash.Bytes(d.seed, d.buf)
	d.records++
}

// lane is where outputs are made, one behind the other. A run has one, or two of which
// the first makes those of the lesser keys, and all of samples.
type lane struct {
	*run
	size    int64 // of its outputs
	outputs []*output
	out     *output // the one that is being written
	ending  endings
}

// add copies a line to the present output, or begins the next.
func (r *lane) add(m *meter, order segment.Order, seq uint64, name, bytes []byte) error {
	if r.out != nil && r.out.writer.Size()+int64(len(bytes)) > r.size {
		if err := r.endOutput(); err != nil {
			return err
		}
	}
	if r.out == nil {
		if err := r.beginOutput(order); err != nil {
			return err
		}
	}
	offset, err := r.out.writer.Add(seq, bytes)
	if err != nil {
		return err
	}
	r.out.wrote.add(offset, seq, name)
	return m.add(len(bytes))
}

func (r *lane) beginOutput(order segment.Order) error {
	h := segment.Header{Store: r.Store, Segment: r.NewSegment(), Order: order, From: r.from}
	w, err := NewWriter(r.FS, r.Dir, h)
	if err != nil {
		return err
	}
	if r.parallel {
		w.hastened()
	}
	r.out = &output{Output: Output{Header: h}, writer: w, wrote: digest{seed: maphash.MakeSeed()}}
	r.outputs = append(r.outputs, r.out)
	return nil
}

// endings are outputs that are being finished beside the one that is written.
type endings struct {
	running []chan error
}

// maxEndings is how many: one waits for the disk while another is read again. Of two
// lanes each has one.
const maxEndings = 4

// endOutput ends the present output. A large one is finished on another core
// while the next is written.
func (r *lane) endOutput() error {
	o := r.out
	r.out = nil
	if o == nil {
		return nil
	}
	if !r.parallel || o.writer.Size() < r.large {
		return r.finish(o)
	}
	if e := &r.ending; len(e.running) == maxEndings/len(r.lanes) {
		err := <-e.running[0]
		e.running = e.running[1:]
		if err != nil {
			r.join()
			return err
		}
	}
	done := make(chan error, 1)
	r.ending.running = append(r.ending.running, done)
	go func() { done <- r.finish(o) }()
	runtime.Gosched() // it is to wait for the disk now, not when this core is free
	return nil
}

// join waits for the outputs that are being finished.
func (r *lane) join() (err error) {
	for _, done := range r.ending.running {
		err = errors.Join(err, <-done)
	}
	r.ending.running = nil
	return err
}

// finish is steps 2 and 3 for one output.
func (r *run) finish(o *output) (err error) {
	if o.Footer, err = o.writer.Finish(); err != nil {
		return err
	}
	return r.recheck(o)
}

// recheck is step 3: the output is read as Open would read it, and must hold the
// records that were copied, one by one.
func (r *run) recheck(o *output) (err error) {
	path := filepath.Join(r.Dir, segment.Name(o.Header.Segment))
	file, err := r.FS.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	found := digest{seed: o.wrote.seed}
	var name []byte
	note, done := func([]byte, *segment.Line) {}, func() {}
	switch {
	case r.Samples != nil && o.Header.Order == segment.BySeq:
		note, done = r.Samples(o.Header.Segment)
	case r.Keys != nil && o.Header.Order == segment.ByKey:
		note, done = r.Keys(o.Header.Segment)
	}
	m := meter{run: r}
	problems, err := segment.CheckSealed(file, info.Size(), path, r.Store, o.Footer, func(l *segment.Line) error {
		name = l.View.AppendName(name[:0])
		found.add(l.Offset, l.View.Seq, name)
		note(name, l)
		return m.add(len(l.Bytes))
	})
	if err == nil {
		err = m.flush()
	}
	done()
	switch {
	case err != nil:
		return err
	case len(problems) > 0:
		// Not a CorruptError: nothing lists the copy, the store is as it was.
		return fmt.Errorf("the copy is not what was written: %v", problems[0])
	case found.records != o.wrote.records || found.sum != o.wrote.sum:
		return fmt.Errorf("%q: the copy does not hold the records that were copied", path)
	}
	return nil
}
