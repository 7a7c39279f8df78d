package faultfs

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
)

// How much of a write reaches the disk or not as one (FS.Tear): a sector, or a page.
const (
	Piece = 512
	Page  = 4096
)

// Effect is a pending effect: a crash may leave it, or leave it out.
type Effect struct {
	Op   Op    // that made it; one write makes several effects
	Size bool  // it is the new length of a file, from Off to Off+Len
	Off  int64 // of a write: where its piece begins
	Len  int64 // and how long it is
	End  int   // of a write: the length of its piece without newlines at its end
}

func (e Effect) String() string {
	switch {
	case e.Size:
		return fmt.Sprintf("%d %v: length from %d to %d", e.Op.N, e.Op, e.Off, e.Off+e.Len)
	case e.Op.Kind == Write:
		return fmt.Sprintf("%d %v: bytes %d to %d", e.Op.N, e.Op, e.Off, e.Off+e.Len)
	}
	return fmt.Sprintf("%d %v", e.Op.N, e.Op)
}

// Fate is what a crash makes of a pending effect.
type Fate struct {
	Bytes int  // how many of a write's bytes, or of those a file grew by, are there; of other effects: 0 or not
	Rest  Fill // what stands where the other bytes of a write were to go
}

// The two fates of effects that are not cut.
var (
	Gone = Fate{}
	Kept = Fate{Bytes: math.MaxInt}
)

func (f Fate) String() string {
	switch f {
	case Gone:
		return "gone"
	case Kept:
		return "kept"
	}
	return fmt.Sprintf("%d bytes kept, the others %v", f.Bytes, f.Rest)
}

// Fill is what the disk holds where a write was cut short, within the write's own
// range.
type Fill int

// The fills.
const (
	Old   Fill = iota // what was there before
	Zeros             // 0x00
	Ones              // 0xFF
	Noise             // anything
)

func (f Fill) String() string { return [...]string{"as before", "zeros", "ones", "noise"}[f] }

func (f Fill) fill(p []byte, seed int) {
	switch f {
	case Zeros:
		clear(p)
	case Ones:
		for i := range p {
			p[i] = 0xff
		}
	case Noise:
		rnd := rand.New(rand.NewPCG(uint64(seed), uint64(len(p))))
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
	}
}

// Pending returns how many effects a crash may or may not leave on the disk.
func (f *FS) Pending() int { return len(f.Effects()) }

// Effects returns the pending effects in the order in which Crash and CrashTo ask
// for them.
func (f *FS) Effects() (list []Effect) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.walk(func(node *inode) {
		for _, e := range node.log {
			if e.state != durable {
				list = append(list, e.describe())
			}
		}
	})
	return list
}

func (e *effect) describe() Effect {
	switch {
	case e.size >= 0:
		return Effect{Op: e.op, Size: true, Off: e.off, Len: e.size - e.off}
	case e.bytes == nil:
		return Effect{Op: e.op}
	}
	return Effect{Op: e.op, Off: e.off, Len: int64(len(e.bytes)), End: len(bytes.TrimRight(e.bytes, "\n"))}
}

// walk calls fn for every file and directory that a crash can leave reachable,
// always in the same order.
func (f *FS) walk(fn func(*inode)) {
	seen := map[*inode]bool{}
	var visit func(*inode)
	visit = func(node *inode) {
		if seen[node] {
			return
		}
		seen[node] = true
		fn(node)
		for _, child := range sorted(node.names) {
			visit(child)
		}
		for _, e := range node.log {
			if e.child != nil {
				visit(e.child)
			}
		}
	}
	visit(f.root)
}

// Crash returns the file system as a new process may find it after a crash at this
// moment. keep decides which of the pending effects are on the disk; it is called
// for each, with its number from 0 to Pending()-1. f goes on as if nothing had
// happened.
func (f *FS) Crash(keep func(i int) bool) *FS {
	return f.CrashTo(func(i int) Fate {
		if keep(i) {
			return Kept
		}
		return Gone
	})
}

