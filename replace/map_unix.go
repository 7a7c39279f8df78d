//go:build linux || darwin || freebsd || netbsd || dragonfly

package replace

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// Map implements Mapper. OpenBSD is missing above: there a mapping need not show what
// was written through the file.
func (f osFile) Map(size int64) (*Mapping, error) {
	var data []byte
	err := f.control("mmap", func(fd int) (err error) {
		data, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
		return err
	})
	if err != nil {
		return nil, err
	}
	name := f.Name()
	return &Mapping{data: data, unmap: func(data []byte) error {
		if err := unix.Munmap(data); err != nil {
			return &fs.PathError{Op: "munmap", Path: name, Err: err}
		}
		return nil
	}}, nil
}
