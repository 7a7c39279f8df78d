package annals

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// Backup makes directory dir a copy of the store as it is now, which opens and
// verifies as a store of its own. dir must be missing or empty. Sealed segments
// are linked where the file system can, else copied; the durable part of the open
// one is copied as sealed; MANIFEST comes last, so an interrupted copy is no store.
// INDEX is not copied: the first Open of the copy reads, and checks, all of it.
// Reads and writes go on meanwhile.
func (s *Store) Backup(ctx context.Context, dir string) error {
	if _, err := s.Sync(ctx); err != nil {
		return err
	}
	for {
		v := s.files.acquire()
		if v == nil {
			return ErrClosed
		}
		b := backup{fs: s.opts.FS, version: v, manifest: s.manifest.copy()}
		// After MANIFEST: a compaction in it may have dropped a record because of a
		// newer one, which then is durable, and must be in the copy.
		b.last = s.Durable()
		if b.complete() && s.manifest.copy().Generation == b.manifest.Generation {
			defer v.release()
			b.manifest.Clock = s.clock.now() // the marks, which say it too, are not copied
			return b.run(ctx, dir)
		}
		v.release() // a rotation or compaction came in between
	}
}

// backup is a store that is being copied.
type backup struct {
	fs       replace.FS
	version  *version // holds all segments of manifest
	manifest segment.Manifest
	last     uint64 // copy no record above this from the open segment
}

func (b *backup) complete() bool {
	for i := range b.manifest.Sealed {
		if b.version.byID[b.manifest.Sealed[i].Segment] == nil {
			return false
		}
	}
	return b.manifest.Open == 0 || b.version.byID[b.manifest.Open] != nil
}

func (b *backup) run(ctx context.Context, dir string) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := emptyDir(b.fs, dir); err != nil {
		return err
	}
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				if e := b.fs.Remove(path); !errors.Is(e, fs.ErrNotExist) {
					err = errors.Join(err, e)
				}
			}
		}
	}()
	for i := range b.manifest.Sealed {
		f := &b.manifest.Sealed[i]
		path := filepath.Join(dir, segment.Name(f.Segment))
		err := b.sealed(ctx, f, path)
		if !errors.Is(err, fs.ErrExist) { // which is another backup's, or planted
			made = append(made, path)
		}
		if err != nil {
			return err
		}
	}
	path, err := b.open(dir)
	if path != "" {
		made = append(made, path)
	}
	if err != nil {
		return err
	}
	if err := b.fs.SyncDir(dir); err != nil {
		return err
	}
	b.manifest.Generation++
	err = writeManifest(b.fs, dir, &b.manifest)
	var unsynced *replace.SyncError
	if errors.As(err, &unsynced) && unsynced.Unknown {
		made = nil // MANIFEST lists it: the copy is whole, and perhaps not durable
	}
	return err
}

// sealed links or copies a segment that never changes again.
func (b *backup) sealed(ctx context.Context, f *segment.Footer, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	src := b.version.byID[f.Segment]
	// A link is as good as the file: that nothing is missing at its end costs no time to
	// see, and a backup of less must not take the place of an older one.
	if _, err := src.ReaderAt.ReadAt(make([]byte, 1), f.Size()-1); err == io.EOF {
		return &CorruptError{Path: src.path, FirstSeq: f.First, LastSeq: f.Last, Reason: fmt.Sprintf("the file is shorter than the %d bytes that MANIFEST says", f.Size())}
	} else if err != nil {
		return fmt.Errorf("annals: reading %q: %w", src.path, err)
	}
	if b.fs.Link(src.path, path) == nil {
		return nil
	}
	// Another file system, or one without links. A copy is worth what it was made
	// of, so the bytes are held against the footer.
	problems, err := segment.CheckSealed(src, f.Size(), src.path, b.manifest.Store, *f, nil)
	if err == nil && len(problems) > 0 {
		err = problems[0]
	}
	if err != nil {
		return err
	}
	return copyFile(ctx, b.fs, src, f.Size(), path)
}

// open copies the durable records of the open segment to a sealed one.
func (b *backup) open(dir string) (path string, err error) {
	m := &b.manifest
	if m.Open == 0 {
		return "", nil
	}
	src := b.version.byID[m.Open]
	end := src.ReaderAt.(interface{ Size() int64 }).Size() // of a segment that is open: how much of it holds lines
	h, _, err := segment.ReadHeader(src, end, src.path)
	if err != nil {
		return "", err
	}
	m.Open = 0
	m.Seq = max(m.Seq, b.last+1)
	if h.First > b.last {
		return "", nil
	}
	number := m.Next
	m.Next++
	path = filepath.Join(dir, segment.Name(number))
	copied, err := copySealed(b.fs, dir, src, src.path, &h, number, end, b.last)
	if err != nil {
		return "", err
	}
	m.Sealed = insertFooter(m.Sealed, copied.footer)
	return path, nil
}

// emptyDir makes a directory, or makes sure that it is empty. One that is there
// already has its name made durable as well: nobody may have done that.
func emptyDir(fsys replace.FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("annals: %q is not empty, and nothing is overwritten", dir)
	}
	return replace.MkdirAll(fsys, dir, 0o700)
}
