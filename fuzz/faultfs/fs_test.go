package faultfs_test

import (
	"testing"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/replace/fstest"
)

// TestConformance runs the suite that the real file system passes too.
func TestConformance(t *testing.T) {
	fstest.Test(t, func(t *testing.T) (replace.FS, string) {
		f := faultfs.New()
		if err := f.Mkdir("/dir", 0o755); err != nil {
			t.Fatal(err)
		}
		return f, "/dir"
	})
}