// CrashTo is Crash for effects that may also be there in part.
func (f *FS) CrashTo(fate func(i int) Fate) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	fates := map[*effect]Fate{}
	i := 0
	f.walk(func(node *inode) {
		for _, e := range node.log {
			if e.state != durable {
				fates[e] = fate(i)
				i++
			}
		}
	})
	after := &FS{Failure: f.Failure, Tear: f.Tear}
	c := copier{fs: after, fate: func(e *effect) Fate { return fates[e] }, made: map[*inode]*inode{}}
	after.root = c.copy(f.root)
	return after
}

// Clone returns the file system as processes see it, all of it durable.
func (f *FS) Clone() *FS {
	return f.Crash(func(int) bool { return true })
}

// Kill returns the file system as a new process finds it after all others were
// killed: what they saw is still there, and what was pending still is.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := &FS{Failure: f.Failure, Tear: f.Tear, ops: f.ops}
	c := copier{fs: after, whole: true, made: map[*inode]*inode{}}
	after.root = c.copy(f.root)
	return after
}

type copier struct {
	fs    *FS
	fate  func(*effect) Fate // of those that are not durable
	whole bool               // no crash: effects are copied, not made
	made  map[*inode]*inode
}

func (c *copier) copy(node *inode) *inode {
	if n := c.made[node]; n != nil {
		return n
	}
	n := &inode{mode: node.mode, target: node.target}
	n.unlocked = sync.Cond{L: &c.fs.mu}
	c.made[node] = n
	if c.whole {
		c.copyWhole(n, node)
		return n
	}
	if !node.mode.IsDir() {
		n.disk = node.onDisk(c.fate)
		n.data, n.shared = n.disk, true
		return n
	}
	names := map[string]*inode{}
	for name, child := range node.names {
		names[name] = child
	}
	for _, e := range node.log {
		if e.state == durable || c.fate(e) != Gone {
			e.apply(names)
		}
	}
	n.entries, n.names = map[string]*inode{}, map[string]*inode{}
	for name, child := range names {
		copied := c.copy(child)
		n.entries[name], n.names[name] = copied, copied
	}
	return n
}

// copyWhole copies what processes see, what is on the disk, and what is pending.
func (c *copier) copyWhole(n, node *inode) {
	n.data, n.disk, n.late = node.data, node.disk, node.late
	node.shared, n.shared = true, true
	for _, e := range node.log {
		copied := *e
		if e.child != nil {
			copied.child = c.copy(e.child)
		}
		n.log = append(n.log, &copied)
	}
	if node.mode.IsDir() {
		n.entries, n.names = map[string]*inode{}, map[string]*inode{}
		for name, child := range node.entries {
			n.entries[name] = c.copy(child)
		}
		for name, child := range node.names {
			n.names[name] = c.copy(child)
		}
	}
}

// onDisk returns a file's contents with what is there of its effects, a slice that
// must not be changed.
func (n *inode) onDisk(fate func(*effect) Fate) []byte {
	if len(n.log) == 0 {
		return n.disk
	}
	data := append([]byte(nil), n.disk...)
	for _, e := range n.log {
		if e.state == durable {
			data = e.file(data, Kept)
		} else {
			data = e.file(data, fate(e))
		}
	}
	return data
}

// digestSeed makes digests comparable within a process.
var digestSeed = maphash.MakeSeed()

// Digest is the same for two file systems that hold the same names and contents,
// and, for all that can be expected, for no others. Files called skip count for
// nothing. Digests mean nothing to another process.
func (f *FS) Digest(skip string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var h maphash.Hash
	h.SetSeed(digestSeed)
	var visit func(*inode)
	visit = func(node *inode) {
		fmt.Fprintf(&h, "%v %q %d\n", node.mode, node.target, len(node.data))
		h.Write(node.data)
		for _, name := range slices.Sorted(maps.Keys(node.entries)) {
			if name != skip {
				fmt.Fprintf(&h, "%q\n", name)
				visit(node.entries[name])
			}
		}
	}
	visit(f.root)
	return h.Sum64()
}
