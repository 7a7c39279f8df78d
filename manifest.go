package annals

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// maxManifest bounds the size of MANIFEST that is read: 10 million segments.
const maxManifest = 2 << 30

// readManifest reads MANIFEST. A missing one is fs.ErrNotExist.
func readManifest(fsys replace.FS, dir string) (m segment.Manifest, err error) {
	path := filepath.Join(dir, manifestName)
	file, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return m, err
	}
	if info.Size() > maxManifest {
		return m, &CorruptError{Path: path, Offset: maxManifest, Reason: fmt.Sprintf("the file is %d bytes long", info.Size())}
	}
	return segment.ReadManifest(path, file, info.Size())
}

// writeManifest replaces MANIFEST. An error other than *replace.SyncError means
// that the old one is still there. Nothing is written that could not be read again.
func writeManifest(fsys replace.FS, dir string, m *segment.Manifest) error {
	path := filepath.Join(dir, manifestName)
	text := m.Append(nil)
	if _, err := segment.ParseManifest(path, text); err != nil {
		return fmt.Errorf("annals: refusing to write a MANIFEST that could not be read: %w", err)
	}
	err := replace.WriteFile(path, text, replace.On(fsys), replace.PermAlways(0o600))
	var unsynced *replace.SyncError
	if err == nil || errors.As(err, &unsynced) {
		return err
	}
	// A rename may have failed and be done nevertheless.
	if now, again := readManifest(fsys, dir); again == nil && now.Generation == m.Generation || again != nil && !errors.Is(again, fs.ErrNotExist) {
		return &replace.SyncError{Path: path, Err: errors.Join(err, again), Unknown: true}
	}
	return err
}

// newManifest is that of a store in which nothing is yet.
func newManifest(clock int64) (segment.Manifest, error) {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return segment.Manifest{}, err
	}
	return segment.Manifest{Store: hex.EncodeToString(id), Next: 1, Seq: 1, History: 1, Clock: clock}, nil
}

// listing is what lies in a store's directory.
type listing struct {
	segments   []uint64 // by number
	manifest   bool
	index      bool
	temps      []string // unfinished files of MANIFEST
	foreign    []string // everything that annals did not make
	quarantine bool
	greatest   uint64 // the greatest segment number, in quarantine too

	// strange is an error if a name of annals' own stands for something else, a
	// link for one: nothing must be read or written through it. Verify and Repair
	// pass such names by.
	strange error
}

func listDir(fsys replace.FS, dir string) (listing, error) {
	var l listing
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return l, err
	}
	for _, e := range entries {
		name := e.Name()
		n, isSegment := segmentNumber(name)
		isTemp := replace.IsTempOf(name, manifestName) || replace.IsTempOf(name, indexName)
		isFile := isSegment || isTemp || name == manifestName || name == lockName || name == indexName
		if isFile && !e.Type().IsRegular() {
			l.strange = fmt.Errorf("%w: %q is not a regular file (%v)", ErrNotStore, filepath.Join(dir, name), e.Type())
		}
		switch {
		case isSegment:
			l.segments = append(l.segments, n)
			l.greatest = max(l.greatest, n)
		case name == manifestName:
			l.manifest = true
		case name == lockName:
		case name == indexName:
			l.index = true
		case name == quarantineName && e.IsDir():
			l.quarantine = true
		case name == quarantineName:
			l.strange = fmt.Errorf("%w: %q is not a directory (%v)", ErrNotStore, filepath.Join(dir, name), e.Type())
			l.foreign = append(l.foreign, name)
		case isTemp:
			l.temps = append(l.temps, name)
		default:
			l.foreign = append(l.foreign, name)
		}
	}
	if !l.quarantine {
		return l, nil
	}
	kept, err := fsys.ReadDir(filepath.Join(dir, quarantineName))
	for _, e := range kept {
		l.greatest = max(l.greatest, tailSegment(e.Name()))
	}
	return l, err
}

// segmentNumber is segment.ParseName for numbers that MANIFEST can hold: nobody may
// use up the others by the name of a file.
func segmentNumber(name string) (n uint64, ok bool) {
	n, ok = segment.ParseName(name)
	return n, ok && n < segment.MaxSeq
}

// tailName is the name in quarantine of what was cut off a segment.
func tailName(number uint64, offset int64) string {
	return fmt.Sprintf("%020d-%d.tail", number, offset)
}

