package replace

import (
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"sync/atomic"
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
	n, faulted := copyMapped(p, parts, true)
	if faulted && n == 0 { // it may not be the first
		n, _ = copyMapped(p, parts, false)
	}
	return n
}

// copyMapped is CopyMapped once. With fetch it reads a little of each part before, with
// as little between them as can be: so more of them are on their way at a time.
func copyMapped(p []byte, parts [][]byte, fetch bool) (n int, faulted bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			_ = fault(r, 0)
			faulted = true
		}
	}()
	if fetch {
		sum := byte(0)
		for _, part := range parts {
			if n := len(part); n > 0 {
				sum += part[0] + part[n/2] + part[n-1]
			}
		}
		fetched.Store(uint32(sum))
	}
	for _, part := range parts {
		copy(p, part)
		p = p[len(part):]
		n++
	}
	return n, false
}

// fetched keeps the compiler from leaving out loads whose result nobody needs.
var fetched atomic.Uint32

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
