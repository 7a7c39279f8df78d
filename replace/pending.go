package replace

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// WriteFile replaces the contents of the file path with data, or makes the file:
// the write-replace pattern in one call. See [Pending] for what it promises.
func WriteFile(path string, data []byte, opts ...Option) error {
	return newOptions(opts).writeFile(filepath.Clean(path), data)
}

func (o options) writeFile(path string, data []byte) error {
	p, err := o.begin(path)
	if err != nil {
		return err
	}
	defer p.Discard()
	if _, err := p.Write(data); err != nil {
		return err
	}
	return p.Commit()
}

// Pending is the new contents of a file on the way to replacing the old: the
// write-replace pattern. They are written to a temporary file beside it, which
// Commit renames over it.
//
//   - Atomic by the rename: whoever opens the path gets the old file or the new
//     one, each of them whole, also after a crash, since the new file is synced
//     before it gets the name. Without that sync a crash can leave an empty file.
//   - Consistent as far as what is written is: a failure of any step before the
//     rename leaves the old file as it was, and removes the temporary one.
//   - Not isolated: of two writers the later one wins. That is what [Update] is for.
//   - Durable once Commit returns nil, by the sync of the directory: the rename is
//     a change of the directory, not of the file.
//
// The new file has the permissions of the old, unless [PermAlways] says otherwise,
// and the owner of the process. A
// path that is a symbolic link is refused with [ErrNotRegular]: to replace the
// link by a file, or to write where somebody has planted a link to, is hardly
// ever meant. Where it is, filepath.EvalSymlinks gives the path to use.
//
// A process that is killed leaves its temporary file behind; [IsTempOf] knows it.
// A Pending is for one goroutine at a time.
type Pending struct {
	fsys       FS
	path, temp string
	file       File // nil once it is closed
	size       int64
	err        error // of the first write that failed: the contents have a hole
	done       bool  // committed or discarded
}

// Begin starts to replace the file path, or to make it. Use it like this:
//
//	p, err := replace.Begin(path)
//	if err != nil {
//		return err
//	}
//	defer p.Discard()
//	// write to p
//	return p.Commit()
func Begin(path string, opts ...Option) (*Pending, error) {
	return newOptions(opts).begin(filepath.Clean(path))
}

func (o options) begin(path string) (*Pending, error) {
	perm, err := o.permFor(path)
	if err != nil {
		return nil, err
	}
	// A name that exists already is as good as impossible; an FS that says so
	// again and again must not keep us here for ever.
	for range 10 {
		temp := filepath.Join(filepath.Dir(path), tempName(filepath.Base(path)))
		var p *Pending
		if p, err = beginAs(o.fsys, path, temp, perm); !errors.Is(err, fs.ErrExist) {
			return p, err
		}
	}
	return nil, err
}

func beginAs(fsys FS, path, temp string, perm fs.FileMode) (*Pending, error) {
	f, err := fsys.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	return &Pending{fsys: fsys, path: path, temp: temp, file: f}, nil
}

// permFor returns the permissions for the file that will replace path.
func (o options) permFor(path string) (fs.FileMode, error) {
	info, err := o.fsys.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return o.perm, nil
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, &fs.PathError{Op: "replace", Path: path, Err: ErrNotRegular}
	}
	if o.permAlways {
		return o.perm, nil
	}
	return info.Mode().Perm(), nil
}

