package annals

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/annalsdb/annals/replace"
)

// source is a file system that can be read, and not changed, until a context ends.
// Verify and Repair look at a store through one: whatever they meet there, they
// can't write to it, and a line without an end does not keep them from stopping.
type source struct {
	replace.FS
	ctx    context.Context
	tell   func(bytes int) // of what was read; may be nil
	patchy bool            // what can't be read is read as zeros
	unread []unreadable    // the first such bytes of each file
}

var errOnlyRead = errors.New("annals: the store is only read")

func (s *source) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	if flag != os.O_RDONLY {
		return nil, errOnlyRead
	}
	file, err := s.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &sourceFile{File: file, source: s, path: name}, nil
}

func (*source) Rename(string, string) error     { return errOnlyRead }
func (*source) Link(string, string) error       { return errOnlyRead }
func (*source) Symlink(string, string) error    { return errOnlyRead }
func (*source) Remove(string) error             { return errOnlyRead }
func (*source) Mkdir(string, fs.FileMode) error { return errOnlyRead }
func (*source) SyncDir(string) error            { return errOnlyRead }

// sourceFile is a file of a source.
type sourceFile struct {
	replace.File
	source *source
	path   string
	failed error // the first one of a read
}

// unreadable says where a file could not be read, and why.
type unreadable struct {
	path   string
	offset int64
	err    error
}

// sector is how much a patchy source gives up around a byte that can't be read.
const sector = 4096

func (f *sourceFile) ReadAt(p []byte, off int64) (n int, err error) {
	if err := f.source.ctx.Err(); err != nil {
		return 0, err
	}
	n, err = f.File.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) && f.source.patchy {
		n, err = f.patch(p, off)
	}
	if f.source.tell != nil {
		f.source.tell(n)
	}
	return n, err
}

// patch reads sector by sector, with zeros, which no line holds, for those that
// can't be read.
func (f *sourceFile) patch(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		if err := f.source.ctx.Err(); err != nil {
			return n, err
		}
		at := off + int64(n)
		piece := p[n:min(len(p), n+int(sector-at%sector))]
		got, err := f.File.ReadAt(piece, at)
		if errors.Is(err, io.EOF) {
			return n + got, err
		}
		if err != nil {
			clear(piece)
			if f.failed == nil {
				f.failed = err
				f.source.unread = append(f.source.unread, unreadable{f.path, at, err})
			}
		}
		n += len(piece)
	}
	return n, nil
}

// NextData returns the first offset from off on that does not lie in a hole of a
// sparse file: what costs no disk need not cost time. Where that is not known it
// is off itself.
func (f *sourceFile) NextData(off int64) int64 {
	const seekData = 3 // SEEK_DATA
	file, ok := f.File.(io.Seeker)
	if !ok || runtime.GOOS != "linux" {
		return off
	}
	next, err := file.Seek(off, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return math.MaxInt64 // a hole up to the end
	}
	if err != nil {
		return off
	}
	return next
}

// inside tells whether path is directory dir or lies in it, by whatever names.
func inside(fsys replace.FS, path, dir string) (bool, error) {
	home, err := realDir(fsys, dir, 0)
	if err != nil {
		return false, err
	}
	want, err := fsys.Lstat(home)
	if err != nil {
		return false, err
	}
	if path, err = realDir(fsys, path, 0); err != nil {
		return false, err
	}
	for {
		info, err := fsys.Lstat(path)
		if err == nil && fsys.SameFile(info, want) {
			return true, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		parent := filepath.Dir(path)
		if parent == path {
			return false, nil
		}
		path = parent
	}
}

// realDir returns an absolute path without symbolic links in it. What does not
// exist stays as it is.
func realDir(fsys replace.FS, path string, links int) (string, error) {
	parent := filepath.Dir(path)
	if parent == path {
		return path, nil
	}
	if links > 40 {
		return "", fmt.Errorf("annals: %q: %w", path, syscall.ELOOP)
	}
	parent, err := realDir(fsys, parent, links)
	if err != nil {
		return "", err
	}
	path = filepath.Join(parent, filepath.Base(path))
	info, err := fsys.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path, nil // missing, perhaps: whoever uses it will see
	}
	target, err := fsys.Readlink(path)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(parent, target)
	}
	return realDir(fsys, filepath.Clean(target), links+1)
}
