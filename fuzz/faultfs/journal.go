package faultfs

import "fmt"

// note is a line of the journal.
type note struct {
	op    Op
	fault *Fault
}

// maxJournal bounds the journal of a file system that is used for long.
const maxJournal = 4096

// note adds the operation under way to the journal. mu is held.
func (f *FS) note(fault *Fault) {
	if len(f.journal) == maxJournal {
		f.journal = append(f.journal[:0], f.journal[maxJournal/2:]...)
	}
	f.journal = append(f.journal, note{f.now, fault})
}

// Journal returns the latest operations that were to change something, took a
// lock or met a fault, one a line: what led to a state that a test does not
// like.
func (f *FS) Journal() (lines []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.journal {
		line := fmt.Sprintf("%5d %v", n.op.N, n.op)
		if n.fault != nil {
			line += fmt.Sprintf(": fails after %d bytes: %v", n.fault.Bytes, n.fault.Err)
		}
		lines = append(lines, line)
	}
	return lines
}
