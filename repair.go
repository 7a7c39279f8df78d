package annals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/annalsdb/annals/compact"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// Repair makes a new store in dest, which must be missing or empty, from every
// record in dir whose line is whole, and lists what is lost. dir is only read. It
// is for a store that Open refuses; a store that opens needs none. Where MANIFEST
// is readable the segments that it lists are read, else all that are there.
func Repair(ctx context.Context, dir, dest string, progress func(done, total int64)) (RepairReport, error) {
	return RepairFS(ctx, replace.OS, dir, dest, progress)
}

// RepairFS is Repair for a store on another file system.
func RepairFS(ctx context.Context, fsys replace.FS, dir, dest string, progress func(done, total int64)) (RepairReport, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return RepairReport{}, err
	}
	if dest, err = filepath.Abs(dest); err != nil {
		return RepairReport{}, err
	}
	r := repairer{ctx: ctx, fs: fsys, dir: dir, dest: dest, progress: progress}
	err = errors.Join(r.run(), r.close())
	return r.report, err
}

// repairer is a Repair at work.
type repairer struct {
	ctx         context.Context
	fs          replace.FS
	dir, dest   string
	progress    func(done, total int64)
	done, total int64

	manifest segment.Manifest
	files    []*repairFile
	saved    []savedRecord
	report   RepairReport
}

// repairFile is a segment that is read.
type repairFile struct {
	replace.File
	path   string
	size   int64
	number uint64
}

// savedRecord is a record with a whole line.
type savedRecord struct {
	seq    uint64
	name   string
	sample bool
	file   int
	offset int64
	size   int
}

