package annals

import (
	"sync"

	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
	"github.com/annalsdb/annals/wal"
)

// pending holds the records that are queued in the log and not yet visible. Only
// transactions and conditions look at them: they see everything queued before.
type pending struct {
	mu      sync.RWMutex
	keys    map[string]*wal.Record // the latest queued record of each key
	commits []*wal.Commit          // in order
}

func (p *pending) add(c *wal.Commit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range c.Records {
		if r := &c.Records[i]; r.Kind != segment.Sample {
			p.keys[r.Name] = r
		}
	}
	p.commits = append(p.commits, c)
}

// remove forgets commits that have become visible: the first ones.
func (p *pending) remove(cs []*wal.Commit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range cs {
		for i := range c.Records {
			if r := &c.Records[i]; p.keys[r.Name] == r {
				delete(p.keys, r.Name)
			}
		}
	}
	p.commits = p.commits[len(cs):]
}

func (p *pending) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.keys)
	p.commits = nil
}

// latest returns the latest queued record of a key.
func (p *pending) latest(key string) (*wal.Record, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	r, ok := p.keys[key]
	return r, ok
}

// all returns all queued records, in order.
func (p *pending) all() (records []*wal.Record) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, c := range p.commits {
		for i := range c.Records {
			records = append(records, &c.Records[i])
		}
	}
	return records
}

// changes is a commit as the index takes it.
func changes(c *wal.Commit) []index.Change {
	list := make([]index.Change, len(c.Records))
	for i := range c.Records {
		r := &c.Records[i]
		list[i] = index.Change{
			Op: ops[r.Kind], Name: r.Name, Seq: r.Seq, Expires: r.Expires, At: r.At,
			Pos: index.Pos{Segment: r.Segment, Offset: uint32(r.Offset), Len: uint32(r.Len)},
		}
	}
	return list
}
