package main

import (
	"sync"
	"time"

	"github.com/annalsdb/annals/replace"
)

// cycle is what many durable writers cost without a store: they come together, the
// last of them writes a line for each with one system call and syncs, and all are
// told. There is nothing to encode, to check and to find again.
type cycle struct {
	file    replace.File
	lines   []byte
	size    int // of a line
	writers int

	mu      sync.Mutex
	waiting []chan error
	spare   []chan error
	off     int64
}

// floorCycle lets writers run for a time.
func floorCycle(dir string, writers, size int, d time.Duration) (result, error) {
	file, err := floorFile(dir)
	if err != nil {
		return result{}, err
	}
	defer file.Close()
	c := &cycle{file: file, lines: make([]byte, writers*size), size: size, writers: writers}
	told := make([]chan error, writers)
	for i := range told {
		told[i] = make(chan error, 1)
	}
	done := make(chan struct{})
	go func() { // those who are left when the first have ended are not all any more
		defer close(done)
		for time.Sleep(d); c.pass(); time.Sleep(time.Millisecond) {
		}
	}()
	r, err := timed(writers, d, 1, func(g, _ int) error {
		c.come(told[g])
		return <-told[g]
	})
	c.mu.Lock()
	c.writers = 0
	c.mu.Unlock()
	<-done
	return r, err
}

// come queues a writer; the last one does the work for all.
func (c *cycle) come(told chan error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting = append(c.waiting, told); len(c.waiting) == c.writers {
		c.commit()
	}
}

// pass commits for those who have come, and tells whether more may.
func (c *cycle) pass() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commit()
	return c.writers > 0
}

func (c *cycle) commit() {
	n := len(c.waiting) * c.size
	if c.off+int64(n) > floorBytes {
		c.off = 0
	}
	_, err := c.file.WriteAt(c.lines[:n], c.off)
	c.off += int64(n)
	if err == nil {
		err = c.file.SyncData()
	}
	all := c.waiting
	c.waiting, c.spare = c.spare[:0], all
	for _, told := range all {
		told <- err
	}
}

// floorLoad writes and syncs the lines of 1,000 records at a time into a growing file.
func floorLoad(dir string, size int, d time.Duration) (result, error) {
	file, err := floorFile(dir)
	if err != nil {
		return result{}, err
	}
	defer file.Close()
	lines, off := make([]byte, 1000*size), int64(0)
	r, err := timed(1, d, 1, func(_, _ int) error {
		if _, err := file.WriteAt(lines, off); err != nil {
			return err
		}
		off += int64(len(lines))
		return file.SyncData()
	})
	r.Value *= 1000
	return r, err
}

// floorMap is what reading costs without a store: a map in memory.
type floorMap map[string][]byte

func newFloorMap(keys, size int) floorMap {
	m := make(floorMap, keys)
	for i := range keys {
		m[string(key(i))] = value(i, size)
	}
	return m
}

// Get returns a copy of the value, as a store must.
func (m floorMap) Get(key []byte) ([]byte, error) { return append([]byte(nil), m[string(key)]...), nil }