// Write appends to the new contents. After an error Commit will fail too.
func (p *Pending) Write(data []byte) (int, error) {
	if p.file == nil {
		return 0, p.closed("write")
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.writeAt(data, p.size)
}

// WriteAt writes at an offset of the new contents, for those that are not made from
// front to back. After an error Commit will fail too.
func (p *Pending) WriteAt(data []byte, off int64) (int, error) {
	if p.file == nil {
		return 0, p.closed("write")
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.writeAt(data, off)
}

// hastenBytes is how much in one write the disk is asked to begin with at once.
const hastenBytes = 1 << 20

// writeAt writes, and has the disk begin with what is much: the sync of a large file
// would hand it all to the disk at the end, and hold up everybody else's syncs meanwhile.
func (p *Pending) writeAt(data []byte, off int64) (n int, err error) {
	n, err = p.file.WriteAt(data, off)
	p.size = max(p.size, off+int64(n))
	if f, ok := p.file.(Hastener); ok && err == nil && n >= hastenBytes {
		err = f.StartWriteback(off, int64(n))
	}
	p.err = err
	return n, err
}

// ReadAt reads what was written, which may not be durable yet.
func (p *Pending) ReadAt(data []byte, off int64) (int, error) {
	if p.file == nil {
		return 0, p.closed("read")
	}
	return p.file.ReadAt(data, off)
}

// Commit makes what was written the contents of the file, durably. If it fails the
// old file stands, unless the error is a [*SyncError] whose Unknown is true. The
// Pending is over in any case.
func (p *Pending) Commit() error {
	if err := p.seal(); err != nil {
		return err
	}
	return p.install(p.fsys.Rename)
}

// seal makes the contents durable under the temporary name.
func (p *Pending) seal() error {
	if p.file == nil {
		return p.closed("commit")
	}
	if p.err != nil {
		return errors.Join(p.err, p.Discard())
	}
	err := p.file.Sync()
	// Closed even if the sync failed, and checked before the rename: some file
	// systems (NFS, quotas) report a lost write only here.
	if cerr := p.file.Close(); err == nil {
		err = cerr
	}
	p.file = nil
	if err != nil {
		return errors.Join(&SyncError{Path: p.temp, Err: err}, p.Discard())
	}
	return nil
}

// install gives the sealed file its name, by a rename or a link.
func (p *Pending) install(name func(temp, path string) error) error {
	if err := name(p.temp, p.path); err != nil {
		return errors.Join(err, p.Discard())
	}
	p.done = true
	return syncDir(p.fsys, filepath.Dir(p.path))
}

// Discard gives the new contents up and removes the temporary file. After Commit it
// does nothing, so that "defer p.Discard()" is always right.
func (p *Pending) Discard() error {
	if p.done {
		return nil
	}
	p.done = true
	if p.file != nil {
		p.file.Close() // the contents are thrown away: its error does not matter
		p.file = nil
	}
	return p.fsys.Remove(p.temp)
}

func (p *Pending) closed(op string) error {
	return &fs.PathError{Op: op, Path: p.path, Err: fs.ErrClosed}
}

// A temporary file of NAME is ".NAME.RANDOM.tmp", RANDOM being 16 hex digits: it
// sorts and hides beside NAME, and no two writers share it.
const (
	tempSuffix   = ".tmp"
	randomDigits = 16
)

func tempName(name string) string {
	return "." + name + "." + random() + tempSuffix
}

func random() string {
	var b [randomDigits / 2]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// IsTemp reports whether name, without a directory, is that of a temporary file
// of this package. One that no running process is writing is left over from a
// crash, and may be removed.
func IsTemp(name string) bool {
	_, ok := tempTarget(name)
	return ok
}

// IsTempOf reports whether tempName is a temporary file of the file name, both
// without a directory.
func IsTempOf(tempName, name string) bool {
	target, ok := tempTarget(tempName)
	return ok && target == name
}

// tempTarget returns the name that a temporary file is meant to get.
func tempTarget(temp string) (name string, ok bool) {
	rest, hidden := strings.CutPrefix(temp, ".")
	rest, suffixed := strings.CutSuffix(rest, tempSuffix)
	dot := len(rest) - randomDigits - 1
	if !hidden || !suffixed || dot < 1 || rest[dot] != '.' {
		return "", false
	}
	if strings.Trim(rest[dot+1:], "0123456789abcdef") != "" {
		return "", false
	}
	return rest[:dot], true
}
