package annals

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/annalsdb/annals/segment"
)

func (r *repairer) path(name string) string { return filepath.Join(r.dir, name) }

// account says what is lost: the numbers that must have been there and are not,
// with the damage that cost them.
func (r *repairer) account() {
	durable := uint64(0) // no more than this is known to have been durable
	for _, f := range r.files {
		if f.header != nil && f.header.Store != r.manifest.Store {
			continue
		}
		r.reached(f.last)
		r.reached(f.durable)
		if f.out == "" {
			durable = max(durable, min(f.durable, maxNumber))
		}
		if k := f.known(); k != nil {
			r.reached(k.Last)
			if f.out == "" {
				durable = max(durable, min(k.Last, f.to))
			}
		}
	}
	for _, f := range r.files {
		switch {
		case f.out != "":
		case f.written():
			r.accountWritten(f, durable)
		default:
			r.accountCompacted(f)
		}
	}
	r.accountMissing()
	if !r.trusted {
		r.accountGaps()
	}
	r.accountCommits()
}

// explain says of bytes that could not be read what was lost by that.
func (r *repairer) explain(u unreadable) {
	reason := fmt.Sprintf("bytes can't be read and are taken for zeros: %v", u.err)
	lost := (*CorruptError)(nil) // the last that begins before these bytes
	for _, e := range r.report.Lost {
		if e.Path == u.path && e.Offset <= u.offset && (lost == nil || e.Offset > lost.Offset) {
			lost = e
		}
	}
	if lost == nil {
		r.damaged(&CorruptError{Path: u.path, Offset: u.offset, Reason: reason})
		return
	}
	lost.Reason += "; " + reason
}

// reached makes sure that no number up to this one is given again.
func (r *repairer) reached(seq uint64) { r.manifest.Seq = max(r.manifest.Seq, min(seq, maxNumber)+1) }

// missing returns the first and the last number from a to b that no record has; ok
// is false if there is none.
func (r *repairer) missing(a, b uint64) (first, last uint64, ok bool) {
	i, _ := slices.BinarySearchFunc(r.saved, a, func(s savedRecord, seq uint64) int { return cmp.Compare(s.seq, seq) })
	for ; a <= b && i < len(r.saved) && r.saved[i].seq == a; i++ {
		a++
	}
	j, found := slices.BinarySearchFunc(r.saved, b, func(s savedRecord, seq uint64) int { return cmp.Compare(s.seq, seq) })
	for ; found && b >= a && j >= 0 && r.saved[j].seq == b; j-- {
		b--
	}
	return a, b, a <= b
}

// accountWritten says what a file without gaps has lost: its numbers tell.
func (r *repairer) accountWritten(f *repairFile, durable uint64) {
	start, end := uint64(0), uint64(0) // 0: not known
	if k := f.known(); k != nil {
		start, end = k.First, k.Last
	}
	if f.header != nil {
		start = f.header.First
	} else if f.listed == nil && r.trusted {
		start = r.begins // the open one
	}
	if !f.open && end > f.last {
		f.bad = append(f.bad, badRegion{offset: f.size, after: max(f.last, start-1), reason: "the file ends early"})
	}
	for i := range f.bad {
		b := &f.bad[i]
		e := &CorruptError{Path: f.path, Offset: b.offset, Reason: b.reason}
		from, to := start, cmp.Or(end, durable)
		if b.after > 0 {
			from = b.after + 1
		}
		if b.before > 0 {
			to = b.before - 1
		}
		first, last, lost := r.missing(from, to)
		switch {
		case from == 0 && r.joined(b.before):
			r.damaged(e)
		case from == 0:
			r.lose(e)
		case f.known() == nil && from > durable:
			e.Reason += "; nothing proves that this had been durable"
			r.damaged(e)
		case !lost || from > f.to:
			r.damaged(e)
		default:
			e.FirstSeq, e.LastSeq = first, last
			r.lose(e)
		}
	}
}

// joined tells whether nothing can lie between a record and the one before it.
func (r *repairer) joined(seq uint64) bool {
	if seq <= 1 {
		return seq == 1
	}
	_, _, gap := r.missing(seq-1, seq-1)
	return !gap
}

