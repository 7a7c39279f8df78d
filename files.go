package annals

import (
	"errors"
	"io"
	"maps"
	"sync"
	"sync/atomic"
)

// segmentFile is a segment that can be read. It is closed, and removed if it is
// retired, when the last version that holds it is gone.
type segmentFile struct {
	number uint64
	path   string
	header int64 // the length of its header line
	io.ReaderAt
	io.Closer

	versions atomic.Int64
	retired  atomic.Bool
}

// version is a set of segments that stays readable while somebody holds it. It
// never changes: rotation and compaction make a new one.
type version struct {
	files  *files
	byID   map[uint64]*segmentFile
	holder atomic.Int64
}

// files hands out versions. A reader takes the current version first and then
// looks into the index: an entry whose segment is not in the version was moved in
// between, and the reader starts again. That ends, since every entry of the index
// lies in the current version at all times: a segment is added before an entry
// points to it, and retired after the last one was moved away.
type files struct {
	current atomic.Pointer[version]
	mu      sync.Mutex
	remove  func(*segmentFile) // unlinks one that is retired

	lostMu sync.Mutex
	lost   []error // of closing
}

func newFiles(all []*segmentFile, remove func(*segmentFile)) *files {
	fs := &files{remove: remove}
	fs.publish(map[uint64]*segmentFile{}, all)
	return fs
}

// publish makes base and more the current version. Called with mu held, or
// before anybody else knows fs.
func (fs *files) publish(base map[uint64]*segmentFile, more []*segmentFile) {
	v := &version{files: fs, byID: base}
	for _, f := range more {
		v.byID[f.number] = f
	}
	for _, f := range v.byID {
		f.versions.Add(1)
	}
	v.holder.Store(1)
	if old := fs.current.Swap(v); old != nil {
		old.release()
	}
}

// add makes more segments readable.
func (fs *files) add(more ...*segmentFile) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.publish(maps.Clone(fs.current.Load().byID), more)
}

// retire takes segments out: they go when nobody reads them any more.
func (fs *files) retire(numbers []uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	base := maps.Clone(fs.current.Load().byID)
	for _, n := range numbers {
		base[n].retired.Store(true)
		delete(base, n)
	}
	fs.publish(base, nil)
}

// close lets go of all segments.
func (fs *files) close() error {
	fs.mu.Lock()
	old := fs.current.Swap(nil)
	fs.mu.Unlock()
	if old != nil {
		old.release()
	}
	fs.lostMu.Lock()
	defer fs.lostMu.Unlock()
	return errors.Join(fs.lost...)
}

// acquire returns the current version, to be released; nil if files is closed.
func (fs *files) acquire() *version {
	for {
		v := fs.current.Load()
		if v == nil || v.hold() {
			return v
		}
	}
}

// hold counts one more holder, unless the last one has gone.
func (v *version) hold() bool {
	for {
		n := v.holder.Load()
		if n == 0 {
			return false
		}
		if v.holder.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (v *version) release() {
	if v.holder.Add(-1) > 0 {
		return
	}
	for _, f := range v.byID {
		if f.versions.Add(-1) > 0 {
			continue
		}
		if err := f.Close(); err != nil {
			v.files.note(err)
		}
		if f.retired.Load() {
			v.files.remove(f)
		}
	}
}

// note keeps an error for close.
func (fs *files) note(err error) {
	fs.lostMu.Lock()
	defer fs.lostMu.Unlock()
	fs.lost = append(fs.lost, err)
}
