package replace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// Generations is a directory that keeps a set of files consistent with each
// other, by write-replace of the whole set:
//
//	mirror/
//	|-- .lock
//	|-- 483/
//	|   |-- .hold
//	|   |-- a.tgz
//	|   `-- index.json
//	|-- 484/
//	|   |-- .hold
//	|   |-- a.tgz
//	|   |-- b.tgz
//	|   `-- index.json
//	`-- current -> 484
//
// A writer fills a new directory and then flips the symbolic link current:
//
//   - Atomic by the rename of a new link over current: it names the old generation
//     or the new one at any moment, also after a crash, since all files,
//     directories and names of the new one are synced before.
//   - Consistent, across files, since a reader that holds a generation sees that
//     one whole: it is never changed, and not pruned while it is held.
//   - Isolated by the exclusive lock on .lock, for writers. Readers never wait.
//   - Durable once Commit returns nil, by the sync of the directory after the flip.
//
// A reader says what it is reading by a shared lock on the file .hold inside the
// generation; whoever prunes needs that lock exclusively. An open directory, as
// the article has it, would keep the directory but not the files in it, once
// they are pruned. (A reader in another language does flock(.hold, LOCK_SH) and
// begins again if current has moved meanwhile.) .hold is written last, so that
// a generation without it was never finished, or is half removed. The names .lock,
// .hold and current are taken; the other files are the caller's.
//
// Windows lets only some users make symbolic links.
//
// A Generations may be used by many goroutines and processes at the same time.
type Generations struct {
	dir string
	options
}

const (
	lockName    = ".lock"
	holdName    = ".hold"
	currentName = "current"
)

// OpenGenerations opens the directory dir of generations, making it if it is
// missing.
func OpenGenerations(dir string, opts ...Option) (*Generations, error) {
	g := &Generations{dir: filepath.Clean(dir), options: newOptions(opts)}
	if err := MkdirAll(g.fsys, g.dir, g.dirPerm()); err != nil {
		return nil, err
	}
	return g, nil
}

// Generation is a new generation that is being filled. It is for one goroutine.
type Generation struct {
	of   *Generations
	name string
	lock File
	done bool
}

// Begin makes a new, empty generation. It waits, as long as ctx allows, until no
// other writer is at work, and then removes what killed writers left behind, and
// old generations that nobody holds.
func (g *Generations) Begin(ctx context.Context) (*Generation, error) {
	lock, err := g.lockedOpen(filepath.Join(g.dir, lockName), os.O_RDWR|os.O_CREATE, func(f File) error {
		return waitForLock(ctx, f, g.dir, true)
	})
	if err != nil {
		return nil, err
	}
	name, err := g.beginLocked()
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Generation{of: g, name: name, lock: lock}, nil
}

func (g *Generations) beginLocked() (name string, err error) {
	// A writer killed right after its flip left a link that may not be durable.
	// What it points away from must not go before it is.
	if err := g.fsys.SyncDir(g.dir); err != nil {
		return "", &SyncError{Path: g.dir, Err: err}
	}
	newest, err := g.prune()
	if err != nil {
		return "", err
	}
	name = strconv.FormatUint(newest+1, 10)
	return name, g.fsys.Mkdir(g.path(name), g.dirPerm())
}

// Dir returns the directory to fill. Close every file in it before Commit.
func (n *Generation) Dir() string { return n.of.path(n.name) }

// Commit makes the generation durable and then the current one. If it fails the
// old one stays current, unless the error is a [*SyncError] whose Unknown is true.
// The Generation is over in any case.
func (n *Generation) Commit() error {
	if n.done {
		return &fs.PathError{Op: "commit", Path: n.Dir(), Err: fs.ErrClosed}
	}
	if err := n.seal(); err != nil {
		return errors.Join(err, n.Discard())
	}
	if err := n.flip(); err != nil {
		return errors.Join(err, n.Discard())
	}
	n.done = true
	defer n.lock.Close()
	if err := syncDir(n.of.fsys, n.of.dir); err != nil {
		return err // and nothing is pruned: a crash may bring the old one back
	}
	// What cannot be pruned now the next Begin tries again, and it says so.
	_, _ = n.of.prune()
	return nil
}

// seal makes all of the generation durable, its own name included, and marks it as
// whole.
func (n *Generation) seal() error {
	fsys := n.of.fsys
	if err := syncTree(fsys, n.Dir()); err != nil {
		return err
	}
	hold, err := fsys.OpenFile(filepath.Join(n.Dir(), holdName), os.O_RDWR|os.O_CREATE|os.O_EXCL, n.of.perm)
	if err != nil {
		return err
	}
	if err := hold.Close(); err != nil {
		return err
	}
	for _, dir := range []string{n.Dir(), n.of.dir} {
		if err := fsys.SyncDir(dir); err != nil {
			return &SyncError{Path: dir, Err: err}
		}
	}
	return nil
}

