package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// disk is a file system in memory that records what is done to it, fails and
// holds operations on command, and knows what a power cut would leave. It has the
// verbs that the log needs; any other one panics.
//
// A failed sync behaves as Linux does: what it covered is lost, looks clean, and
// no later sync brings it back.
type disk struct {
	replace.FS
	t *testing.T

	mu       sync.Mutex
	files    map[string]*file
	handles  int
	ops      []string   // what was done, as "fdatasync 1"
	hastened [][2]int64 // what StartWriteback was told: offset and length
	sizes    []int64    // of the file behind each fdatasync
	rules    []*rule
	room     int64 // that all files together may take; 0 for no bound
}

// file is what one name stands for. Guarded by disk.mu.
type file struct {
	data    []byte
	kept    []byte // what a power cut leaves of it
	dirty   int    // from here on data is not in kept
	named   bool   // a power cut leaves its name
	writing int
	syncing int
}

func newDisk(t *testing.T) *disk { return &disk{t: t, files: map[string]*file{}} }

// rule is what happens to some operations: to the number from up to from+count-1
// of those that come after it was made, the first one if nothing is said.
type rule struct {
	op          string // "write", or "write 2" for segment 2 only, or "" for all
	from, count int
	err         error
	short       int           // bytes that a failing write leaves
	hold        chan struct{} // the operation waits until it is closed
	before      func()        // called before the operation

	seen, hit int
	first     string        // the operation to which it happened first
	reached   chan struct{} // closed when it did
}

const always = 1 << 30

// on adds a rule.
func (d *disk) on(r rule) *rule {
	r.from, r.count, r.reached = max(r.from, 1), max(r.count, 1), make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = append(d.rules, &r)
	return &r
}

// fail makes the next operation fail, hold makes it wait.
func (d *disk) fail(op string, err error) *rule { return d.on(rule{op: op, err: err}) }
func (d *disk) hold(op string) *rule            { return d.on(rule{op: op, hold: make(chan struct{})}) }

// limit bounds what all files together may take; 0 is no bound.
func (d *disk) limit(room int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = room
}

// heal takes all rules away.
func (d *disk) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = nil
}

func (d *disk) hits(r *rule) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return r.hit
}

// did returns the operations since it was called last.
func (d *disk) did() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ops := d.ops
	d.ops = nil
	return ops
}

// count is how many of the operations since the last call of did are op.
func (d *disk) count(op string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, done := range d.ops {
		if done == op || strings.HasPrefix(done, op+" ") {
			n++
		}
	}
	return n
}

// begin records an operation and returns how it fails, and what is left of it.
func (d *disk) begin(verb, path string) (short int, err error) {
	op := verb + " " + path
	if n, ok := segment.ParseName(filepath.Base(path)); ok {
		op = fmt.Sprintf("%s %d", verb, n)
	}
	d.mu.Lock()
	d.ops = append(d.ops, op)
	var hit *rule
	for _, r := range d.rules {
		if r.op != "" && r.op != verb && r.op != op {
			continue
		}
		if r.seen++; hit == nil && r.seen >= r.from && r.seen < r.from+r.count {
			hit = r
			if r.hit++; r.hit == 1 {
				r.first = op
				close(r.reached)
			}
		}
	}
	d.mu.Unlock()
	if hit == nil {
		return 0, nil
	}
	if hit.before != nil {
		hit.before()
	}
	if hit.hold != nil {
		<-hit.hold
	}
	if hit.err != nil {
		return hit.short, &fs.PathError{Op: verb, Path: path, Err: hit.err}
	}
	return 0, nil
}

func (d *disk) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	if flag != os.O_RDWR|os.O_CREATE|os.O_EXCL || perm != 0o600 {
		d.t.Errorf("%s opened with flag %x and mode %v", name, flag, perm)
	}
	if _, err := d.begin("create", name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	}
	f := &file{}
	d.files[name] = f
	d.handles++
	return &handle{disk: d, file: f, name: name}, nil
}

