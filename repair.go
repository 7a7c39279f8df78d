package annals

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// Repair makes a new store in dest, which must be missing or empty and outside
// dir, of every record in dir whose line is whole, and says what is lost. It is
// for a store that Open refuses; a store that opens needs none.
//
// dir is only read, no lock is taken, and nobody should write there meanwhile.
// Bytes that are no good line are kept in dest/quarantine. After an error, or when
// ctx has ended, dest is as it was before; if the process dies, dest holds a file
// that says so, and is no store.
//
// A line counts by itself: its own checksum decides, not the lines around it. So
// where a delete is lost the key is back with its older value, and of a commit that
// is damaged the good part is there. The report names the numbers of what is lost,
// and the commits that are not whole.
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
	r := &repairer{ctx: ctx, fs: fsys, dir: dir, dest: dest, progress: progress, open: map[int]replace.File{}}
	r.source = &source{FS: fsys, ctx: ctx, tell: r.tell, patchy: true}
	err = errors.Join(r.run(), r.closeFiles())
	return r.report, err
}

// RepairReport is what Repair saved and what it could not.
type RepairReport struct {
	Store    string          `json:"store,omitempty"`
	Segments int             `json:"segments"`           // files read
	Records  uint64          `json:"records"`            // lines saved
	Lost     []*CorruptError `json:"lost,omitempty"`     // damage that cost records, or may have; its sequence numbers are 0 where they are not known
	Damage   []*CorruptError `json:"damage,omitempty"`   // damage that cost nothing known to have been durable
	Partial  []SeqRange      `json:"partial,omitempty"`  // what is saved of commits that are not whole
	Kept     []Quarantined   `json:"kept,omitempty"`     // copies of the bytes that are no good lines
	LeftOut  []LeftOut       `json:"left_out,omitempty"` // files that are no part of the store
}

// OK reports whether nothing is lost.
func (r RepairReport) OK() bool { return len(r.Lost) == 0 }

// SeqRange is a range of sequence numbers, both ends included.
type SeqRange struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// LeftOut is a file that Repair did not take as part of the store.
type LeftOut struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// repairer is a Repair at work. The phases, in this order, first only look and
// then act:
//
//	look      every segment file: what it is, its good lines, its bad ones
//	judge     which files are the store, and which of two lines with one number
//	account   what is lost, from the numbers that must have been there
//	make      quarantine, segments, MANIFEST
type repairer struct {
	ctx         context.Context
	fs          replace.FS
	source      *source
	dir, dest   string
	progress    func(done, total int64)
	done, total int64
	told        int64

	manifest segment.Manifest // what is known of it
	trusted  bool             // it is whole, and not older than the log
	begins   uint64           // the open segment begins with this number, it says
	files    []*repairFile
	saved    []savedRecord
	doubles  []savedRecord        // left out: another line has the number, and other contents
	open     map[int]replace.File // by index in files
	report   RepairReport
}

// savedRecord is a record with a whole line. A store has many: it must be small.
type savedRecord struct {
	seq    uint64
	offset int64
	file   int32  // index in files
	size   uint32 // of the line without its newline, and flags
}

// The flags of a savedRecord, above the size of the longest line.
const (
	isSample   = 1 << 31
	isMore     = 1 << 30 // the commit goes on
	sizeOfLine = isMore - 1
)

func (s *savedRecord) bytes() int { return int(s.size & sizeOfLine) }

// unfinishedName is a file in the directory that Repair fills, until that is a
// store.
const unfinishedName = "UNFINISHED"

func (r *repairer) run() error {
	if err := r.guard(); err != nil {
		return err
	}
	if err := r.look(); err != nil {
		return err
	}
	unread := r.source.unread
	if err := r.judge(); err != nil {
		return err
	}
	if len(r.saved) == 0 && len(unread) > 0 {
		return fmt.Errorf("annals: no line in %q can be read: %w", r.dir, unread[0].err)
	}
	if r.manifest.Store == "" {
		if len(r.saved) == 0 {
			return fmt.Errorf("%w: no line in %q is whole", ErrNotStore, r.dir)
		}
		fresh, err := newManifest(r.manifest.Clock)
		if err != nil {
			return err
		}
		r.manifest.Store = fresh.Store
		r.damaged(&CorruptError{Path: r.dir, Reason: "neither MANIFEST nor a header says which store this is; the new one is called " + fresh.Store})
	}
	r.report.Store = r.manifest.Store
	r.account()
	for _, u := range unread {
		r.explain(u)
	}
	return r.make()
}