// accountCompacted says what a compacted file has lost. Its numbers have gaps, so
// only their count and range are known, and in the order of seq the neighbours of
// a line that is bad.
func (r *repairer) accountCompacted(f *repairFile) {
	k := f.known()
	whole := f.copies || k != nil && f.records >= k.Records
	if k != nil && dense(k) {
		_, _, lost := r.missing(k.First, k.Last)
		whole = whole || !lost
	}
	if !whole && len(f.bad) == 0 {
		f.bad = append(f.bad, badRegion{offset: f.size, reason: "lines are missing"})
	}
	for i := range f.bad {
		b := &f.bad[i]
		e := &CorruptError{Path: f.path, Offset: b.offset, Reason: b.reason}
		if whole {
			r.damaged(e)
			continue
		}
		if k != nil {
			e.FirstSeq, e.LastSeq = k.First, k.Last
			e.Reason += fmt.Sprintf("; %d of the segment's %d records are missing", k.Records-f.records, k.Records)
		}
		if k != nil && f.size == k.Size() && f.header != nil && f.header.Order == segment.BySeq {
			// No line was taken out, so the neighbours are what they were.
			e.FirstSeq = max(e.FirstSeq, b.after+1)
			if b.before > 0 {
				e.LastSeq = b.before - 1
			}
			if e.FirstSeq > e.LastSeq {
				r.damaged(e)
				continue
			}
		}
		r.lose(e)
	}
}

// accountMissing says what was in files that are not there.
func (r *repairer) accountMissing() {
	here, from := map[uint64]bool{}, map[uint64]bool{}
	for _, f := range r.files {
		here[f.number] = here[f.number] || f.out == "" || !r.trusted
		if f.header != nil && !r.trusted {
			for _, n := range f.header.From {
				from[n] = true
			}
		}
	}
	for i := range r.manifest.Sealed {
		l := &r.manifest.Sealed[i]
		r.reached(l.Last)
		if here[l.Segment] || from[l.Segment] {
			continue
		}
		e := &CorruptError{Path: r.path(segment.Name(l.Segment)), FirstSeq: l.First, LastSeq: l.Last,
			Reason: fmt.Sprintf("MANIFEST lists this segment, with %d records, and it is missing", l.Records)}
		if dense(l) {
			var lost bool
			if e.FirstSeq, e.LastSeq, lost = r.missing(l.First, l.Last); !lost {
				r.damaged(e)
				continue
			}
		}
		r.lose(e)
	}
	if open := r.manifest.Open; r.trusted && open != 0 && !here[open] {
		r.lose(&CorruptError{Path: r.path(segment.Name(open)),
			Reason: fmt.Sprintf("MANIFEST lists this segment as the open one, with all records from %d on, and it is missing", r.begins)})
	}
}

// accountGaps looks, where MANIFEST does not say which segments there were, for
// signs of one that is gone: between two that were written one after the other, a
// number of a segment and numbers of records that nothing stands for.
func (r *repairer) accountGaps() {
	var all []*repairFile
	for _, f := range r.files {
		if f.out == "" && f.records > 0 {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *repairFile) int { return cmp.Compare(a.first, b.first) })
	reached := (*repairFile)(nil) // of those before, the one with the greatest number
	for _, f := range all {
		if reached != nil && f.first > reached.last+1 && f.written() && reached.written() && f.number > reached.number+1 {
			first, last := reached.last+1, f.first-1
			if !r.accounted(first, last) {
				r.lose(&CorruptError{Path: r.dir, FirstSeq: first, LastSeq: last,
					Reason: fmt.Sprintf("no segment between %d and %d is there: these records are lost, unless a compaction or recovery had dropped them", reached.number, f.number)})
			}
		}
		if reached == nil || f.last > reached.last {
			reached = f
		}
	}
}

// accounted tells whether all of a range is listed as lost already.
func (r *repairer) accounted(first, last uint64) bool {
	return slices.ContainsFunc(r.report.Lost, func(e *CorruptError) bool { return e.FirstSeq <= first && last <= e.LastSeq })
}

// accountCommits lists the commits of which a record is known to be missing.
func (r *repairer) accountCommits() {
	begin := uint64(0) // of the commit that has not ended
	for i := range r.saved {
		s := &r.saved[i]
		if s.size&isMore == 0 || !r.files[s.file].written() {
			begin = 0
			continue
		}
		if begin == 0 {
			begin = s.seq
		}
		if i+1 == len(r.saved) || r.saved[i+1].seq != s.seq+1 {
			r.report.Partial = append(r.report.Partial, SeqRange{begin, s.seq})
			begin = 0
		}
	}
}
