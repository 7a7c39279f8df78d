package annals

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// Verify reads a whole store and reports all damage that it finds. It changes
// nothing and takes no lock: another process may be writing. A legal torn tail, of
// a store that is being written or was not closed, is reported and is not damage.
// The error is that of a directory that is no store, or that can't be read.
// progress, if not nil, is called now and then with bytes.
func Verify(ctx context.Context, dir string, progress func(done, total int64)) (Report, error) {
	return VerifyFS(ctx, replace.OS, dir, progress)
}

// VerifyFS is Verify for a store on another file system.
func VerifyFS(ctx context.Context, fsys replace.FS, dir string, progress func(done, total int64)) (Report, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Report{}, err
	}
	source := &source{FS: fsys, ctx: ctx}
	v := verifier{ctx: ctx, fs: source, dir: dir, progress: progress, found: map[uint64]*finding{}}
	v.lookout = lookout{fs: source, path: filepath.Join(dir, lockName)}
	defer v.lookout.close()
	for tries := 1; ; tries++ {
		v.report = Report{Dir: dir}
		err := v.run()
		if err != nil && !errors.Is(err, errAnew) || v.report.OK() && err == nil {
			return v.report, err
		}
		// A writer may have replaced MANIFEST and removed segments meanwhile. Those that
		// were read need not be read again.
		if m, again := readManifest(v.fs, dir); tries == maxVerifies || again != nil || m.Generation == v.manifest.Generation && err == nil {
			return v.report, nil
		}
	}
}

// maxVerifies is how often Verify begins again because a writer has changed MANIFEST.
// Each time it has less to read.
const maxVerifies = 10_000

// verifier is a Verify at work.
type verifier struct {
	ctx         context.Context
	fs          replace.FS
	dir         string
	lookout     lookout
	progress    func(done, total int64)
	manifest    segment.Manifest
	found       map[uint64]*finding // of sealed segments
	done, total int64
	report      Report
}

// finding is what was found in one sealed segment, which never changes.
type finding struct {
	records  uint64
	bytes    int64
	last     uint64
	missing  bool // there is no such file, or a writer has just removed it
	problems []*CorruptError
}

func (v *verifier) run() error {
	l, err := lookInto(v.fs, v.dir)
	if err == nil && (l == nil || !l.manifest) {
		err = errNoStore(v.dir)
	}
	if done, err := v.note(err, v.dir); done {
		return err
	}
	v.manifest, err = readManifest(v.fs, v.dir)
	if done, err := v.note(err, filepath.Join(v.dir, manifestName)); done {
		return err
	}
	writer := v.lookout.look()
	if writer.generation > v.manifest.Generation {
		return errAnew
	}
	v.report.Store = v.manifest.Store
	v.report.LastSeq = v.manifest.Seq - 1
	if writer.writer != writerServes { // what a writer has not listed yet is its own business
		if err := v.unlisted(); err != nil {
			return err
		}
	}
	v.total = 0
	for i := range v.manifest.Sealed {
		v.total += v.manifest.Sealed[i].Size()
	}
	maps.DeleteFunc(v.found, func(_ uint64, f *finding) bool { return f.missing })
	for i := range v.manifest.Sealed {
		if f := &v.manifest.Sealed[i]; v.found[f.Segment] == nil {
			if err := v.sealed(f); err != nil {
				return err
			}
		}
	}
	v.sum()
	switch {
	case v.manifest.Open == 0:
		return nil
	case writer.writer == writerServes:
		return v.growing(max(writer.visible, v.manifest.Seq-1))
	}
	return v.open()
}

// sum adds what was found in the sealed segments that are listed.
func (v *verifier) sum() {
	for i := range v.manifest.Sealed {
		f := v.found[v.manifest.Sealed[i].Segment]
		if f == nil {
			continue
		}
		if !f.missing {
			v.report.Segments++
		}
		v.report.Records += f.records
		v.report.Bytes += f.bytes
		v.report.LastSeq = max(v.report.LastSeq, f.last)
		v.report.Problems = append(v.report.Problems, f.problems...)
	}
}

