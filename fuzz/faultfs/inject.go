package faultfs

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Kind is the kind of an operation.
type Kind int

// The kinds of operations.
const (
	Open Kind = iota
	Read
	Write
	Truncate
	Sync
	SyncData
	Stat
	Close
	Lock
	Rename
	Link
	Symlink
	Readlink
	Remove
	Mkdir
	ReadDir
	Lstat
	SyncDir
)

var kindNames = [...]string{"open", "read", "write", "truncate", "sync", "syncdata", "stat", "close", "lock", "rename",
	"link", "symlink", "readlink", "remove", "mkdir", "readdir", "lstat", "syncdir"}

func (k Kind) String() string { return kindNames[k] }

// Changes tells whether operations of this kind change anything, so that a crash
// before one can differ from a crash behind it.
func (k Kind) Changes() bool {
	switch k {
	case Open, Write, Truncate, Sync, SyncData, Rename, Link, Symlink, Remove, Mkdir, SyncDir:
		return true
	}
	return false
}

// Op is an operation that is about to happen. N counts from 1. Old is the other
// name of a rename or link, and where a symbolic link leads.
type Op struct {
	N    int
	Kind Kind
	Path string
	Old  string
	Off  int64
	Len  int
}

func (op Op) String() string {
	switch op.Kind {
	case Write, Read:
		return fmt.Sprintf("%v %s, %d bytes at %d", op.Kind, op.Path, op.Len, op.Off)
	case Truncate:
		return fmt.Sprintf("%v %s to %d", op.Kind, op.Path, op.Off)
	case Rename, Link, Symlink:
		return fmt.Sprintf("%v %s to %s", op.Kind, op.Old, op.Path)
	}
	return fmt.Sprintf("%v %s", op.Kind, op.Path)
}

// Fault makes an operation fail with Err. Of a write, or a read, the first Bytes
// are done. Without Err a read or write is short and says only that: io.ErrShortWrite,
// io.ErrUnexpectedEOF.
type Fault struct {
	Err   error
	Bytes int
}

func (f *Fault) err(short error) error {
	if f.Err == nil {
		return short
	}
	return f.Err
}

// Failing is a fault that meets one operation, or that one and all after it. Its
// method Fault goes into FS.Inject. A test that injects must see that the fault
// was met: Fired.
type Failing struct {
	at           int64
	forever      bool
	fault        Fault
	kinds        []Kind
	asked, fired atomic.Int64
	first        atomic.Pointer[Op]
}

// FailAt makes the k-th operation from now on fail, counted from 1, and with
// forever all after it. Of writes and reads the first bytes are done. With kinds
// only operations of these kinds count.
func FailAt(k int, err error, bytes int, forever bool, kinds ...Kind) *Failing {
	return &Failing{at: int64(k), forever: forever, fault: Fault{Err: err, Bytes: bytes}, kinds: kinds}
}

// Fault is for FS.Inject.
func (p *Failing) Fault(op Op) *Fault {
	if len(p.kinds) > 0 && !slices.Contains(p.kinds, op.Kind) {
		return nil
	}
	n := p.asked.Add(1)
	if n < p.at || n > p.at && !p.forever {
		return nil
	}
	if p.fired.Add(1) == 1 {
		p.first.Store(&op)
	}
	fault := p.fault
	return &fault
}

// Fired returns how many operations the fault has met.
func (p *Failing) Fired() int { return int(p.fired.Load()) }

// First returns the first operation that the fault has met; its N is 0 if there is
// none.
func (p *Failing) First() (op Op) {
	if first := p.first.Load(); first != nil {
		op = *first
	}
	return op
}

// Inject has f ask before every operation whether it is to fail; nil ends that.
// The function is called with the file system locked and must not use it.
func (f *FS) Inject(fn func(Op) *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inject = fn
}

// Hook has f call fn before every operation, unlocked: it may look at f, and
// make crashed copies of it.
func (f *FS) Hook(fn func(Op)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = fn
}

// Ops returns how many operations there have been.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// OpenFiles returns how many files are open.
func (f *FS) OpenFiles() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}
