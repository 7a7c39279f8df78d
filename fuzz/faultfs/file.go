package faultfs

import (
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/annalsdb/annals/replace"
)

// file implements replace.File.
type file struct {
	fs            *FS
	node          *inode
	name          string
	reads, writes bool
	closed        bool
	lock          lockState
}

type lockState int

const (
	unlocked lockState = iota
	shared
	exclusive
)

// begin counts an operation on the file; fs.mu is held from here on.
func (h *file) begin(kind Kind, off int64, n int) (*Fault, error) {
	fault := h.fs.begin(Op{Kind: kind, Path: h.name, Off: off, Len: n})
	if h.closed {
		return nil, pathError(kind.String(), h.name, fs.ErrClosed)
	}
	return fault, nil
}

// ReadAt implements replace.File.
func (h *file) ReadAt(p []byte, off int64) (int, error) {
	fault, err := h.begin(Read, off, len(p))
	defer h.fs.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case !h.reads:
		return 0, pathError("read", h.name, syscall.EBADF)
	case off < 0:
		return 0, pathError("readat", h.name, syscall.EINVAL)
	}
	want := len(p)
	if fault != nil {
		want = min(want, fault.Bytes) // what a failed read did not reach is not in p
	}
	n := 0
	if off < int64(len(h.node.data)) {
		n = copy(p[:want], h.node.data[off:])
	}
	if fault != nil {
		return n, pathError("read", h.name, fault.err(io.ErrUnexpectedEOF))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements replace.File.
func (h *file) WriteAt(p []byte, off int64) (int, error) {
	fault, err := h.begin(Write, off, len(p))
	defer h.fs.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case !h.writes:
		return 0, pathError("write", h.name, syscall.EBADF)
	case off < 0:
		return 0, pathError("writeat", h.name, syscall.EINVAL)
	}
	if fault != nil {
		n := min(len(p), fault.Bytes)
		h.fs.write(h.node, p[:n], off)
		return n, pathError("write", h.name, fault.err(io.ErrShortWrite))
	}
	h.fs.write(h.node, p, off)
	return len(p), nil
}

// write makes one effect for each piece that may reach the disk without the
// others, and one for a new length.
func (f *FS) write(n *inode, p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	if end := off + int64(len(p)); end > int64(len(n.data)) {
		n.resize(f.now, end)
	}
	n.own()
	p = append([]byte(nil), p...)
	copy(n.data[off:], p)
	for len(p) > 0 {
		size := min(int64(len(p)), f.Tear-off%f.Tear)
		n.log = append(n.log, &effect{op: f.now, off: off, bytes: p[:size], size: -1})
		p, off = p[size:], off+size
	}
}

func (n *inode) resize(op Op, size int64) {
	e := &effect{op: op, off: int64(len(n.data)), size: size}
	n.log = append(n.log, e)
	n.own()
	n.data = e.file(n.data, Kept)
}

// own makes data a slice that nobody else has.
func (n *inode) own() {
	if n.shared {
		n.data, n.shared = append([]byte(nil), n.data...), false
	}
}

// file makes what a crash has left of a file's effect on its contents, in place.
// Bytes beyond the end, because the new length did not reach the disk, are not
// there.
func (e *effect) file(data []byte, fate Fate) []byte {
	if e.size >= 0 {
		size := e.size
		switch {
		case fate.Bytes == 0:
			return data
		case size > e.off:
			size = e.off + min(size-e.off, int64(fate.Bytes))
		}
		if size <= int64(len(data)) {
			return data[:size:size]
		}
		return append(data, make([]byte, size-int64(len(data)))...)
	}
	if e.off >= int64(len(data)) {
		return data
	}
	here := data[e.off:min(int64(len(data)), e.off+int64(len(e.bytes)))]
	n := copy(here, e.bytes[:min(len(e.bytes), fate.Bytes)])
	fate.Rest.fill(here[n:], e.op.N)
	return data
}

