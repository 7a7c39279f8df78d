package faultfs

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/annalsdb/annals/replace"
)

// FS is a file system in memory. It is safe for concurrent use.
type FS struct {
	// Failure says how a failed sync behaves. Default: Ext4.
	Failure SyncFailure

	// Tear is how many bytes of a write reach the disk or not as one: Piece or
	// Page. Set it before the first write. Default: Piece.
	Tear int64

	mu      sync.Mutex
	root    *inode
	ops     int // operations so far
	open    int // files that are open
	inject  func(Op) *Fault
	hook    func(Op)
	now     Op // the operation under way
	journal []note
}

// New returns a file system with an empty root directory, /.
func New() *FS {
	return &FS{root: newDir(0o777), Tear: Piece}
}

// SyncFailure is what becomes of the effects that a failed sync was to make
// durable.
type SyncFailure int

// The ways in which file systems fail a sync (Rebello et al., "Can Applications
// Recover from fsync Failures?", 2020).
const (
	Ext4     SyncFailure = iota // processes see the new contents, later syncs do not write them
	XFS                         // the same, but the new length is on the disk
	Ext4Data                    // data=journal: this sync succeeds; the next one reports the error and writes nothing
	Btrfs                       // processes see the old contents again, and so does the disk
)

// inode is a file, a directory or a symbolic link.
type inode struct {
	mode   fs.FileMode
	target string // of a symbolic link

	data   []byte // as processes see it
	shared bool   // data is somebody else's too: copy it before changing it
	disk   []byte // before effects; never changed in place
	log    []*effect

	entries map[string]*inode // as processes see it
	names   map[string]*inode // on disk, before effects

	exclusive bool // locks
	sharers   int
	unlocked  sync.Cond

	late error // of a failed sync, reported by the next one
}

// effect is one change that may or may not be on the disk.
type effect struct {
	state state
	op    Op // that made it

	// Of a file: bytes written at off, or with size >= 0 a change of length from
	// off.
	off   int64
	bytes []byte
	size  int64

	// Of a directory: name now stands for child (nil: for nothing); a rename takes
	// old away in the same step.
	name, old string
	child     *inode
}

type state int

const (
	pending state = iota
	durable
	lost // a sync of it failed: later syncs do not cover it
)

func newDir(mode fs.FileMode) *inode {
	return &inode{mode: fs.ModeDir | mode, entries: map[string]*inode{}, names: map[string]*inode{}}
}

// place is where a name leads: an entry of a directory, which may not exist.
type place struct {
	parent *inode
	base   string
	node   *inode // nil if there is none
}

// find walks to a name. It follows symbolic links on the way, and in the last
// element only if follow is set.
func (f *FS) find(op, name string, follow bool) (place, error) {
	at := place{parent: f.root, node: f.root}
	parts := split(name)
	for links := 0; len(parts) > 0; {
		if at.node == nil {
			return at, pathError(op, name, syscall.ENOENT)
		}
		if !at.node.mode.IsDir() {
			return at, pathError(op, name, syscall.ENOTDIR)
		}
		at.parent, at.base, parts = at.node, parts[0], parts[1:]
		at.node = at.parent.entries[at.base]
		if at.node == nil || at.node.mode&fs.ModeSymlink == 0 || len(parts) == 0 && !follow {
			continue
		}
		if links++; links > 40 {
			return at, pathError(op, name, syscall.ELOOP)
		}
		parts = append(split(at.node.target), parts...)
		at.node = at.parent
		if path.IsAbs(filepath.ToSlash(at.parent.entries[at.base].target)) {
			at.node = f.root
		}
	}
	return at, nil
}

func split(name string) []string {
	return strings.FieldsFunc(path.Clean(filepath.ToSlash(name)), func(r rune) bool { return r == '/' })
}

func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
func linkError(op, a, b string, err error) error {
	return &os.LinkError{Op: op, Old: a, New: b, Err: err}
}

// begin counts an operation and returns the fault that is to meet it. The caller
// holds mu from here on, and unlocks it.
func (f *FS) begin(op Op) *Fault {
	f.mu.Lock()
	hook := f.hook
	f.ops++
	op.N = f.ops
	if hook != nil {
		f.mu.Unlock()
		hook(op)
		f.mu.Lock()
	}
	f.now = op
	var fault *Fault
	if f.inject != nil {
		fault = f.inject(op)
	}
	if fault != nil || op.Kind != Open && (op.Kind.Changes() || op.Kind == Lock) {
		f.note(fault)
	}
	return fault
}

