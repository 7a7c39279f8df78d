package annals

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/annalsdb/annals/segment"
)

// judge decides which files are the store, and sorts their records by number.
func (r *repairer) judge() error {
	r.identify()
	r.match()
	if r.trusted {
		r.judgeListed()
	} else {
		r.judgeUnlisted()
	}
	r.sort()
	if !r.trusted {
		r.leaveOutCopied()
	}
	if err := r.settle(); err != nil {
		return err
	}
	for _, f := range r.files {
		if f.out != "" {
			r.leaveOut(f.path, f.out)
			continue
		}
		r.manifest.Next = max(r.manifest.Next, min(f.number, maxNumber)+1)
	}
	return nil
}

// identify finds out which store this is: MANIFEST says so, else most headers.
// Files of another one are left out.
func (r *repairer) identify() {
	if r.manifest.Store == "" {
		votes := map[string]int{}
		for _, f := range r.files {
			if f.header != nil {
				votes[f.header.Store]++
			}
		}
		for _, f := range r.files { // of as many, the first
			if f.header != nil && votes[f.header.Store] > votes[r.manifest.Store] {
				r.manifest.Store = f.header.Store
			}
		}
	}
	for _, f := range r.files {
		switch {
		case f.header != nil && f.header.Store != r.manifest.Store:
			f.out = fmt.Sprintf("it belongs to store %s, this one is %s", f.header.Store, r.manifest.Store)
		case f.header == nil && f.number > maxNumber:
			f.out = "no segment has that number"
		case f.records == 0 && len(f.bad) == 0 && f.header == nil && f.size == 0:
			f.bad = append(f.bad, badRegion{reason: "the file is empty, the header is missing"})
		case f.header == nil && f.records > 0 && (len(f.bad) == 0 || f.bad[0].offset > 0):
			f.bad = slices.Insert(f.bad, 0, badRegion{before: f.first, reason: "the header is missing"})
		}
	}
}

// match gives each file what MANIFEST says of it, and notices a MANIFEST that is
// older than the log: a file as first written, which it does not list, holds a
// record that it says does not exist yet.
func (r *repairer) match() {
	listed := map[uint64]*segment.Footer{}
	for i := range r.manifest.Sealed {
		listed[r.manifest.Sealed[i].Segment] = &r.manifest.Sealed[i]
	}
	for _, f := range r.files {
		f.listed = listed[f.number]
		if f.footer != nil && f.footer.Segment != f.number {
			f.footer = nil // of another file
		}
		if r.trusted && f.out == "" && f.header != nil && f.header.From == nil && f.listed == nil && f.number != r.manifest.Open && f.last >= r.manifest.Seq {
			r.trusted = false
			r.damaged(&CorruptError{
				Path: r.path(manifestName), FirstSeq: r.manifest.Seq, LastSeq: f.last,
				Reason: fmt.Sprintf("it is older than the log: segment %d, which it does not list, holds record %d", f.number, f.last),
			})
		}
	}
}

// judgeListed takes what a good MANIFEST lists. All else is a leftover, and must
// stay out: a compaction may have dropped a delete, with what it deleted, while one
// of its inputs, with the deleted value, is still there.
//
// But a leftover may give back what a listed segment has lost, where the numbers
// prove that it was there: those of a segment without gaps.
func (r *repairer) judgeListed() {
	for _, f := range r.files {
		switch {
		case f.out != "":
		case f.listed != nil || f.number == r.manifest.Open:
			if f.header == nil { // then its records must prove where they belong
				f.from = r.begins
				if f.listed != nil {
					f.from, f.to = f.listed.First, f.listed.Last
				}
			}
		default:
			f.out = "MANIFEST does not list it: interrupted work has left it"
			f.donor = f.header != nil
		}
	}
	r.keep(func(s *savedRecord, f *repairFile) bool {
		return f.out == "" || f.donor && r.belongs(s.seq, f)
	})
}

// belongs tells whether a record of a leftover is known to have been in a listed
// segment.
func (r *repairer) belongs(seq uint64, f *repairFile) bool {
	if f.header.Order == segment.Written && r.manifest.Open != 0 && f.header.MadeFrom(r.manifest.Open) {
		return seq >= r.manifest.Seq // a copy of the open one
	}
	return slices.ContainsFunc(r.manifest.Sealed, func(l segment.Footer) bool {
		return l.First <= seq && seq <= l.Last && dense(&l)
	})
}

// dense tells whether a segment holds every number of its range.
func dense(f *segment.Footer) bool { return f.Last-f.First+1 == f.Records }

// judgeUnlisted decides without a good MANIFEST what it would have listed.
//
// A compaction removes its inputs only once MANIFEST lists its outputs. So if an
// input is missing the outputs live, and what is left of the inputs must stay out:
// it may hold a value whose delete was in the input that is gone, and was dropped.
// If all inputs are there the compaction may not have come to its end, and its
// outputs may be half of what they should be. Then inputs and outputs are taken
// together: that is right in either case, since outputs hold nothing but copies,
// and every delete that was dropped is still there in an input.
//
// What was the input of another job lived, so the job that made it had ended: its
// own inputs are out.
//
// A copy that recovery made, and ended, is all that counts of what it was made
// from: what lies behind was cut off, and nobody was promised it.
//
// Not seen is the input of a compaction whose outputs are gone, through another
// compaction, unless one of its records lives on: see leaveOutCopied.
func (r *repairer) judgeUnlisted() {
	byNumber := map[uint64]*repairFile{}
	for _, f := range r.files {
		if f.out == "" {
			byNumber[f.number] = f
		}
	}
	inputs := map[uint64]bool{}
	ended := map[*repairFile]bool{} // jobs that have reached MANIFEST, by output
	for _, f := range byNumber {
		if f.header == nil {
			continue
		}
		for _, n := range f.header.From {
			inputs[n] = true
			from := byNumber[n]
			switch {
			case f.header.Compacted():
				ended[f] = ended[f] || from == nil
			case from != nil && f.footer != nil:
				from.to = min(from.to, f.footer.Last)
			}
		}
	}
	for _, f := range byNumber {
		if f.header == nil || !f.header.Compacted() {
			continue
		}
		if f.copies = !ended[f] && !inputs[f.number]; f.copies {
			continue
		}
		for _, n := range f.header.From {
			if from := byNumber[n]; from != nil {
				from.out = fmt.Sprintf("segment %d was made of it, and is all that counts", f.number)
			}
		}
	}
	r.keep(func(_ *savedRecord, f *repairFile) bool { return f.out == "" })
}

