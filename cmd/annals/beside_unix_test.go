//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

// Every verb that reads works on a store that is being written, while the log goes on
// in new files and compaction takes old ones.
func TestVerbsBesideAWriter(t *testing.T) {
	self, err := os.Executable()
	check(t, err)
	command := filepath.Join(t.TempDir(), "annals")
	check(t, os.Symlink(self, command))
	dir := filepath.Join(t.TempDir(), "store")
	store, err := annals.Open(dir, &annals.Options{SegmentSize: 8 << 10, History: 2_000})
	check(t, err)
	check(t, store.Put("first", []byte("1")))
	_, err = store.Append("s", []byte("0"))
	check(t, err)

	follower := exec.Command(command, "tail", dir, "--follow", "--from", "1")
	followed, err := follower.StdoutPipe()
	check(t, err)
	check(t, follower.Start())
	printed, inOrder := atomic.Uint64{}, make(chan error, 1)
	go func() { inOrder <- countLines(bufio.NewScanner(followed), &printed) }()

	var stop atomic.Bool
	written := make(chan error, 1)
	go func() {
		written <- func() error {
			for n := 0; !stop.Load(); n++ {
				if err := store.Put(fmt.Sprint("k", n%20), fmt.Append(nil, n, strings.Repeat("x", 200))); err != nil {
					return err
				}
				if _, err := store.Append("s", fmt.Append(nil, n)); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	begun := time.Now()
	for round := 0; round < 4 || store.Stats().History == 1 && time.Since(begun) < 6*time.Second; round++ {
		for _, args := range [][]string{
			{"get", dir, "first"}, {"scan", dir}, {"samples", dir, "s"}, {"series", dir}, {"stats", dir, "--json"},
			{"verify", dir}, {"tail", dir, "--last", "5"}, {"export", dir},
			{"backup", dir, filepath.Join(t.TempDir(), fmt.Sprint("backup", round))},
		} {
			var out, errors bytes.Buffer
			cmd := exec.Command(command, args...)
			cmd.Stdout, cmd.Stderr = &out, &errors
			if err := cmd.Run(); err != nil {
				t.Errorf("annals %v: %v\n%s", args, err, errors.String())
			}
			if out.Len() == 0 && args[0] != "backup" {
				t.Errorf("annals %v says nothing", args)
			}
		}
	}
	stop.Store(true)
	check(t, <-written)
	for deadline := time.Now().Add(10 * time.Second); printed.Load() < store.Durable() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if have, want := printed.Load(), store.Durable(); have != want {
		t.Errorf("tail --follow has printed %d of %d records", have, want)
	}
	t.Logf("%d records, of which the first %d were compacted", store.Durable(), store.Stats().History-1)
	check(t, follower.Process.Signal(os.Interrupt))
	select {
	case err := <-inOrder:
		check(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("tail --follow does not end")
	}
	check(t, follower.Wait())
	check(t, store.Close())
}

// countLines makes sure that records come one after the other.
func countLines(lines *bufio.Scanner, last *atomic.Uint64) error {
	for lines.Scan() {
		var line struct{ Seq uint64 }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return err
		}
		if line.Seq != last.Load()+1 {
			return fmt.Errorf("record %d comes after record %d", line.Seq, last.Load())
		}
		last.Store(line.Seq)
	}
	return lines.Err()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
