package annals

import (
	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
)

// feed hands the records of a segment to the index of a store that is being opened, in
// their order and many at a time, while the next ones are read: to read a line takes
// about as long as to take it into the index.
type feed struct {
	to      *opening
	segment uint64
	inOrder bool // the lines lie in the order of their sequence numbers
	list    []index.Change

	full  chan []index.Change
	empty chan []index.Change
	done  chan struct{}
}

const (
	feedLength = 512
	feedLists  = 2 // on their way, beside the one that grows
)

// add takes the next record. Its error is nil.
func (f *feed) add(l *segment.Line) error {
	f.to.report.Replayed++
	f.list = append(f.list, change(&l.View, f.segment, l.Offset, int(l.Size)))
	if len(f.list) < feedLength {
		return nil
	}
	if f.full == nil {
		f.start()
	}
	f.full <- f.list
	f.list = <-f.empty
	return nil
}

func (f *feed) start() {
	f.full, f.empty, f.done = make(chan []index.Change, feedLists), make(chan []index.Change, feedLists+1), make(chan struct{})
	for range feedLists {
		f.empty <- nil
	}
	go func() {
		defer close(f.done)
		for list := range f.full {
			f.to.builder.Add(list, f.inOrder)
			f.empty <- list[:0]
		}
	}()
}

// end waits until all is in the index.
func (f *feed) end() {
	if f.full != nil {
		close(f.full)
		<-f.done
	}
	f.to.builder.Add(f.list, f.inOrder)
}