// OpenFile implements replace.FS.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	fault := f.begin(Op{Kind: Open, Path: name})
	defer f.mu.Unlock()
	if fault != nil {
		return nil, pathError("open", name, fault.Err)
	}
	at, err := f.find("open", name, false)
	if err != nil {
		return nil, err
	}
	switch {
	case at.node == nil && flag&os.O_CREATE == 0:
		return nil, pathError("open", name, syscall.ENOENT)
	case at.node != nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, pathError("open", name, syscall.EEXIST)
	case at.node == nil:
		at.node = &inode{mode: perm.Perm()}
		at.node.unlocked.L = &f.mu
		f.note(nil)
		f.set(at.parent, at.base, at.node)
	case !at.node.mode.IsRegular():
		return nil, pathError("open", name, replace.ErrNotRegular)
	}
	file := &file{fs: f, node: at.node, name: name}
	file.reads = flag&(os.O_WRONLY) == 0
	file.writes = flag&(os.O_WRONLY|os.O_RDWR) != 0
	if flag&os.O_TRUNC != 0 && file.writes && len(at.node.data) > 0 {
		f.note(nil)
		at.node.resize(f.now, 0)
	}
	f.open++
	return file, nil
}

// set makes name stand for child, as processes see it at once.
func (f *FS) set(d *inode, name string, child *inode) {
	f.change(d, &effect{name: name, child: child})
}

func (f *FS) change(d *inode, e *effect) {
	e.op, e.size = f.now, -1
	d.log = append(d.log, e)
	e.apply(d.entries)
}

// apply makes a directory's effect.
func (e *effect) apply(entries map[string]*inode) {
	if e.old != "" {
		delete(entries, e.old)
	}
	if e.child == nil {
		delete(entries, e.name)
	} else {
		entries[e.name] = e.child
	}
}

// Rename implements replace.FS. Both names are in one directory or the effect on
// the old one is an effect of its own.
func (f *FS) Rename(oldname, newname string) error {
	fault := f.begin(Op{Kind: Rename, Path: newname, Old: oldname})
	defer f.mu.Unlock()
	if fault != nil {
		return linkError("rename", oldname, newname, fault.Err)
	}
	from, err := f.find("rename", oldname, false)
	if err != nil {
		return err
	}
	to, err := f.find("rename", newname, false)
	if err != nil {
		return err
	}
	switch {
	case from.node == nil:
		return linkError("rename", oldname, newname, syscall.ENOENT)
	case to.node == from.node:
		return nil
	case to.node != nil && to.node.mode.IsDir() && !from.node.mode.IsDir():
		return linkError("rename", oldname, newname, syscall.EEXIST)
	case to.node != nil && !to.node.mode.IsDir() && from.node.mode.IsDir():
		return linkError("rename", oldname, newname, syscall.ENOTDIR)
	case to.node != nil && to.node.mode.IsDir() && len(to.node.entries) > 0:
		return linkError("rename", oldname, newname, syscall.ENOTEMPTY)
	}
	e := &effect{name: to.base, child: from.node}
	if from.parent == to.parent {
		e.old = from.base
	}
	f.change(to.parent, e)
	if from.parent != to.parent {
		f.set(from.parent, from.base, nil)
	}
	return nil
}

// Link implements replace.FS.
func (f *FS) Link(oldname, newname string) error {
	fault := f.begin(Op{Kind: Link, Path: newname, Old: oldname})
	defer f.mu.Unlock()
	if fault != nil {
		return linkError("link", oldname, newname, fault.Err)
	}
	from, err := f.find("link", oldname, false)
	if err != nil {
		return err
	}
	to, err := f.find("link", newname, false)
	switch {
	case err != nil:
		return err
	case from.node == nil:
		return linkError("link", oldname, newname, syscall.ENOENT)
	case to.node != nil:
		return linkError("link", oldname, newname, syscall.EEXIST)
	case from.node.mode.IsDir():
		return linkError("link", oldname, newname, syscall.EPERM)
	}
	f.set(to.parent, to.base, from.node)
	return nil
}

// Symlink implements replace.FS.
func (f *FS) Symlink(target, name string) error {
	fault := f.begin(Op{Kind: Symlink, Path: name, Old: target})
	defer f.mu.Unlock()
	if fault != nil {
		return linkError("symlink", target, name, fault.Err)
	}
	at, err := f.find("symlink", name, false)
	if err != nil {
		return err
	}
	if at.node != nil {
		return linkError("symlink", target, name, syscall.EEXIST)
	}
	f.set(at.parent, at.base, &inode{mode: fs.ModeSymlink | 0o777, target: target})
	return nil
}

