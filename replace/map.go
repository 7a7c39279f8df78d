package replace

import (
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
)

// Mapper is what a [File] may be besides: one whose contents can be had as memory.
// The files of [OS] are, where such memory shows what is in the file at all times.
type Mapper interface {
	// Map maps the first size bytes, at least one, for reading. The mapping stays as
	// it is when the file is closed, renamed or removed.
	Map(size int64) (*Mapping, error)
}

// Map maps the first size bytes of a file that does not change any more. It fails
// with errors.ErrUnsupported where there is no such thing, and whoever meets an
// error reads the file instead. Address space of 32 bits is too small to try.
func Map(f File, size int64) (*Mapping, error) {
	m, ok := f.(Mapper)
	if !ok || size <= 0 || math.MaxInt == math.MaxInt32 {
		return nil, errors.ErrUnsupported
	}
	return m.Map(size)
}

// Mapping is the contents of a file as memory, for many small reads: they take no
// system call. It is safe for concurrent use, but for Close.
type Mapping struct {
	data  []byte
	unmap func([]byte) error
}

// ErrFault reports a part of a mapped file that the system could not bring into
// memory: it was cut off, or the disk can't read it. The file's ReadAt tells why.
var ErrFault = errors.New("a mapped page can't be read")

// ReadAt copies bytes out of the mapping. A page that can't be had is ErrFault, and
// not the signal that would end the process: it is the copying, and nothing else,
// that touches the memory.
func (m *Mapping) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, fault(r, off)
		}
	}()
	if n = copy(p, m.data[off:]); n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// CopyMapped copies parts of mappings, given as slices of their Bytes, behind each
// other into p, which must have room for them. It returns how many were copied: all,
// or those before the first that can't be had. In one loop, and not by a call for each
// part, the processor fetches several parts from memory at a time; where they are far
// apart that makes it three times as fast.
func CopyMapped(p []byte, parts [][]byte) (n int) {
	if len(parts) > fewParts {
		n = touch(parts)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer survive()
	for _, part := range parts {
		copy(p, part)
		p = p[len(part):]
		n++
	}
	return n
}

// survive is deferred where a fault ends what is done, and nothing else.
func survive() {
	if r := recover(); r != nil {
		_ = fault(r, 0)
	}
}

// touch has the processor fetch short parts, as many cache lines at a time as it can:
// while it copies it waits for few of them. Of a long part it sees itself where that
// leads. touch returns 0, which the compiler can't know.
func touch(parts [][]byte) int {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer survive()
	sum := uint64(0)
	for _, part := range parts {
		if len(part) == 0 || len(part) > shortPart {
			continue
		}
		for i := 0; i < len(part); i += cacheLine {
			sum += uint64(part[i])
		}
		sum += uint64(part[len(part)-1])
	}
	return int(sum >> 60)
}

const (
	cacheLine = 64
	shortPart = 1 << 10
	fewParts  = 4 // are not worth it
)

// Bytes is the memory itself, until Close. Who touches it must expect a fault.
func (m *Mapping) Bytes() []byte { return m.data }

// fault is the error for a fault, and panics again for anything else.
func fault(r any, off int64) error {
	if e, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	}); !ok {
		panic(r)
	} else {
		return fmt.Errorf("%w: reading at offset %d: %v", ErrFault, off, e)
	}
}

// Close gives the memory back. Nobody may be reading, or read any more.
func (m *Mapping) Close() error { return m.unmap(m.data) }
