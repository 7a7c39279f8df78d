package faultfs

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
)

// Piece is how much of a write reaches the disk or not as one: a sector.
const Piece = 512

// Pending returns how many effects a crash may or may not leave on the disk.
func (f *FS) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	f.walk(func(node *inode) {
		for _, e := range node.log {
			if e.state != durable {
				n++
			}
		}
	})
	return n
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
	f.mu.Lock()
	defer f.mu.Unlock()
	kept := map[*effect]bool{}
	i := 0
	f.walk(func(node *inode) {
		for _, e := range node.log {
			if e.state != durable {
				kept[e] = keep(i)
				i++
			}
		}
	})
	after := &FS{}
	c := copier{fs: after, onDisk: func(e *effect) bool { return e.state == durable || kept[e] }, made: map[*inode]*inode{}}
	after.root = c.copy(f.root)
	return after
}

// Clone returns the file system as processes see it, all of it durable.
func (f *FS) Clone() *FS {
	return f.Crash(func(int) bool { return true })
}

type copier struct {
	fs     *FS
	onDisk func(*effect) bool
	made   map[*inode]*inode
}

func (c *copier) copy(node *inode) *inode {
	if n := c.made[node]; n != nil {
		return n
	}
	n := &inode{mode: node.mode, target: node.target}
	n.unlocked = sync.Cond{L: &c.fs.mu}
	c.made[node] = n
	if !node.mode.IsDir() {
		n.disk = node.onDisk(c.onDisk)
		n.data = append([]byte(nil), n.disk...)
		return n
	}
	names := map[string]*inode{}
	for name, child := range node.names {
		names[name] = child
	}
	for _, e := range node.log {
		if c.onDisk(e) {
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

// onDisk returns a file's contents with the effects that are there.
func (n *inode) onDisk(there func(*effect) bool) []byte {
	data := append([]byte(nil), n.disk...)
	for _, e := range n.log {
		if there(e) {
			data = e.file(data)
		}
	}
	return data
}

// Digest is the same for two file systems that hold the same names and contents,
// and, for all that can be expected, for no others. Files called skip count for
// nothing.
func (f *FS) Digest(skip string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := fnv.New64a()
	var visit func(*inode)
	visit = func(node *inode) {
		fmt.Fprintf(h, "%v %q %d\n", node.mode, node.target, len(node.data))
		h.Write(node.data)
		for _, name := range slices.Sorted(maps.Keys(node.entries)) {
			if name != skip {
				fmt.Fprintf(h, "%q\n", name)
				visit(node.entries[name])
			}
		}
	}
	visit(f.root)
	return h.Sum64()
}
