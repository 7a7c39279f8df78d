package faultfs

import "sync"

// Kill returns the file system as a new process finds it after the one that had
// it was killed: the cache has survived, and what is pending still is. Only locks
// and open files are gone. f goes on as if nothing had happened.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := New()
	after.Failure = f.Failure
	made := map[*inode]*inode{}
	after.root = f.root.survive(after, made)
	return after
}

// survive copies a file or directory with all that is pending.
func (n *inode) survive(to *FS, made map[*inode]*inode) *inode {
	if n == nil || made[n] != nil {
		return made[n]
	}
	c := &inode{mode: n.mode, target: n.target, late: n.late}
	c.unlocked = sync.Cond{L: &to.mu}
	made[n] = c
	c.data, c.disk = append([]byte(nil), n.data...), append([]byte(nil), n.disk...)
	names := func(of map[string]*inode) map[string]*inode {
		if of == nil {
			return nil
		}
		copied := map[string]*inode{}
		for name, child := range of {
			copied[name] = child.survive(to, made)
		}
		return copied
	}
	c.entries, c.names = names(n.entries), names(n.names)
	for _, e := range n.log {
		same := *e
		same.child = e.child.survive(to, made)
		c.log = append(c.log, &same)
	}
	return c
}