// Readlink implements replace.FS.
func (f *FS) Readlink(name string) (string, error) {
	fault := f.begin(Op{Kind: Readlink, Path: name})
	defer f.mu.Unlock()
	if fault != nil {
		return "", pathError("readlink", name, fault.Err)
	}
	at, err := f.find("readlink", name, false)
	switch {
	case err != nil:
		return "", err
	case at.node == nil:
		return "", pathError("readlink", name, syscall.ENOENT)
	case at.node.mode&fs.ModeSymlink == 0:
		return "", pathError("readlink", name, syscall.EINVAL)
	}
	return at.node.target, nil
}

// Remove implements replace.FS.
func (f *FS) Remove(name string) error {
	fault := f.begin(Op{Kind: Remove, Path: name})
	defer f.mu.Unlock()
	if fault != nil {
		return pathError("remove", name, fault.Err)
	}
	at, err := f.find("remove", name, false)
	switch {
	case err != nil:
		return err
	case at.node == nil:
		return pathError("remove", name, syscall.ENOENT)
	case len(at.node.entries) > 0:
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	f.set(at.parent, at.base, nil)
	return nil
}

// Mkdir implements replace.FS.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	fault := f.begin(Op{Kind: Mkdir, Path: name})
	defer f.mu.Unlock()
	if fault != nil {
		return pathError("mkdir", name, fault.Err)
	}
	at, err := f.find("mkdir", name, false)
	if err != nil {
		return err
	}
	if at.node != nil {
		return pathError("mkdir", name, syscall.EEXIST)
	}
	f.set(at.parent, at.base, newDir(perm.Perm()))
	return nil
}

// ReadDir implements replace.FS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	fault := f.begin(Op{Kind: ReadDir, Path: name})
	defer f.mu.Unlock()
	if fault != nil {
		return nil, pathError("readdir", name, fault.Err)
	}
	at, err := f.find("readdir", name, true)
	if err == nil && at.node == nil {
		err = pathError("readdir", name, syscall.ENOENT)
	}
	if err == nil && !at.node.mode.IsDir() {
		err = pathError("readdir", name, syscall.ENOTDIR)
	}
	if err != nil {
		return nil, err
	}
	var list []fs.DirEntry
	for _, base := range slices.Sorted(maps.Keys(at.node.entries)) {
		list = append(list, fs.FileInfoToDirEntry(at.node.entries[base].info(base)))
	}
	return list, nil
}

// Lstat implements replace.FS.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	fault := f.begin(Op{Kind: Lstat, Path: name})
	defer f.mu.Unlock()
	if fault != nil {
		return nil, pathError("lstat", name, fault.Err)
	}
	at, err := f.find("lstat", name, false)
	if err == nil && at.node == nil {
		err = pathError("lstat", name, syscall.ENOENT)
	}
	if err != nil {
		return nil, err
	}
	return at.node.info(filepath.Base(name)), nil
}

// ReadFile returns the contents of a file as processes see it. It is no operation:
// nothing counts it, and a hook may call it.
func (f *FS) ReadFile(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, err := f.find("read", name, false)
	switch {
	case err != nil:
		return nil, err
	case at.node == nil:
		return nil, pathError("read", name, syscall.ENOENT)
	case !at.node.mode.IsRegular():
		return nil, pathError("read", name, replace.ErrNotRegular)
	}
	return slices.Clone(at.node.data), nil
}

// SameFile implements replace.FS.
func (f *FS) SameFile(a, b fs.FileInfo) bool {
	x, okX := a.(info)
	y, okY := b.(info)
	return okX && okY && x.node == y.node
}

// SyncDir implements replace.FS.
func (f *FS) SyncDir(name string) error {
	fault := f.begin(Op{Kind: SyncDir, Path: name})
	defer f.mu.Unlock()
	at, err := f.find("syncdir", name, true)
	if err == nil && at.node == nil {
		err = pathError("syncdir", name, syscall.ENOENT)
	}
	if err == nil && !at.node.mode.IsDir() {
		err = pathError("syncdir", name, syscall.ENOTDIR)
	}
	if err != nil {
		return err
	}
	if fault != nil {
		at.node.lose()
		return pathError("syncdir", name, fault.Err)
	}
	at.node.harden()
	return nil
}

// info implements fs.FileInfo.
type info struct {
	node *inode
	name string
	size int64
	mode fs.FileMode
}

func (n *inode) info(name string) info { return info{n, name, int64(len(n.data)), n.mode} }

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return i.node }

func sorted(entries map[string]*inode) (list []*inode) {
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		list = append(list, entries[name])
	}
	return list
}
