package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/annalsdb/annals"
)

// A writer that began in the middle of a repair would be taken for damage.
func TestNoWriterBeginsDuringARepair(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	open := func() error {
		return withStore(dir, nil, func(*annals.Store) error { return nil })
	}
	must(t, open())
	lock, err := os.ReadFile(filepath.Join(dir, "LOCK"))
	must(t, err)
	release, err := keepWritersOut(dir)
	must(t, err)
	if err := open(); !errors.Is(err, annals.ErrLocked) {
		t.Errorf("a writer began: %v", err)
	}
	must(t, withReader(dir, func(*annals.Reader) error { return nil }))
	again, err := keepWritersOut(dir) // repairs do not get in each other's way
	must(t, err)
	again()
	release()
	if now, err := os.ReadFile(filepath.Join(dir, "LOCK")); err != nil || string(now) != string(lock) {
		t.Errorf("LOCK has changed: %v", err)
	}
	must(t, open())
}