// tailSegment returns the segment that a file in quarantine was cut off, 0 for a
// file that recovery did not make: a number is not taken from a stranger.
func tailSegment(name string) uint64 {
	digits, rest, _ := strings.Cut(name, "-")
	number, isSegment := segmentNumber(digits + ".log")
	offset, err := strconv.ParseInt(strings.TrimSuffix(rest, ".tail"), 10, 64)
	if !isSegment || err != nil || tailName(number, offset) != name {
		return 0
	}
	return number
}

// missing judges a directory without MANIFEST: nil if it is, or can become, a new
// store.
func (l *listing) missing(dir string) error {
	switch {
	case slices.Contains(l.foreign, unfinishedName):
		return fmt.Errorf("%w: %q is the outcome of a repair that has not ended; remove it and repair again", ErrNotStore, dir)
	case len(l.segments) > 0:
		return &CorruptError{Path: filepath.Join(dir, manifestName), Reason: "the file is missing beside segments; annals repair can rebuild it"}
	case len(l.foreign) > 0:
		return fmt.Errorf("%w: %q holds other files, %q among them", ErrNotStore, dir, l.foreign[0])
	case l.quarantine || l.index:
		return fmt.Errorf("%w: %q holds parts of a store but no MANIFEST", ErrNotStore, dir)
	}
	return nil
}

// unlisted returns the segments that m does not list.
func (l *listing) unlisted(m *segment.Manifest) []uint64 {
	return slices.DeleteFunc(slices.Clone(l.segments), func(n uint64) bool {
		_, sealed := slices.BinarySearchFunc(m.Sealed, n, bySegment)
		return n == m.Open || sealed
	})
}

// leftover is an unlisted segment that an interrupted job has left.
type leftover struct {
	path   string
	copied bool // it is a copy of the open segment: an earlier recovery did not finish
}

// judgeUnlisted looks at an unlisted segment before anything is changed. If it
// has its whole header, is no copy of the open segment, and holds a record that
// MANIFEST says does not exist yet, then MANIFEST is older than the log:
// corruption. Everything else is a leftover: compaction's inputs and outputs,
// recovery's copies, a next segment that never got a record. Of what was made from
// others only a recovery's copy can hold such records, since compaction takes in
// what MANIFEST listed as sealed, below its seq; and only that of the open segment,
// or one that was there when MANIFEST was written, may go.
func judgeUnlisted(fsys replace.FS, dir string, number uint64, m *segment.Manifest) (left leftover, err error) {
	left.path = filepath.Join(dir, segment.Name(number))
	file, err := fsys.OpenFile(left.path, os.O_RDONLY, 0)
	if err != nil {
		return left, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return left, err
	}
	steady := newlineFilled{file} // who has no lock may meet a file of which the padding is being cut
	h, _, err := segment.ReadHeader(steady, info.Size(), left.path)
	switch {
	case errors.Is(err, ErrCorrupt):
		return left, nil
	case err != nil:
		return left, err
	case m.Open != 0 && h.MadeFrom(m.Open):
		left.copied = true
		return left, nil
	case h.From != nil && number < m.Next:
		// It was there when MANIFEST was written: the copy of a recovery that was
		// interrupted, whose removal a crash has taken back.
		return left, nil
	}
	scan := segment.NewScanner(steady, 0, info.Size())
	for scan.Scan() {
		if l := scan.Line(); l.Kind == segment.RecordLine && l.View.Seq >= m.Seq {
			return left, &CorruptError{
				Path: filepath.Join(dir, manifestName), FirstSeq: m.Seq, LastSeq: l.View.Seq,
				Reason: fmt.Sprintf("it is older than the log: segment %d, which it does not list, holds record %d; annals repair can rebuild it", number, l.View.Seq),
			}
		}
	}
	return left, scan.Err()
}

// storeExists tells whether dir holds a store, and refuses what can't become one.
func storeExists(fsys replace.FS, dir string) (bool, error) {
	l, err := lookInto(fsys, dir)
	if l == nil {
		return false, err
	}
	if l.strange != nil {
		return false, l.strange
	}
	return l.manifest, err
}

// lookInto lists what is to be a store, or refuses what can't become one. The
// listing is nil if there is no such directory.
func lookInto(fsys replace.FS, dir string) (*listing, error) {
	info, err := fsys.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %q is a file, a store is a directory", ErrNotStore, dir)
	}
	l, err := listDir(fsys, dir)
	if err == nil && !l.manifest {
		err = l.missing(dir)
	}
	return &l, err
}

// errNoStore is what a reader gets where a writer would make a store.
func errNoStore(dir string) error {
	return fmt.Errorf("%w: %q does not exist or is empty", ErrNotStore, dir)
}