// StartWriteback makes the file a replace.Hastener.
func (h *handle) StartWriteback(off, n int64) error {
	_, err := h.begin("hasten", h.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hastened = append(h.hastened, [2]int64{off, n})
	return err
}

func (d *disk) Remove(name string) error {
	if _, err := d.begin("remove", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	delete(d.files, name)
	return nil
}

func (d *disk) SyncDir(name string) error {
	if _, err := d.begin("syncdir", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		f.named = true
	}
	return nil
}

// contents returns what the file of a segment holds, and what a power cut would
// leave of it.
func (d *disk) contents(number uint64) (data, kept []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[filepath.Join(dir, segment.Name(number))]
	if f == nil {
		return nil, nil
	}
	if f.named {
		kept = slices.Clone(f.kept)
	}
	return slices.Clone(f.data), kept
}

// line returns the place of a record in the file and as a power cut would leave it.
func (d *disk) line(r *Record) (data, kept []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[filepath.Join(dir, segment.Name(r.Segment))]
	if f == nil {
		return nil, nil
	}
	part := func(b []byte) []byte {
		return slices.Clone(b[min(len(b), int(r.Offset)):min(len(b), int(r.Offset)+r.Len)])
	}
	if f.named {
		kept = part(f.kept)
	}
	return part(f.data), kept
}

// scribble lets somebody else append to a file.
func (d *disk) scribble(number uint64, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[filepath.Join(dir, segment.Name(number))]
	f.data = append(f.data, text...)
}

func (d *disk) used() (bytes int64) {
	for _, f := range d.files {
		bytes += int64(len(f.data))
	}
	return bytes
}

// handle is an open file.
type handle struct {
	replace.File
	*disk
	file   *file
	name   string
	closed bool
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, fs.ErrClosed
	}
	if off >= int64(len(h.file.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.file.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// during makes sure that the log never has two operations under way that change
// the file.
func (h *handle) during(count *int) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		h.t.Errorf("%s changed after it was closed", h.name)
	case h.file.syncing > 0:
		h.t.Errorf("%s changed or synced while a sync is in flight", h.name)
	case h.file.writing > 0:
		h.t.Errorf("%s changed or synced while a write is in flight", h.name)
	}
	*count++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		*count--
	}
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	defer h.during(&h.file.writing)()
	short, err := h.begin("write", h.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(p)
	if err != nil {
		n = min(n, short)
	} else if grows := off + int64(len(p)) - int64(len(h.file.data)); h.room > 0 && grows > 0 && h.used()+grows > h.room {
		n = max(0, n-int(h.used()+grows-h.room))
		err = &fs.PathError{Op: "write", Path: h.name, Err: syscall.ENOSPC}
	}
	if end := int(off) + n; n > 0 && end > len(h.file.data) {
		h.file.data = append(h.file.data, make([]byte, end-len(h.file.data))...)
	}
	copy(h.file.data[min(int(off), len(h.file.data)):], p[:n])
	h.file.dirty = min(h.file.dirty, int(off))
	return n, err
}

func (h *handle) Truncate(size int64) error {
	defer h.during(&h.file.writing)()
	if _, err := h.begin("truncate", h.name); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.file.data = h.file.data[:size]
	h.file.dirty = min(h.file.dirty, int(size))
	return nil
}

func (h *handle) Sync() error     { return h.sync("fsync") }
func (h *handle) SyncData() error { return h.sync("fdatasync") }

func (h *handle) sync(verb string) error {
	defer h.during(&h.file.syncing)()
	_, err := h.begin(verb, h.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.file
	if verb == "fdatasync" {
		h.sizes = append(h.sizes, int64(len(f.data)))
	}
	if err == nil {
		f.kept = append(f.kept[:min(f.dirty, len(f.kept))], bytes.Repeat([]byte{0}, max(0, f.dirty-len(f.kept)))...)
		f.kept = append(f.kept, f.data[f.dirty:]...)
	}
	f.dirty = len(f.data)
	return err
}

func (h *handle) Stat() (fs.FileInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return size{n: int64(len(h.file.data))}, nil
}

func (h *handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return &fs.PathError{Op: "close", Path: h.name, Err: fs.ErrClosed}
	}
	h.closed = true
	h.handles--
	return nil
}

type size struct {
	fs.FileInfo
	n int64
}

func (s size) Size() int64 { return s.n }

var errDisk = errors.New("disk error")
