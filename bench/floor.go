package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/annalsdb/annals/replace"
)

// floorFile is what no store can beat: the same bytes by raw system calls, into a
// file whose size does not change.
func floorFile(dir string) (replace.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := replace.OS.OpenFile(filepath.Join(dir, "floor"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := file.WriteAt(make([]byte, floorBytes), 0); err != nil {
		return nil, err
	}
	return file, file.Sync()
}

const floorBytes = 16 << 20

// recordOverhead is what the log adds to a key and a value of ours.
const recordOverhead = len(`{"seq":1000000,"dur":1000000,"key":"","val":} 01234567` + "\n")

// floorSync writes and syncs records one by one.
func floorSync(dir string, size int, d time.Duration) (result, error) {
	file, err := floorFile(dir)
	if err != nil {
		return result{}, err
	}
	defer file.Close()
	line := make([]byte, size)
	for i := range line {
		line[i] = 'x'
	}
	off := int64(0)
	return timed(1, d, 1, func(_, _ int) error {
		if off+int64(size) > floorBytes {
			off = 0
		}
		if _, err := file.WriteAt(line, off); err != nil {
			return err
		}
		off += int64(size)
		return file.SyncData()
	})
}

// floorWrite writes pieces of 64 KiB into a growing file. Without a time to sync after it
// begins anew at each 256 MiB, so that most of it never reaches the disk; with one
// the disk is asked to begin with each MiB, and the sync waits for it.
func floorWrite(dir string, d, every time.Duration) (result, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return result{}, err
	}
	file, err := replace.OS.OpenFile(filepath.Join(dir, "write"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return result{}, err
	}
	defer file.Close()
	piece := make([]byte, 64<<10)
	off, synced := int64(0), time.Now()
	return timed(1, d, 1, func(_, _ int) error {
		if every == 0 && off == 256<<20 {
			off = 0
			if err := file.Truncate(0); err != nil {
				return err
			}
		}
		if _, err := file.WriteAt(piece, off); err != nil {
			return err
		}
		off += int64(len(piece))
		if every == 0 {
			return nil
		}
		if h, ok := file.(replace.Hastener); ok && off%(1<<20) == 0 {
			if err := h.StartWriteback(off-1<<20, 1<<20); err != nil {
				return err
			}
		}
		if time.Since(synced) < every {
			return nil
		}
		synced = time.Now()
		return file.SyncData()
	})
}

// copyWithSync copies the segments of a store, as compaction flat out would have to, and
// returns how many bytes they have. Like its outputs the copies are durable, names too.
func copyWithSync(dir, dest string) (bytes int64, err error) {
	if err := os.MkdirAll(dest, 0o700); err != nil {
		return 0, err
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return 0, err
	}
	for _, path := range segments {
		n, err := copyOne(path, filepath.Join(dest, filepath.Base(path)))
		if err != nil {
			return 0, fmt.Errorf("copying %q: %w", path, err)
		}
		bytes += n
	}
	return bytes, replace.OS.SyncDir(dest)
}

func copyOne(from, to string) (n int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	// Through a buffer, as anything that looks at the bytes has to.
	if n, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 1<<20)); err != nil {
		return n, err
	}
	return n, out.Sync()
}
