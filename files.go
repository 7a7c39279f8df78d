package annals

import (
	"errors"
	"io"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/annalsdb/annals/replace"
)

// segmentFile is a segment that can be read. It is closed, and removed if it is
// retired, when the last version that holds it is gone.
type segmentFile struct {
	number    uint64
	path      string
	header    int64 // the length of its header line
	compacted bool  // an output of compaction
	io.ReaderAt
	io.Closer

	mapped   atomic.Pointer[replace.Mapping] // once the segment is sealed, where files can be mapped
	versions atomic.Int64
	retired  atomic.Bool
}

// mapFile maps a sealed segment, given its file and length. Where that can't be, the
// file is read.
func (f *segmentFile) mapFile(file replace.File, size int64) {
	if m, err := replace.Map(file, size); err == nil {
		f.mapped.Store(m)
	}
}

// ReadAt reads from the mapping, if there is one. What can't be had there is read
// from the file, which knows why.
func (f *segmentFile) ReadAt(p []byte, off int64) (int, error) {
	if m := f.mapped.Load(); m != nil {
		if n, err := m.ReadAt(p, off); err == nil {
			return n, nil
		}
	}
	return f.ReaderAt.ReadAt(p, off)
}

// part returns size bytes from an offset on as memory, nil if they are not mapped.
// Who touches it must expect a fault.
func (f *segmentFile) part(off int64, size int) []byte {
	if m := f.mapped.Load(); m != nil && off+int64(size) <= int64(len(m.Bytes())) {
		return m.Bytes()[off : off+int64(size)]
	}
	return nil
}

// Close closes the file, which nobody reads any more.
func (f *segmentFile) Close() error {
	err := f.Closer.Close()
	if m := f.mapped.Swap(nil); m != nil {
		err = errors.Join(err, m.Close())
	}
	return err
}

// version is a set of segments that stays readable while somebody holds it. It
// never changes: rotation and compaction make a new one.
//
// Its holders are counted in lanes, each on a cache line of its own, so that readers
// on different processors don't wait for each other's counter. That costs an
// argument, for nobody sees all lanes at one moment.
//
//  1. To hold a version is to count up a lane and then to see that the version is
//     current still; else one counts down again and touches nothing. So every hold
//     was counted before the version was replaced.
//  2. Hence the holds in a lane only get fewer once replaced is set, and a lane that
//     is seen at 0 then has none, for ever. (Those who count up too late, and down
//     again, can make it look held, not free.)
//  3. letGo looks at all lanes, after replaced was set: 0 in each, in any order, is
//     therefore the end of all holds.
//  4. Somebody sees that: who replaces the version looks, and everybody who counts a
//     lane down to 0 and finds replaced set. Of the last holds to go, in whatever
//     lanes, one counts down last, and it finds all lanes at 0; if it does not find
//     replaced set, the look of the one who sets it comes later.
//
// A Snapshot, which has a hold, takes more of them in the same lane without looking
// whether the version is current: see Snapshot.enter. That lane does not reach 0
// before the Snapshot's own hold goes, so 2 is true of it as well.
type version struct {
	files    *files
	byID     map[uint64]*segmentFile
	replaced atomic.Bool // it is not the current version any more
	gone     atomic.Bool // its segments were let go
	lanes    [lanes]lane
}

// lanes is how many counters a version has: more than most machines have processors,
// of which two share one without harm.
const lanes = 32

// lane counts holders. Processors fetch cache lines in pairs.
type lane struct {
	holders atomic.Int64
	_       [120]byte
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
	if old := fs.current.Swap(v); old != nil {
		old.replace()
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
		old.replace()
	}
	fs.lostMu.Lock()
	defer fs.lostMu.Unlock()
	return errors.Join(fs.lost...)
}

// sealed maps a segment that will not change any more.
func (fs *files) sealed(number uint64) {
	v := fs.acquire()
	if v == nil {
		return
	}
	defer v.release() // until then a compaction can't have closed it
	if f := v.byID[number]; f != nil && f.mapped.Load() == nil {
		if s, ok := f.ReaderAt.(interface {
			Map() (*replace.Mapping, error)
		}); ok {
			if m, err := s.Map(); err == nil {
				f.mapped.Store(m)
			}
		}
	}
}

// acquire returns the current version, to be released; nil if files is closed.
func (fs *files) acquire() *version { return fs.enter(0) }

func (v *version) release() { v.leave(0) }

// enter is acquire with a lane, for those who come often.
func (fs *files) enter(n int) *version {
	for {
		v := fs.current.Load()
		if v == nil {
			return nil
		}
		v.lanes[n].holders.Add(1)
		if fs.current.Load() == v {
			return v
		}
		v.leave(n)
	}
}

func (v *version) leave(n int) {
	if v.lanes[n].holders.Add(-1) == 0 && v.replaced.Load() {
		v.letGo()
	}
}

// replace ends a version that is not the current one any more, now or with its last
// holder.
func (v *version) replace() {
	v.replaced.Store(true)
	v.letGo()
}

// letGo closes what no other version holds, unless somebody holds this one.
func (v *version) letGo() {
	for n := range v.lanes {
		if v.lanes[n].holders.Load() != 0 {
			return
		}
	}
	if v.gone.Swap(true) {
		return // two may see the end
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