func (r *repairer) close() (err error) {
	for _, f := range r.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

func (r *repairer) run() error {
	numbers, err := r.find()
	if err != nil {
		return err
	}
	if err := emptyDir(r.fs, r.dest); err != nil {
		return err
	}
	for _, n := range numbers {
		if err := r.open(n); err != nil {
			return err
		}
	}
	if err := r.leaveOutRewritten(); err != nil {
		return err
	}
	for i := range r.files {
		if err := r.read(i); err != nil {
			return err
		}
	}
	return r.write()
}

// find decides which segments to read.
func (r *repairer) find() ([]uint64, error) {
	l, err := listDir(r.fs, r.dir)
	if err != nil {
		return nil, err
	}
	if !l.manifest && len(l.segments) == 0 {
		return nil, errNoStore(r.dir)
	}
	m, err := readManifest(r.fs, r.dir)
	damage := (*CorruptError)(nil)
	switch {
	case err == nil && !r.stale(&l, &m):
		r.manifest = m
		var listed []uint64
		for i := range m.Sealed {
			listed = append(listed, m.Sealed[i].Segment)
		}
		if m.Open != 0 {
			listed = append(listed, m.Open)
		}
		return listed, nil
	case err == nil:
		r.lose(&CorruptError{Path: filepath.Join(r.dir, manifestName), Reason: "it is older than the log; all segments are read"})
	case errors.As(err, &damage):
		damage.Reason += "; all segments are read"
		r.lose(damage)
	case errors.Is(err, fs.ErrNotExist):
		r.lose(&CorruptError{Path: filepath.Join(r.dir, manifestName), Reason: "the file is missing; all segments are read"})
	default:
		return nil, err
	}
	r.manifest = segment.Manifest{Next: 1, Seq: 1, History: 1} // of the store that the first header names
	return l.segments, nil
}

// stale tells whether a segment proves that MANIFEST is older than the log.
func (r *repairer) stale(l *listing, m *segment.Manifest) bool {
	for _, n := range l.unlisted(m) {
		if _, err := judgeUnlisted(r.fs, r.dir, n, m); errors.Is(err, ErrCorrupt) {
			return true
		}
	}
	return false
}

func (r *repairer) lose(e *CorruptError) { r.report.Lost = append(r.report.Lost, e) }

func (r *repairer) open(number uint64) error {
	op := opening{opts: Options{FS: r.fs}, dir: r.dir}
	file, size, err := op.open(number)
	damage := (*CorruptError)(nil)
	if errors.As(err, &damage) {
		for i := range r.manifest.Sealed {
			if f := &r.manifest.Sealed[i]; f.Segment == number {
				damage.FirstSeq, damage.LastSeq = f.First, f.Last
			}
		}
		r.lose(damage)
		return nil
	}
	if err != nil {
		return err
	}
	r.files = append(r.files, &repairFile{File: file, path: op.path(number), size: size, number: number})
	r.total += 2 * size
	return nil
}

// leaveOutRewritten takes out segments that a whole copy was made from. Without
// MANIFEST they can't be told from living ones otherwise, and a compaction's input
// may hold a value whose delete has gone with another.
func (r *repairer) leaveOutRewritten() error {
	rewritten := map[uint64]bool{}
	for _, f := range r.files {
		h, _, err := segment.ReadHeader(f, f.size, f.path)
		if err != nil || len(h.From) == 0 {
			continue
		}
		var last segment.LineKind
		scan := segment.NewScanner(f, 0, f.size)
		for scan.Scan() {
			last = scan.Line().Kind
		}
		if scan.Err() != nil {
			return scan.Err()
		}
		for _, n := range h.From {
			rewritten[n] = rewritten[n] || last == segment.FooterLine
		}
	}
	r.files = slices.DeleteFunc(r.files, func(f *repairFile) bool {
		if rewritten[f.number] {
			f.Close() // only read
		}
		return rewritten[f.number]
	})
	return nil
}

// read notes every whole record of a segment and lists what lies between.
func (r *repairer) read(i int) error {
	f := r.files[i]
	h, _, err := segment.ReadHeader(f, f.size, f.path)
	damage := (*CorruptError)(nil)
	if err != nil && !errors.As(err, &damage) {
		return err
	}
	if err == nil {
		if r.manifest.Store == "" {
			r.manifest.Store = h.Store
		}
		if h.Store != r.manifest.Store {
			r.lose(&CorruptError{Path: f.path, Reason: fmt.Sprintf("it belongs to store %s, this one is %s; it was left out", h.Store, r.manifest.Store)})
			return nil
		}
	}
	r.report.Segments++
	return r.readLines(i, &h)
}

func (r *repairer) readLines(i int, h *segment.Header) error {
	f := r.files[i]
	var bad *CorruptError // the run of bad lines that has not ended
	last := max(h.First, 1) - 1
	scan := segment.NewScanner(f, 0, f.size)
	for scan.Scan() {
		l := scan.Line()
		r.tell(l.Size)
		switch l.Kind {
		case segment.BadLine:
			if bad == nil {
				bad = &CorruptError{Path: f.path, Offset: l.Offset, Reason: l.Reason.Error()}
				r.lose(bad)
			}
		case segment.RecordLine:
			v := &l.View
			if bad != nil && !h.Compacted() && v.Seq > last+1 {
				bad.FirstSeq, bad.LastSeq = last+1, v.Seq-1
			}
			bad, last = nil, v.Seq
			r.saved = append(r.saved, savedRecord{seq: v.Seq, name: v.Name(), sample: v.Kind == segment.Sample, file: i, offset: l.Offset, size: int(l.Size)})
		case segment.MarkLine:
			r.manifest.Clock = max(r.manifest.Clock, l.Mark.Now)
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
	}
	return scan.Err()
}

func (r *repairer) tell(bytes int64) {
	r.done += bytes
	if r.progress != nil {
		r.progress(min(r.done, r.total), r.total)
	}
}

// write makes the new store: keys in their order, samples in that of their
// numbers.
func (r *repairer) write() error {
	if r.manifest.Store == "" {
		return fmt.Errorf("%w: no segment in %q has a readable header", ErrNotStore, r.dir)
	}
	slices.SortFunc(r.saved, func(a, b savedRecord) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.file, b.file)) })
	// The same number twice: a copy that an interrupted job has left.
	r.saved = slices.CompactFunc(r.saved, func(a, b savedRecord) bool { return a.seq == b.seq })
	r.report.Records = uint64(len(r.saved))
	m := r.manifest
	m.Generation++
	m.Open, m.Sealed = 0, nil
	for _, s := range r.saved {
		m.Seq = max(m.Seq, s.seq+1)
	}
	for _, f := range r.files {
		m.Next = max(m.Next, f.number+1)
	}
	m.History = m.Seq
	keys, samples := split(r.saved)
	slices.SortStableFunc(keys, func(a, b savedRecord) int { return strings.Compare(a.name, b.name) })
	if err := r.writeAll(&m, keys, segment.ByKey); err != nil {
		return err
	}
	if err := r.writeAll(&m, samples, segment.BySeq); err != nil {
		return err
	}
	if err := r.fs.SyncDir(r.dest); err != nil {
		return err
	}
	return writeManifest(r.fs, r.dest, &m)
}

func split(all []savedRecord) (keys, samples []savedRecord) {
	for _, s := range all {
		if s.sample {
			samples = append(samples, s)
		} else {
			keys = append(keys, s)
		}
	}
	return keys, samples
}

// writeAll copies records to new segments.
func (r *repairer) writeAll(m *segment.Manifest, records []savedRecord, order segment.Order) error {
	const segmentSize = 16 << 20
	var line []byte
	for len(records) > 0 {
		from := []uint64{}
		for _, f := range r.files {
			from = append(from, f.number)
		}
		w, err := compact.NewWriter(r.fs, r.dest, segment.Header{Store: m.Store, Segment: m.Next, From: from, Order: order})
		if err != nil {
			return err
		}
		m.Next++
		for len(records) > 0 && w.Size() < segmentSize {
			s := records[0]
			records = records[1:]
			line = slices.Grow(line[:0], s.size)[:s.size]
			if _, err = r.files[s.file].ReadAt(line, s.offset); err == nil {
				_, err = w.Add(s.seq, line)
			}
			if err == nil {
				err = r.ctx.Err()
			}
			if err != nil {
				return errors.Join(err, w.Discard())
			}
			r.tell(int64(s.size))
		}
		footer, err := w.Finish()
		if err != nil {
			return errors.Join(err, w.Discard())
		}
		m.Sealed = append(m.Sealed, footer)
	}
	return nil
}
