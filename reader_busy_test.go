package annals

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/replace"
)

// busyFS has a writer at work while a reader reads a segment.
type busyFS struct {
	replace.FS
	busy func()
}

func (b busyFS) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	file, err := b.FS.OpenFile(name, flag, perm)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return file, err
	}
	return busyFile{file, b.busy}, nil
}

type busyFile struct {
	replace.File
	busy func()
}

func (b busyFile) ReadAt(p []byte, off int64) (int, error) {
	b.busy()
	return b.File.ReadAt(p, off)
}

// A reader that is slow to read a store, whose writer goes on and compacts meanwhile,
// opens it nevertheless: segments must not go one by one while it reads them.
func TestReaderOpensAStoreThatIsCompactedAllTheTime(t *testing.T) {
	db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	n := 0
	write := func() {
		for range 20 {
			n++
			put(t, db, fmt.Sprint("k", n%400), strings.Repeat("x", 100)+fmt.Sprint(n))
		}
	}
	for range 25 {
		write()
	}
	reads := 0
	busy := func() {
		if reads++; reads%8 == 0 {
			write()
			compactAll(t, db)
		}
	}
	r, err := OpenReader(db.dir, &ReaderOptions{FS: busyFS{replace.OS, busy}})
	require.NoError(t, err, "after %d reads", reads)
	require.Len(t, scan(t, r, Range{}), 400)
	require.NoError(t, r.Close())
	require.Greater(t, reads, 16)
}

// longer is a file that is shorter by now than it says: its writer has cut the padding.
type longer struct{ replace.File }

func (f longer) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	return longerInfo{info}, err
}

type longerInfo struct{ fs.FileInfo }

func (i longerInfo) Size() int64 { return i.FileInfo.Size() + 4096 }

func TestReaderOpensASegmentWhosePaddingIsBeingCut(t *testing.T) {
	db := open(t, nil)
	put(t, db, "key", "value")
	o := &opening{opts: db.opts, dir: db.dir, manifest: db.manifest.copy()}
	o.hold()
	o.held[o.manifest.Open] = longer{o.held[o.manifest.Open]}
	g, err := o.openGrowing()
	require.NoError(t, err)
	defer g.Close()
	require.EqualValues(t, 1, g.first)
}
