package annals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/annalsdb/annals/compact"
	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// opening is a store on the way from a directory to something that can be
// served. The phases, in this order, first only look and then act:
//
//	find      MANIFEST, or that the store is new
//	judge     unlisted files
//	examine   the open segment of a store that was not closed
//	replay    the sealed segments into the index, but for those that INDEX stands for
//	recover   quarantine the tail, rewrite the good part as a sealed segment, MANIFEST
//	tidy      remove leftovers
//
// INDEX is looked for before MANIFEST is read, and taken or not before replay; one
// that is not taken is removed before anything else is changed. See checkpoint.go.
//
// A refusal comes before anything is changed. A crash in recover or tidy is found
// by the next Open as the crash before was: MANIFEST is replaced once, and what was
// made before that is not listed.
type opening struct {
	opts Options
	dir  string
	skip bool                    // a reader's, who reads on behind damage
	held map[uint64]replace.File // segments that are open already, see hold

	manifest segment.Manifest
	fresh    bool
	left     []leftover
	temps    []string
	verdict  segment.Verdict // of the open segment, if there is one
	clock    *clock
	hasIndex bool
	head     indexHead    // of INDEX
	table    *index.Table // INDEX, if it was taken
	builder  *index.Builder
	index    *index.Index // what the builder made, once all is replayed
	files    []*segmentFile
	damage   []*CorruptError
	lost     []*CorruptError // of damage, what may have cost samples
	patchy   []uint64        // segments that were read, and have damage
	report   RecoveryReport
}

func (o *opening) fs() replace.FS { return o.opts.FS }

func (o *opening) path(segmentNumber uint64) string {
	return filepath.Join(o.dir, segment.Name(segmentNumber))
}

// look does the phases that change nothing.
func (o *opening) look() error {
	o.findIndex()
	if err := o.find(); err != nil {
		return err
	}
	if o.manifest.Open != 0 {
		if err := o.examine(); err != nil {
			return err
		}
	}
	o.startClock()
	return o.replay()
}

// find reads MANIFEST and judges what it does not list.
func (o *opening) find() error {
	l, err := listDir(o.fs(), o.dir)
	if err == nil {
		err = l.strange
	}
	if err != nil {
		return err
	}
	if !l.manifest {
		o.fresh = true
		if err := l.missing(o.dir); err != nil {
			return err
		}
		o.manifest, err = newManifest(o.opts.Now().UnixMicro())
		o.temps = l.temps
		return err
	}
	if o.manifest, err = readManifest(o.fs(), o.dir); err != nil {
		return err
	}
	return o.judge(&l)
}

// judge looks at what lies in the directory and MANIFEST does not list.
func (o *opening) judge(l *listing) error {
	o.temps, o.hasIndex = l.temps, l.index
	for _, n := range l.unlisted(&o.manifest) {
		left, err := judgeUnlisted(o.fs(), o.dir, n, &o.manifest)
		if errors.Is(err, fs.ErrNotExist) {
			continue // only a reader sees that: a writer has removed it
		}
		if err != nil {
			return err
		}
		o.left = append(o.left, left)
	}
	o.manifest.Next = max(o.manifest.Next, l.greatest+1)
	return nil
}

// examine finds the good part of the open segment.
func (o *opening) examine() (err error) {
	file, size, err := o.open(o.manifest.Open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := tooLong(o.path(o.manifest.Open), size); err != nil {
		return err
	}
	o.verdict, err = examineBesideWriter(file, o.path(o.manifest.Open), o.manifest.Store, o.manifest.Open)
	if err == nil && o.verdict.Header.First != o.manifest.Seq {
		err = wrongFirst(o.path(o.manifest.Open), o.verdict.Header.First, o.manifest.Seq)
	}
	return err
}

// wrongFirst is the damage of an open segment that MANIFEST does not mean.
func wrongFirst(path string, first, seq uint64) *CorruptError {
	return &CorruptError{Path: path, Reason: fmt.Sprintf("it begins with record %d, MANIFEST says %d", first, seq)}
}

// examineBesideWriter is segment.Examine for a file that somebody may be writing: a
// scan that reads one part before and the next part after a batch was written can take
// that for damage, and a file that is being sealed ends before the padding that it had.
// Damage is there when one looks again.
func examineBesideWriter(file replace.File, path, store string, number uint64) (v segment.Verdict, err error) {
	for range 3 {
		var info fs.FileInfo
		if info, err = file.Stat(); err != nil {
			return v, err
		}
		v, err = segment.Examine(file, info.Size(), path, store, number)
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return v, err
		}
	}
	return v, err
}