// note adds an error that is damage to the report: of the file, or that it is no
// regular file. done is false if there was no error at all.
func (v *verifier) note(err error, path string) (done bool, _ error) {
	damage := damageOf(err, path)
	if damage == nil {
		return err != nil, err
	}
	v.report.Problems = append(v.report.Problems, damage)
	return true, nil
}

// damageOf is the damage that an error stands for, nil if it is none.
func damageOf(err error, path string) *CorruptError {
	damage := (*CorruptError)(nil)
	switch {
	case errors.As(err, &damage):
		return damage
	case errors.Is(err, replace.ErrNotRegular):
		return &CorruptError{Path: path, Reason: "it is not a regular file"}
	}
	return nil
}

// unlisted reports files that the next Open would remove, or refuse.
func (v *verifier) unlisted() error {
	l, err := listDir(v.fs, v.dir)
	if err != nil {
		return err
	}
	v.report.Leftover = append(v.report.Leftover, l.temps...)
	for _, n := range l.unlisted(&v.manifest) {
		left, err := judgeUnlisted(v.fs, v.dir, n, &v.manifest)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a writer has removed it
		}
		if done, err := v.note(err, left.path); err != nil {
			return err
		} else if !done {
			v.report.Leftover = append(v.report.Leftover, filepath.Base(left.path))
		}
	}
	return nil
}

// withFile opens a listed segment; that it is missing is a problem.
func (v *verifier) withFile(number uint64, fn func(file replace.File, size int64, path string) error) (err error) {
	op := opening{opts: Options{FS: v.fs}, dir: v.dir}
	file, size, err := op.open(number)
	if done, err := v.note(err, op.path(number)); done {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	v.report.Segments++
	v.report.Bytes += size
	return fn(file, size, op.path(number))
}

func (v *verifier) sealed(f *segment.Footer) (err error) {
	op := opening{opts: Options{FS: v.fs}, dir: v.dir}
	file, size, err := op.open(f.Segment)
	if damage := damageOf(err, op.path(f.Segment)); damage != nil {
		v.found[f.Segment] = &finding{missing: true, problems: []*CorruptError{damage}}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	found := &finding{bytes: size}
	found.problems, err = segment.CheckSealed(file, size, op.path(f.Segment), v.manifest.Store, *f, func(l *segment.Line) error {
		found.records++
		found.last = max(found.last, l.View.Seq)
		return v.count(l, found.records)
	})
	if err == nil {
		v.found[f.Segment] = found
	}
	return err
}

func (v *verifier) count(l *segment.Line, records uint64) error {
	v.done += l.Size
	if records%4096 != 0 {
		return nil
	}
	if v.progress != nil {
		v.progress(min(v.done, v.total), v.total)
	}
	return v.ctx.Err()
}

// growing reads what the writer says is durable of the segment that it is writing. What
// lies behind may be half a write.
func (v *verifier) growing(last uint64) (err error) {
	op := opening{opts: Options{FS: v.fs}, dir: v.dir, manifest: v.manifest}
	g, err := op.openGrowing()
	if done, err := v.note(err, op.path(v.manifest.Open)); done {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	v.report.Segments++
	v.report.Bytes += g.size.Load()
	if last >= g.first {
		pass := func(e *CorruptError) { v.report.Problems = append(v.report.Problems, e) }
		err = g.read(last, func(*segment.Line) { v.report.Records++ }, pass)
	}
	v.report.LastSeq = max(v.report.LastSeq, last)
	return err
}

// open judges the open segment as Open would.
func (v *verifier) open() error {
	return v.withFile(v.manifest.Open, func(file replace.File, _ int64, path string) error {
		verdict, err := examineBesideWriter(file, path, v.manifest.Store, v.manifest.Open)
		if done, err := v.note(err, path); done {
			return err
		}
		if first := verdict.Header.First; first != v.manifest.Seq {
			v.report.Problems = append(v.report.Problems, wrongFirst(path, first, v.manifest.Seq))
		}
		v.report.Records += verdict.Records
		v.report.LastSeq = verdict.Last
		if t := verdict.Tail; t != nil {
			v.report.Tail = &TornTail{Path: path, Offset: t.Offset, Bytes: t.Bytes, Reason: t.Reason}
		}
		return nil
	})
}
