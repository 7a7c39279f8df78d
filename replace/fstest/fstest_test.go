package fstest_test

import (
	"testing"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/replace/fstest"
)

func TestOS(t *testing.T) {
	fstest.Test(t, func(t *testing.T) (replace.FS, string) { return replace.OS, t.TempDir() })
}
