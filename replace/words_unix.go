//go:build linux || darwin || freebsd

package replace

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

type mapped struct {
	mu     sync.Mutex
	memory []byte // nil after Close
	words  []uint64
	fixed  bool // the file was opened for reading
}

const mapWithin = 4096 // the least size of a page: the first one holds all

// MapWords implements [WordMapper].
func (f osFile) MapWords(off int64, n int) (*Words, error) {
	if off < 0 || off%8 != 0 || n <= 0 || off+8*int64(n) > mapWithin {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: unix.EINVAL}
	}
	w := &Words{}
	err := f.control("mmap", func(fd int) (err error) {
		w.memory, err = unix.Mmap(fd, 0, mapWithin, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if errors.Is(err, unix.EACCES) { // the file is open for reading only
			w.fixed = true
			w.memory, err = unix.Mmap(fd, 0, mapWithin, unix.PROT_READ, unix.MAP_SHARED)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	w.words = unsafe.Slice((*uint64)(unsafe.Pointer(&w.memory[off])), n)
	return w, nil
}

// Store stores word i. A fault, since somebody has cut the file, is an error, and so is
// a file that was opened for reading.
func (w *Words) Store(i int, n uint64) error {
	if w.fixed {
		return ErrUnmapped
	}
	return w.touch(func(words []uint64) { atomic.StoreUint64(&words[i], little(n)) })
}

// Load returns word i.
func (w *Words) Load(i int) (n uint64, err error) {
	err = w.touch(func(words []uint64) { n = little(atomic.LoadUint64(&words[i])) })
	return n, err
}

// touch turns the signal of a page that is not there into a panic of this
// goroutine, and that into an error. Any other panic goes on.
func (w *Words) touch(use func([]uint64)) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.memory == nil {
		return ErrUnmapped
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			err = ErrUnmapped
		}
	}()
	use(w.words)
	return nil
}

// Close gives the memory back; the file stays open.
func (w *Words) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	memory := w.memory
	w.memory, w.words = nil, nil
	if memory == nil {
		return nil
	}
	return unix.Munmap(memory)
}

// little is n as the machine spells it, from little-endian and back.
func little(n uint64) uint64 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return n
	}
	return bits.ReverseBytes64(n)
}