// Truncate implements replace.File.
func (h *file) Truncate(size int64) error {
	fault, err := h.begin(Truncate, size, 0)
	defer h.fs.mu.Unlock()
	switch {
	case err != nil:
		return err
	case fault != nil:
		return pathError("truncate", h.name, fault.Err)
	case !h.writes || size < 0:
		return pathError("truncate", h.name, syscall.EINVAL)
	}
	if size != int64(len(h.node.data)) {
		h.node.resize(h.fs.now, size)
	}
	return nil
}

// Sync implements replace.File.
func (h *file) Sync() error { return h.sync(Sync) }

// SyncData implements replace.File.
func (h *file) SyncData() error { return h.sync(SyncData) }

func (h *file) sync(kind Kind) error {
	fault, err := h.begin(kind, 0, 0)
	defer h.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if late := h.node.late; late != nil {
		h.node.late = nil
		return pathError(kind.String(), h.name, late)
	}
	if fault == nil {
		h.node.harden()
		return nil
	}
	switch h.fs.Failure {
	case Ext4Data:
		h.node.late = fault.Err
		h.node.lose()
		return nil
	case Btrfs:
		h.node.log = slices.DeleteFunc(h.node.log, func(e *effect) bool { return e.state == pending })
		h.node.data, h.node.shared = h.node.onDisk(func(*effect) Fate { return Gone }), true
	case XFS:
		h.node.lose()
		for _, e := range h.node.log {
			if e.size >= 0 {
				e.state = durable
			}
		}
	default:
		h.node.lose()
	}
	return pathError(kind.String(), h.name, fault.Err)
}

// harden makes all pending effects durable.
func (n *inode) harden() {
	clean := true
	for _, e := range n.log {
		if e.state == pending {
			e.state = durable
		}
		clean = clean && e.state == durable
	}
	if !clean {
		return
	}
	// All is on the disk: there is nothing to choose from any more.
	if n.mode.IsDir() {
		for _, e := range n.log {
			e.apply(n.names)
		}
	} else {
		n.disk, n.shared = n.data, true
	}
	n.log = nil
}

// lose makes all pending effects such that no later sync covers them.
func (n *inode) lose() {
	for _, e := range n.log {
		if e.state == pending {
			e.state = lost
		}
	}
}

// Stat implements replace.File.
func (h *file) Stat() (fs.FileInfo, error) {
	fault, err := h.begin(Stat, 0, 0)
	defer h.fs.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if fault != nil {
		return nil, pathError("stat", h.name, fault.Err)
	}
	return h.node.info(filepath.Base(h.name)), nil
}

// Close implements replace.File. The file is closed even if that fails.
func (h *file) Close() error {
	fault, err := h.begin(Close, 0, 0)
	defer h.fs.mu.Unlock()
	if err != nil {
		return err
	}
	h.release()
	h.closed = true
	h.fs.open--
	if fault != nil {
		return pathError("close", h.name, fault.Err)
	}
	return nil
}

// Lock implements replace.File.
func (h *file) Lock(alone, wait bool) error {
	fault, err := h.begin(Lock, 0, 0)
	defer h.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if fault != nil {
		return pathError("lock", h.name, fault.Err)
	}
	h.release()
	n := h.node
	for n.exclusive || alone && n.sharers > 0 {
		if !wait {
			return pathError("lock", h.name, replace.ErrLocked)
		}
		n.unlocked.Wait()
	}
	if alone {
		n.exclusive, h.lock = true, exclusive
	} else {
		n.sharers++
		h.lock = shared
	}
	return nil
}

// Unlock implements replace.File.
func (h *file) Unlock() error {
	_, err := h.begin(Lock, 0, 0)
	defer h.fs.mu.Unlock()
	if err == nil {
		h.release()
	}
	return err
}

func (h *file) release() {
	switch h.lock {
	case exclusive:
		h.node.exclusive = false
	case shared:
		h.node.sharers--
	}
	h.lock = unlocked
	h.node.unlocked.Broadcast()
}