// guard makes sure that there is something to repair and room for the outcome.
func (r *repairer) guard() error {
	l, err := listDir(r.source, r.dir)
	switch {
	case err != nil:
		return err
	case !l.manifest && len(l.segments) == 0:
		return errNoStore(r.dir)
	case !l.manifest && slices.Contains(l.foreign, unfinishedName):
		return l.missing(r.dir)
	}
	within, err := inside(r.source, r.dest, r.dir)
	if err == nil && within {
		err = fmt.Errorf("annals: %q lies in %q, which is only read", r.dest, r.dir)
	}
	if err != nil {
		return err
	}
	entries, err := r.fs.ReadDir(r.dest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("annals: %q is not empty, and nothing is overwritten", r.dest)
	}
	return err
}

// look reads MANIFEST and every segment file.
func (r *repairer) look() error {
	l, err := listDir(r.source, r.dir)
	if err != nil {
		return err
	}
	if err := r.readManifest(); err != nil {
		return err
	}
	for _, n := range l.segments {
		info, err := r.source.Lstat(filepath.Join(r.dir, segment.Name(n)))
		if err == nil {
			r.total += 2 * info.Size()
		}
	}
	for _, n := range l.segments {
		if err := r.readFile(n); err != nil {
			return err
		}
	}
	r.manifest.Next = max(r.manifest.Next, min(l.greatest, maxNumber)+1)
	return nil
}

// maxNumber bounds the numbers of segments and records that are believed: above
// them a new store could not go on.
const maxNumber = segment.MaxSeq - 1<<32

// readManifest reads what there is of MANIFEST.
func (r *repairer) readManifest() error {
	path := filepath.Join(r.dir, manifestName)
	m, err := readManifest(r.source, r.dir)
	damage := (*CorruptError)(nil)
	switch {
	case err == nil:
		r.manifest, r.trusted, r.begins = m, true, m.Seq
		return nil
	case errors.As(err, &damage):
		damage.Reason += "; the segments say what they are"
	case errors.Is(err, fs.ErrNotExist):
		damage = &CorruptError{Path: path, Reason: "the file is missing; the segments say what they are"}
	case errors.Is(err, replace.ErrNotRegular):
		damage = &CorruptError{Path: path, Reason: "it is not a regular file; the segments say what they are"}
	default:
		return err
	}
	r.damaged(damage)
	r.manifest = segment.Manifest{Next: 1, Seq: 1, History: 1}
	file, err := r.source.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, replace.ErrNotRegular) {
		return nil // as said
	}
	if err != nil {
		return err
	}
	defer file.Close() // only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	rest, err := segment.SalvageManifest(file, min(info.Size(), maxManifest))
	if rest.Store == "" {
		rest.Next, rest.Seq, rest.History = 1, 1, 1
	}
	r.manifest = rest
	return err
}

func (r *repairer) lose(e *CorruptError)    { r.report.Lost = append(r.report.Lost, e) }
func (r *repairer) damaged(e *CorruptError) { r.report.Damage = append(r.report.Damage, e) }

// tell reports progress, now and then.
func (r *repairer) tell(bytes int) {
	const slice = 1 << 20
	r.done += int64(bytes)
	if r.progress != nil && r.done-r.told >= slice {
		r.told = r.done
		r.progress(min(r.done, r.total), r.total)
	}
}

// file returns one of files, open for reading. Few stay open at a time.
func (r *repairer) file(i int) (replace.File, error) {
	const most = 64
	if file := r.open[i]; file != nil {
		return file, nil
	}
	if len(r.open) >= most {
		if err := r.closeFiles(); err != nil {
			return nil, err
		}
	}
	file, err := r.source.OpenFile(r.files[i].path, os.O_RDONLY, 0)
	if err == nil {
		r.open[i] = file
	}
	return file, err
}

func (r *repairer) closeFiles() (err error) {
	for i, file := range r.open {
		err = errors.Join(err, file.Close())
		delete(r.open, i)
	}
	return err
}
