package annals

import (
	"sync"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
	"github.com/annalsdb/annals/wal"
)

// pending holds the records that are queued in the log and not yet visible. Only
// transactions and conditions look at them: they see everything queued before. For
// all other writes a commit is a pointer in a list; the map is made when somebody
// asks for a key, and kept until nothing is pending.
//
// A record is looked at with the lock held: once its commit is removed, whoever
// made it may use its memory again.
type pending struct {
	mu      sync.Mutex
	commits []*wal.Commit          // in order
	keys    map[string]*wal.Record // the latest queued record of each key, if indexed
	indexed bool
}

func (p *pending) add(c *wal.Commit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.indexed {
		p.indexLocked(c)
	}
	p.commits = append(p.commits, c)
}

func (p *pending) indexLocked(c *wal.Commit) {
	for i := range c.Records {
		if r := &c.Records[i]; r.Kind != segment.Sample {
			p.keys[r.Name] = r
		}
	}
}

// remove forgets commits that have become visible: the first ones.
func (p *pending) remove(cs []*wal.Commit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(cs) == len(p.commits) {
		p.clearLocked()
		return
	}
	clear(p.commits[:len(cs)])
	p.commits = p.commits[len(cs):]
	if !p.indexed {
		return
	}
	for _, c := range cs {
		for i := range c.Records {
			if r := &c.Records[i]; p.keys[r.Name] == r {
				delete(p.keys, r.Name)
			}
		}
	}
}

func (p *pending) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
}

func (p *pending) clearLocked() {
	clear(p.commits)
	p.commits = p.commits[:0]
	if p.indexed {
		clear(p.keys)
		p.indexed = false
	}
}

// latest calls use with the latest queued record of a key, if there is one.
func (p *pending) latest(key string, use func(*wal.Record)) (queued bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.indexed && len(p.commits) > 0 {
		if p.keys == nil {
			p.keys = map[string]*wal.Record{}
		}
		p.indexed = true
		for _, c := range p.commits {
			p.indexLocked(c)
		}
	}
	r, queued := p.keys[key]
	if queued {
		use(r)
	}
	return queued
}

// all calls use with all queued records, in order.
func (p *pending) all(use func(*wal.Record)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.commits {
		for i := range c.Records {
			use(&c.Records[i])
		}
	}
}

// appendChanges appends a commit's records as the index takes them.
func appendChanges(list []index.Change, c *wal.Commit) []index.Change {
	for i := range c.Records {
		r := &c.Records[i]
		list = append(list, index.Change{
			Op: ops[r.Kind], Name: r.Name, Seq: r.Seq, Expires: r.Expires, At: r.At,
			Pos: index.Pos{Segment: r.Segment, Offset: uint32(r.Offset), Len: uint32(r.Len)},
		})
	}
	return list
}
