package annals

import (
	"context"
	"errors"
	"io/fs"
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
	for tries := 1; ; tries++ {
		v := verifier{ctx: ctx, fs: &source{FS: fsys, ctx: ctx}, dir: dir, progress: progress, report: Report{Dir: dir}}
		err := v.run()
		if err != nil || v.report.OK() || tries == maxTries {
			return v.report, err
		}
		// A writer may have replaced MANIFEST and removed segments meanwhile.
		if m, err := readManifest(v.fs, dir); err != nil || m.Generation == v.manifest.Generation {
			return v.report, nil
		}
	}
}

// maxTries is how often a reader without the lock begins again because a writer
// has changed MANIFEST.
const maxTries = 10

// verifier is a Verify at work.
type verifier struct {
	ctx         context.Context
	fs          replace.FS
	dir         string
	progress    func(done, total int64)
	manifest    segment.Manifest
	done, total int64
	report      Report
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
	v.report.Store = v.manifest.Store
	v.report.LastSeq = v.manifest.Seq - 1
	if err := v.unlisted(); err != nil {
		return err
	}
	for i := range v.manifest.Sealed {
		v.total += v.manifest.Sealed[i].Size()
	}
	for i := range v.manifest.Sealed {
		if err := v.sealed(&v.manifest.Sealed[i]); err != nil {
			return err
		}
	}
	if v.manifest.Open == 0 {
		return nil
	}
	return v.open()
}

// note adds an error that is damage to the report: of the file, or that it is no
// regular file. done is false if there was no error at all.
func (v *verifier) note(err error, path string) (done bool, _ error) {
	damage := (*CorruptError)(nil)
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &damage):
	case errors.Is(err, replace.ErrNotRegular):
		damage = &CorruptError{Path: path, Reason: "it is not a regular file"}
	default:
		return true, err
	}
	v.report.Problems = append(v.report.Problems, damage)
	return true, nil
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

func (v *verifier) sealed(f *segment.Footer) error {
	return v.withFile(f.Segment, func(file replace.File, size int64, path string) error {
		problems, err := segment.CheckSealed(file, size, path, v.manifest.Store, *f, v.count)
		v.report.Problems = append(v.report.Problems, problems...)
		return err
	})
}

func (v *verifier) count(l *segment.Line) error {
	v.report.Records++
	v.report.LastSeq = max(v.report.LastSeq, l.View.Seq)
	v.done += l.Size
	if v.report.Records%4096 != 0 {
		return nil
	}
	if v.progress != nil {
		v.progress(min(v.done, v.total), v.total)
	}
	return v.ctx.Err()
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