func (n *Generation) flip() error {
	g := n.of
	temp := g.path(tempName(currentName))
	if err := g.fsys.Symlink(n.name, temp); err != nil {
		return err
	}
	if err := g.fsys.Rename(temp, g.path(currentName)); err != nil {
		return errors.Join(err, g.fsys.Remove(temp))
	}
	return nil
}

// Discard removes the generation. After Commit it does nothing, so that "defer
// n.Discard()" is always right.
func (n *Generation) Discard() error {
	if n.done {
		return nil
	}
	n.done = true
	defer n.lock.Close()
	return removeTree(n.of.fsys, n.Dir())
}

// Held is a generation that is being read. It stays whole until Close.
type Held struct {
	dir  string
	lock File
}

// Hold holds the current generation. Before the first Commit the error is
// fs.ErrNotExist.
func (g *Generations) Hold() (*Held, error) {
	for last := ""; ; {
		name, err := g.current()
		if err != nil {
			return nil, err
		}
		lock, err := g.hold(name)
		if err == nil {
			return &Held{dir: g.path(name), lock: lock}, nil
		}
		// It may have been pruned since we read the link; then the link has moved.
		if !errors.Is(err, fs.ErrNotExist) || name == last {
			return nil, err
		}
		last = name
	}
}

// hold takes the shared lock of a generation, which must be a directory of our own:
// a link there would lead readers to another.
func (g *Generations) hold(name string) (File, error) {
	info, err := g.fsys.Lstat(g.path(name))
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "hold", Path: g.path(name), Err: syscall.ENOTDIR}
	}
	return LockedOpen(context.Background(), filepath.Join(g.path(name), holdName), os.O_RDONLY, Shared, On(g.fsys))
}

// Dir returns the directory of the generation. Use it for every file, and not
// the link current, which may move between two of them.
func (h *Held) Dir() string { return h.dir }

// Close lets the generation go.
func (h *Held) Close() error { return h.lock.Close() }

// current returns the name of the current generation.
func (g *Generations) current() (string, error) {
	link := g.path(currentName)
	name, err := g.fsys.Readlink(link)
	if err != nil {
		return "", err
	}
	if _, ok := generationNumber(name); !ok {
		return "", fmt.Errorf("%q points to %q, which is no generation", link, name)
	}
	return name, nil
}

// prune removes temporary links, generations that were never finished, and the
// old ones beyond those to keep, except those that are held. It needs the
// writer's lock. It returns the greatest number in use.
func (g *Generations) prune() (newest uint64, err error) {
	links, old, newest, err := g.list()
	if err != nil {
		return 0, err
	}
	for _, link := range links {
		if err := g.fsys.Remove(g.path(link)); err != nil {
			return 0, err
		}
	}
	kept := 0
	for _, n := range slices.Backward(old) {
		dir := g.path(strconv.FormatUint(n, 10))
		whole, err := g.isWhole(dir)
		if err != nil {
			return 0, err
		}
		if whole && kept < g.keep {
			kept++
			continue
		}
		if err := g.drop(dir, whole); err != nil && !errors.Is(err, ErrLocked) {
			return 0, err
		}
	}
	return newest, nil
}

// list returns temporary links, the generations that are not current, oldest
// first, and the greatest number that any name has.
func (g *Generations) list() (links []string, old []uint64, newest uint64, err error) {
	current, err := g.current()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, 0, err
	}
	entries, err := g.fsys.ReadDir(g.dir)
	if err != nil {
		return nil, nil, 0, err
	}
	for _, entry := range entries {
		name := entry.Name()
		if IsTempOf(name, currentName) {
			links = append(links, name)
		}
		n, ok := generationNumber(name)
		if !ok {
			continue
		}
		newest = max(newest, n)
		if entry.IsDir() && name != current {
			old = append(old, n)
		}
	}
	slices.Sort(old)
	return links, old, newest, nil
}

func (g *Generations) isWhole(dir string) (bool, error) {
	_, err := g.fsys.Lstat(filepath.Join(dir, holdName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// drop removes a generation, or fails with ErrLocked if it is held. Its .hold goes
// first, durably: whatever still has one is whole.
func (g *Generations) drop(dir string, whole bool) error {
	if whole {
		hold := filepath.Join(dir, holdName)
		lock, err := g.tryLockedOpen(hold, os.O_RDONLY, Exclusive)
		if err != nil {
			return err
		}
		err = g.fsys.Remove(hold)
		lock.Close() // a reader that waited for it finds that the file is gone
		if err != nil {
			return err
		}
		if err := g.fsys.SyncDir(dir); err != nil {
			return &SyncError{Path: dir, Err: err}
		}
	}
	return removeTree(g.fsys, dir)
}

func (g *Generations) path(name string) string { return filepath.Join(g.dir, name) }

// generationNumber reads a plain decimal number, as FormatUint writes it: a link
// that says "../secret" or "007" is none of ours.
func generationNumber(name string) (uint64, bool) {
	n, err := strconv.ParseUint(name, 10, 63)
	return n, err == nil && strconv.FormatUint(n, 10) == name
}
