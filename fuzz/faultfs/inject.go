package faultfs

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

// Op is an operation that is about to happen. N counts from 1.
type Op struct {
	N    int
	Kind Kind
	Path string
	Off  int64
	Len  int
}

// Fault makes an operation fail with Err. Of a write, or a read, the first Bytes
// are done.
type Fault struct {
	Err   error
	Bytes int
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