// open opens a segment that MANIFEST lists.
func (o *opening) open(number uint64) (replace.File, int64, error) {
	file, err := o.held[number], error(nil)
	if delete(o.held, number); file == nil {
		file, err = o.fs().OpenFile(o.path(number), os.O_RDONLY, 0)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, &CorruptError{Path: o.path(number), Reason: "MANIFEST lists this segment, and the file is missing"}
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

// hold opens all listed segments, for a reader: while it reads the first ones, which
// may take long, compaction must not remove the last ones. It returns the error of one
// that is missing; what else can't be opened is told when its turn comes.
func (o *opening) hold() (missing error) {
	o.held = map[uint64]replace.File{}
	var numbers []uint64
	if o.manifest.Open != 0 {
		numbers = append(numbers, o.manifest.Open)
	}
	for i := range o.manifest.Sealed {
		numbers = append(numbers, o.manifest.Sealed[i].Segment)
	}
	for _, n := range numbers {
		file, err := o.fs().OpenFile(o.path(n), os.O_RDONLY, 0)
		if err == nil {
			o.held[n] = file
		} else if errors.Is(err, fs.ErrNotExist) {
			missing = cmp.Or(missing, err)
		}
	}
	return missing
}

// letGo closes what is held still.
func (o *opening) letGo() {
	for _, file := range o.held {
		file.Close() // it was only opened
	}
	o.held = nil
}

// maxFile is beyond the length of any segment: 1 GiB and one commit.
const maxFile = 1 << 32

// tooLong refuses a file that no segment can be, and in which the index could not
// name every offset, before all of it is read.
func tooLong(path string, size int64) error {
	if size < maxFile {
		return nil
	}
	return &CorruptError{Path: path, Offset: maxFile, Reason: fmt.Sprintf("the file is %d bytes long, longer than any segment", size)}
}

// startClock sets the store's time from all that was recorded.
func (o *opening) startClock() {
	recorded := max(o.manifest.Clock, o.verdict.Clock)
	now := o.opts.Now().UnixMicro()
	if ahead := time.Duration(recorded-now) * time.Microsecond; ahead > time.Hour {
		o.report.ClockAhead = ahead.Round(time.Second).String()
	}
	if o.opts.ResetClock {
		recorded = now
	}
	o.clock = newClock(o.opts.Now, recorded)
}

// replay reads the sealed segments that INDEX does not stand for into the index.
func (o *opening) replay() error {
	o.startBuilder()
	for i := range o.manifest.Sealed {
		if err := o.replaySealed(&o.manifest.Sealed[i]); err != nil {
			o.closeFiles()
			return err
		}
	}
	if o.builder.Err() == nil {
		return nil
	}
	o.closeFiles() // INDEX is damaged: the log has all of it
	o.files, o.damage, o.lost, o.patchy, o.report.Replayed, o.report.Indexed, o.table = nil, nil, nil, nil, 0, 0, nil
	return o.replay()
}

// replaySealed reads one sealed segment. Damage in one that may hold keys refuses
// the store: the newest value of any key might be there. Only the segment's own
// header tells that it holds none, not that of another file in its place.
func (o *opening) replaySealed(f *segment.Footer) error {
	file, size, err := o.open(f.Segment)
	if err != nil {
		return o.unreadable(f, err)
	}
	if o.covered(f.Segment) {
		return o.pass(f, file, size)
	}
	path := o.path(f.Segment)
	h, line, err := segment.ReadHeader(file, size, path)
	if err != nil {
		return o.unreadable(f, errors.Join(err, file.Close()))
	}
	own := h.Store == o.manifest.Store && h.Segment == f.Segment
	if o.skip && !own {
		err := &CorruptError{Path: path, Reason: fmt.Sprintf("its header is that of segment %d of store %s", h.Segment, h.Store)}
		return o.unreadable(f, errors.Join(err, file.Close()))
	}
	opened := &segmentFile{number: f.Segment, path: path, header: line.Size, compacted: h.Compacted(), ReaderAt: file, Closer: file}
	opened.mapFile(file, size)
	o.files = append(o.files, opened)
	if err := tooLong(path, size); err != nil && (h.HoldsKeys() || !own) && !o.skip {
		return err
	}
	feed := feed{to: o, segment: f.Segment, inOrder: h.Order != segment.ByKey}
	problems, err := segment.CheckSealed(file, min(size, maxFile), path, o.manifest.Store, *f, feed.add)
	feed.end()
	if err != nil {
		return err
	}
	if len(problems) > 0 && (h.HoldsKeys() || !own) && !o.skip {
		return problems[0]
	}
	for _, p := range problems {
		if p.Offset >= f.Bytes || h.Order == segment.ByKey {
			continue // the footer, or behind it: no record is touched; or no sample is
		}
		o.builder.Damage(f.Segment, p.Offset, f.Bytes, f.First, f.Last)
		o.lost = append(o.lost, p)
	}
	if len(problems) > 0 {
		o.patchy = append(o.patchy, f.Segment)
	}
	o.damage = append(o.damage, problems...)
	return nil
}

// unreadable is for a segment of which nothing can be read: refused, or, by a reader who
// goes on, told by all reads that need it.
func (o *opening) unreadable(f *segment.Footer, err error) error {
	damage := (*CorruptError)(nil)
	if !o.skip || !errors.As(err, &damage) {
		return err
	}
	damage.FirstSeq, damage.LastSeq = f.First, f.Last
	o.damage = append(o.damage, damage)
	o.lost = append(o.lost, damage)
	o.builder.Damage(f.Segment, 0, f.Bytes, f.First, f.Last)
	o.files = append(o.files, &segmentFile{number: f.Segment, path: o.path(f.Segment), ReaderAt: foreign{damage}, Closer: io.NopCloser(nil)})
	return nil
}

// change is a record as the index takes it.
func change(v *segment.View, number uint64, offset int64, size int) index.Change {
	return index.Change{
		Op: ops[v.Kind], Name: v.Name(), Seq: v.Seq, Expires: v.Expires, At: v.At,
		Pos: index.Pos{Segment: number, Offset: uint32(offset), Len: uint32(size)},
	}
}

var ops = [...]index.Op{segment.Put: index.Put, segment.Delete: index.Delete, segment.Sample: index.Sample}

func (o *opening) closeFiles() {
	for _, f := range o.files {
		f.Close()
	}
}

// act does the phases that change the directory.
func (o *opening) act() error {
	if err := o.dropIndex(); err != nil {
		return err
	}
	switch {
	case o.fresh:
		o.report.Clean = true
		if err := o.install(); err != nil {
			return err
		}
		return o.tidy()
	case o.manifest.Open != 0:
		o.report.Segment = o.manifest.Open
		return o.recover()
	}
	o.report.Clean = true
	if len(o.left) == 0 && len(o.temps) == 0 && !o.opts.ResetClock {
		if len(o.manifest.Sealed) > 0 {
			return nil
		}
		// The very first MANIFEST may be in the cache only, if the process that made it
		// was killed before the directory was synced. A crash must not leave our first
		// segment beside none. Of a store with segments an older MANIFEST would do.
		return writeManifest(o.fs(), o.dir, &o.manifest)
	}
	// A leftover may be listed by an older MANIFEST that a crash would bring back:
	// the rename of the one that we have read may be in the cache only.
	if err := o.install(); err != nil {
		return err
	}
	return o.tidy()
}

// recover makes of the open segment's good part a sealed one. Its bytes are
// copied, not just synced: after a failed sync the cache can show bytes that are
// not on disk, and syncing them again would do nothing.
func (o *opening) recover() (err error) {
	for _, left := range o.left { // they only take room that we may need
		if left.copied {
			if err := o.remove(left.path); err != nil {
				return err
			}
		}
	}
	old := o.manifest.Open
	file, _, err := o.open(old)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if tail := o.verdict.Tail; tail != nil {
		if err := o.quarantine(file, tail); err != nil {
			return err
		}
	}
	undo, err := o.rewrite(file)
	if err != nil {
		return err
	}
	o.manifest.Open = 0
	o.manifest.Seq = max(o.manifest.Seq, o.verdict.MaxSeq+1)
	if err := o.install(); err != nil {
		var unsynced *replace.SyncError
		if !errors.As(err, &unsynced) { // else it may be listed already
			err = errors.Join(err, undo())
		}
		return err
	}
	o.left = append(o.left, leftover{path: o.path(old)})
	return o.tidy()
}

// quarantine keeps a copy of the tail before it is cut off. Made again after a
// crash it is the same file.
func (o *opening) quarantine(file replace.File, tail *segment.Tail) error {
	dir := filepath.Join(o.dir, quarantineName)
	if err := replace.MkdirAll(o.fs(), dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, tailName(o.manifest.Open, tail.Offset))
	p, err := replace.Begin(path, replace.On(o.fs()), replace.PermAlways(0o600))
	if err != nil {
		return err
	}
	defer p.Discard()
	if n, err := io.Copy(p, io.NewSectionReader(file, tail.Offset, tail.Bytes)); err != nil || n != tail.Bytes {
		return errors.Join(err, fmt.Errorf("annals: %d of %d bytes could be copied to %q", n, tail.Bytes, path))
	}
	o.report.Quarantined = append(o.report.Quarantined, Quarantined{
		Path: path, Segment: o.manifest.Open, Offset: tail.Offset, Bytes: tail.Bytes, Reason: tail.Reason,
	})
	return p.Commit()
}

// rewrite copies the good part to a sealed segment under a new number and takes
// it into the index. undo removes it.
func (o *opening) rewrite(file replace.File) (undo func() error, err error) {
	o.report.Records, o.report.LastSeq = o.verdict.Records, o.verdict.Last
	if o.verdict.Records == 0 {
		return func() error { return nil }, nil
	}
	number := o.manifest.Next
	o.manifest.Next++
	w, err := copySealed(o.fs(), o.dir, file, o.path(o.manifest.Open), &o.verdict.Header, number, o.verdict.End, o.verdict.Last)
	if err != nil {
		return nil, err
	}
	if err := o.fs().SyncDir(o.dir); err != nil {
		return nil, errors.Join(err, w.discard())
	}
	if err := o.replaySealed(&w.footer); err != nil {
		return nil, errors.Join(err, w.discard())
	}
	o.report.Rewritten = number
	o.manifest.Sealed = append(o.manifest.Sealed, w.footer)
	return w.discard, nil
}

// sealedCopy is a sealed copy of the good part of an open segment.
type sealedCopy struct {
	footer  segment.Footer
	discard func() error
}

// copySealed copies the records of an open segment, which lie before offset end,
// up to number last, byte for byte and without marks, to a new sealed segment in
// dir. All of them must be there and whole, however often they were read before.
func copySealed(fsys replace.FS, dir string, from io.ReaderAt, path string, old *segment.Header, number uint64, end int64, last uint64) (_ *sealedCopy, err error) {
	h := segment.Header{Store: old.Store, Segment: number, First: old.First, From: []uint64{old.Segment}}
	w, err := compact.NewWriter(fsys, dir, h)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Discard())
		}
	}()
	next := old.First
	scan := segment.NewScanner(from, 0, end)
	for next <= last && scan.Scan() {
		l := scan.Line()
		if l.Kind == segment.BadLine || l.Kind == segment.RecordLine && l.View.Seq != next {
			return nil, &CorruptError{Path: path, Offset: l.Offset, FirstSeq: next, LastSeq: last, Reason: "the line can't be copied: it is damaged, or not the next one"}
		}
		if l.Kind == segment.RecordLine {
			if _, err := w.Add(next, l.Bytes); err != nil {
				return nil, err
			}
			next++
		}
	}
	if err := scan.Err(); err != nil {
		return nil, err
	}
	if next <= last {
		return nil, &CorruptError{Path: path, Offset: end, FirstSeq: next, LastSeq: last, Reason: "records are missing at the end"}
	}
	footer, err := w.Finish()
	return &sealedCopy{footer: footer, discard: w.Discard}, err
}

// install replaces MANIFEST.
func (o *opening) install() error {
	o.manifest.Generation++
	o.manifest.Clock = o.clock.now()
	return writeManifest(o.fs(), o.dir, &o.manifest)
}

// tidy removes leftovers.
func (o *opening) tidy() error {
	for _, left := range o.left {
		if err := o.remove(left.path); err != nil {
			return err
		}
	}
	for _, name := range o.temps {
		if err := o.remove(filepath.Join(o.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// remove takes a leftover away; that an earlier step did so already is fine.
func (o *opening) remove(path string) error {
	err := o.fs().Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		o.report.Removed = append(o.report.Removed, filepath.Base(path))
	}
	return err
}

// copyFile copies size bytes to a new file, durable but for its name.
func copyFile(ctx context.Context, fsys replace.FS, from io.ReaderAt, size int64, path string) (err error) {
	file, err := fsys.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	buf := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), size-off)]
		if n, err := from.ReadAt(part, off); n < len(part) {
			return fmt.Errorf("annals: copying to %q at offset %d: %w", path, off+int64(n), err)
		}
		if _, err := file.WriteAt(part, off); err != nil {
			return err
		}
		off += int64(len(part))
	}
	return file.Sync()
}