// keep lets go of all records but those that ok is true of, and that their file is
// believed to hold.
func (r *repairer) keep(ok func(*savedRecord, *repairFile) bool) {
	r.saved = slices.DeleteFunc(r.saved, func(s savedRecord) bool {
		f := r.files[s.file]
		return s.seq < f.from || s.seq > f.to || !ok(&s, f)
	})
}

// sort orders records by number. Of those with one number the first is the best:
// that of a file with a header goes before others, of the store before leftovers,
// of a later file before earlier ones.
func (r *repairer) sort() {
	worth := func(f *repairFile) (n int) {
		if f.header == nil {
			n += 2
		}
		if f.donor {
			n++
		}
		return n
	}
	slices.SortFunc(r.saved, func(a, b savedRecord) int {
		if a.seq != b.seq || a.file == b.file {
			return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.offset, b.offset))
		}
		f, g := r.files[a.file], r.files[b.file]
		return cmp.Or(cmp.Compare(worth(f), worth(g)), cmp.Compare(g.number, f.number), cmp.Compare(g.name, f.name))
	})
}

// twins calls fn with all records that have the number of the one before them, and
// that one, and takes out those for which it is false.
func (r *repairer) twins(fn func(first, other *savedRecord) (keep bool, err error)) (err error) {
	n := 0
	for i := range r.saved {
		keep := true
		if n > 0 && r.saved[n-1].seq == r.saved[i].seq {
			if keep, err = fn(&r.saved[n-1], &r.saved[i]); err != nil {
				return err
			}
		}
		if keep {
			r.saved[n] = r.saved[i]
			n++
		}
	}
	r.saved = r.saved[:n]
	return nil
}

// leaveOutCopied takes out segments a record of which lives on in a compacted one
// that was not made of them directly: a chain of compactions lies between, whose
// first has ended.
func (r *repairer) leaveOutCopied() {
	found := false
	r.twins(func(first, other *savedRecord) (bool, error) { // it never fails
		a, b := r.files[other.file], r.files[first.file]
		if a.number > b.number {
			a, b = b, a
		}
		if a.out == "" && b.header != nil && b.header.Compacted() && a.number != b.number && !b.header.MadeFrom(a.number) && !sameJob(a, b) {
			a.out = fmt.Sprintf("segment %d was made of what was made of it, and is all that counts", b.number)
			found = true
		}
		return true, nil
	})
	if found {
		r.keep(func(_ *savedRecord, f *repairFile) bool { return f.out == "" })
	}
}

// sameJob tells whether two files are outputs of compactions with a common input:
// one that was interrupted and the one that did its work again.
func sameJob(a, b *repairFile) bool {
	return a.header != nil && slices.ContainsFunc(a.header.From, b.header.MadeFrom)
}

// settle leaves one line of each number. Lines with the same bytes are copies; any
// other is left out and listed, and a file without a header that contradicts
// others is no part of the store at all.
func (r *repairer) settle() error {
	doubted := false
	differ := func(first, other *savedRecord) (bool, error) {
		a, err := r.line(first, nil)
		if err != nil {
			return false, err
		}
		b, err := r.line(other, nil)
		return !bytes.Equal(a, b), err
	}
	err := r.twins(func(first, other *savedRecord) (bool, error) {
		f := r.files[other.file]
		if f.header != nil || r.files[first.file].header == nil || f.out != "" {
			return true, nil
		}
		different, err := differ(first, other)
		if different {
			f.out, f.donor, doubted = fmt.Sprintf("it has no header, and record %d is another one there", other.seq), false, true
		}
		return true, err
	})
	if err != nil {
		return err
	}
	if doubted {
		r.keep(func(_ *savedRecord, f *repairFile) bool { return f.out == "" || f.donor })
	}
	return r.twins(func(first, other *savedRecord) (bool, error) {
		different, err := differ(first, other)
		if different && r.files[other.file].out == "" {
			r.doubles = append(r.doubles, *other)
			r.lose(&CorruptError{
				Path: r.files[other.file].path, Offset: other.offset, FirstSeq: other.seq, LastSeq: other.seq,
				Reason: fmt.Sprintf("another line has the same number, in %q at offset %d, and was taken", r.files[first.file].path, first.offset),
			})
		}
		return false, err
	})
}

// line reads a saved record's line again, with a newline.
func (r *repairer) line(s *savedRecord, buf []byte) ([]byte, error) {
	file, err := r.file(int(s.file))
	if err != nil {
		return nil, err
	}
	buf = slices.Grow(buf[:0], s.bytes()+1)[:s.bytes()]
	if n, err := file.ReadAt(buf, s.offset); n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%q: %w", r.files[s.file].path, err)
	}
	return append(buf, '\n'), nil
}
