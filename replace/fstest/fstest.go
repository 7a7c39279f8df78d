// Package fstest checks that an implementation of replace.FS keeps the promises
// that its comments make.
//
// An FS that fails or crashes on command is worth what it has in common with the
// real one. Both pass this suite.
package fstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/annalsdb/annals/replace"
)

// Test runs the suite. newFS returns a file system and an empty directory on it;
// it is called once for every test.
//
// Permissions are checked under different umasks, which belong to the process:
// nothing else should make files while Test runs.
func Test(t *testing.T, newFS func(t *testing.T) (fsys replace.FS, dir string)) {
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"OpenCreates", (*suite).openCreates},
		{"OpenExisting", (*suite).openExisting},
		{"OpenExclusive", (*suite).openExclusive},
		{"OpenTruncates", (*suite).openTruncates},
		{"OpenTakesRegularFilesOnly", (*suite).openTakesRegularFilesOnly},
		{"OpenObeysAccess", (*suite).openObeysAccess},
		{"ExactPermissions", (*suite).exactPermissions},
		{"ReadAt", (*suite).readAt},
		{"WriteAt", (*suite).writeAt},
		{"Truncate", (*suite).truncate},
		{"Sync", (*suite).sync},
		{"ReadsAndWritesAtTheSameTime", (*suite).parallel},
		{"UseAfterClose", (*suite).useAfterClose},
		{"Rename", (*suite).rename},
		{"RenameReplaces", (*suite).renameReplaces},
		{"RenameDirectory", (*suite).renameDirectory},
		{"Link", (*suite).link},
		{"Symlink", (*suite).symlink},
		{"SymlinkReplaced", (*suite).symlinkReplaced},
		{"SymlinkToDirectory", (*suite).symlinkToDirectory},
		{"Remove", (*suite).remove},
		{"RemoveOpenFile", (*suite).removeOpenFile},
		{"Mkdir", (*suite).mkdir},
		{"ReadDir", (*suite).readDir},
		{"Lstat", (*suite).lstat},
		{"SameFile", (*suite).sameFile},
		{"SyncDir", (*suite).syncDir},
		{"LockConflicts", (*suite).lockConflicts},
		{"LockReleased", (*suite).lockReleased},
		{"LockWaits", (*suite).lockWaits},
		{"LockBelongsToTheFile", (*suite).lockBelongsToTheFile},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys, dir := newFS(t)
			test.run(&suite{T: t, FS: fsys, dir: dir})
		})
	}
}

// suite is one test with its file system. Its helpers take names relative to dir,
// and fail the test if the file system fails.
type suite struct {
	*testing.T
	replace.FS
	dir string
}

const windows = runtime.GOOS == "windows"

func (s *suite) path(name string) string { return filepath.Join(s.dir, name) }

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// fails checks that a verb failed with an error that names a file and is kind,
// where kind is not nil.
func (s *suite) fails(err, kind error) {
	s.Helper()
	var (
		pathErr *fs.PathError
		linkErr *os.LinkError
	)
	switch {
	case err == nil:
		s.Fatal("no error")
	case !errors.As(err, &pathErr) && !errors.As(err, &linkErr):
		s.Errorf("%T is no *fs.PathError or *os.LinkError: %v", err, err)
	case kind != nil && !errors.Is(err, kind):
		s.Errorf("error is %q, want %q", err, kind)
	}
}

func (s *suite) open(name string, flag int) replace.File {
	s.Helper()
	f, err := s.OpenFile(s.path(name), flag, 0o600)
	s.ok(err)
	s.Cleanup(func() { f.Close() })
	return f
}

func (s *suite) openFails(name string, flag int, kind error) {
	s.Helper()
	f, err := s.OpenFile(s.path(name), flag, 0o600)
	if err == nil {
		f.Close()
	}
	s.fails(err, kind)
}

func (s *suite) write(name, contents string) {
	s.Helper()
	f, err := s.OpenFile(s.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	s.ok(err)
	_, err = f.WriteAt([]byte(contents), 0)
	s.ok(err)
	s.ok(f.Close())
}

func (s *suite) contains(name, want string) {
	s.Helper()
	f, err := s.OpenFile(s.path(name), os.O_RDONLY, 0)
	s.ok(err)
	s.holds(f, want)
	s.ok(f.Close())
}

// holds reads more than there should be: what is there ends with io.EOF.
func (s *suite) holds(f replace.File, want string) {
	s.Helper()
	got := make([]byte, len(want)+10)
	n, err := f.ReadAt(got, 0)
	if err != io.EOF {
		s.Errorf("reading over the end gives error %v, want io.EOF", err)
	}
	if string(got[:n]) != want {
		s.Errorf("contents are %q, want %q", got[:n], want)
	}
}

func (s *suite) absent(name string) {
	s.Helper()
	_, err := s.Lstat(s.path(name))
	s.fails(err, fs.ErrNotExist)
}

func (s *suite) stat(name string) fs.FileInfo {
	s.Helper()
	info, err := s.Lstat(s.path(name))
	s.ok(err)
	return info
}

func (s *suite) openCreates() {
	s.openFails("a", os.O_RDWR, fs.ErrNotExist)
	s.absent("a")
	s.holds(s.open("a", os.O_RDWR|os.O_CREATE), "")
	s.contains("a", "")
	s.openFails("no/such/dir", os.O_RDWR|os.O_CREATE, fs.ErrNotExist)
}

func (s *suite) openExisting() {
	s.write("a", "old")
	s.holds(s.open("a", os.O_RDWR|os.O_CREATE), "old")
	s.holds(s.open("a", os.O_RDONLY), "old")
	s.write("b", "b")
	s.openFails("b/c", os.O_RDONLY, nil) // a file is no directory
}

func (s *suite) openExclusive() {
	s.open("a", os.O_RDWR|os.O_CREATE|os.O_EXCL)
	s.openFails("a", os.O_RDWR|os.O_CREATE|os.O_EXCL, fs.ErrExist)
	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	s.openFails("d", os.O_RDWR|os.O_CREATE|os.O_EXCL, fs.ErrExist)
	s.ok(s.FS.Symlink("nowhere", s.path("l")))
	s.openFails("l", os.O_RDWR|os.O_CREATE|os.O_EXCL, fs.ErrExist)
	s.absent("nowhere")
}

func (s *suite) openTruncates() {
	s.write("a", "old contents")
	s.holds(s.open("a", os.O_RDWR|os.O_TRUNC), "")
	s.contains("a", "")
}

func (s *suite) openTakesRegularFilesOnly() {
	s.write("victim", "untouched")
	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	s.ok(s.FS.Symlink("victim", s.path("link")))
	s.ok(s.FS.Symlink("nowhere", s.path("dangling")))
	for _, flag := range []int{
		os.O_RDONLY,
		os.O_RDWR,
		os.O_WRONLY | os.O_TRUNC,
		os.O_RDWR | os.O_CREATE,
	} {
		s.openFails("d", flag, replace.ErrNotRegular)
		s.openFails("link", flag, replace.ErrNotRegular)
		s.openFails("dangling", flag, replace.ErrNotRegular)
	}
	s.contains("victim", "untouched")
	s.absent("nowhere")
}

func (s *suite) openObeysAccess() {
	s.write("a", "old")
	buf := make([]byte, 3)

	r := s.open("a", os.O_RDONLY)
	_, err := r.WriteAt([]byte("new"), 0)
	s.fails(err, nil)
	s.fails(r.Truncate(0), nil)

	w := s.open("a", os.O_WRONLY)
	_, err = w.ReadAt(buf, 0)
	s.fails(err, nil)
	s.contains("a", "old")
}

func (s *suite) exactPermissions() {
	if windows {
		return // which has none
	}
	for i, mask := range []int{0, 0o022, 0o077, 0o177} {
		restore := umask(mask)
		s.Cleanup(restore)
		for j, perm := range []fs.FileMode{0o600, 0o644, 0o666, 0o400, 0o700} {
			name := string(rune('a'+i)) + string(rune('0'+j))
			f, err := s.OpenFile(s.path("file"+name), os.O_RDWR|os.O_CREATE, perm)
			s.ok(err)
			s.ok(f.Close())
			s.ok(s.FS.Mkdir(s.path("dir"+name), perm|0o100))
			if got := s.stat("file" + name).Mode(); got != perm {
				s.Errorf("umask %03o: file has %v, want %v", mask, got, perm)
			}
			if got := s.stat("dir" + name).Mode().Perm(); got != perm|0o100 {
				s.Errorf("umask %03o: directory has %v, want %v", mask, got, perm|0o100)
			}
			// A file that exists keeps what it has.
			f, err = s.OpenFile(s.path("file"+name), os.O_RDONLY|os.O_CREATE, 0o777)
			s.ok(err)
			s.ok(f.Close())
			if got := s.stat("file" + name).Mode(); got != perm {
				s.Errorf("umask %03o: file opened again has %v, want %v", mask, got, perm)
			}
		}
		restore()
	}
}

func (s *suite) readAt() {
	s.write("a", "0123456789")
	f := s.open("a", os.O_RDONLY)
	for _, c := range []struct {
		off, size int
		want      string
		eof       bool
	}{
		{0, 4, "0123", false},
		{3, 4, "3456", false},
		{8, 4, "89", true},
		{10, 4, "", true},
		{99, 4, "", true},
	} {
		buf := make([]byte, c.size)
		n, err := f.ReadAt(buf, int64(c.off))
		if string(buf[:n]) != c.want || (err == io.EOF) != c.eof || (err != nil && err != io.EOF) {
			s.Errorf("ReadAt(%d, %d) = %q, %v, want %q, EOF: %v", c.off, c.size, buf[:n], err, c.want, c.eof)
		}
	}
	buf := make([]byte, 4)
	if n, err := f.ReadAt(buf, 6); string(buf[:n]) != "6789" || (err != nil && err != io.EOF) {
		s.Errorf("reading up to the end = %q, %v", buf[:n], err)
	}
}

func (s *suite) writeAt() {
	f := s.open("a", os.O_RDWR|os.O_CREATE)
	for _, w := range []struct {
		off            int64
		data, contents string
	}{
		{0, "hello", "hello"},
		{1, "ipp", "hippo"},
		{4, "ies", "hippies"},
		{9, "!", "hippies\x00\x00!"}, // what was never written is zero
		{2, "", "hippies\x00\x00!"},
	} {
		n, err := f.WriteAt([]byte(w.data), w.off)
		s.ok(err)
		if n != len(w.data) {
			s.Errorf("WriteAt returns %d, want %d", n, len(w.data))
		}
		s.holds(f, w.contents)
	}
	info, err := f.Stat()
	s.ok(err)
	if info.Size() != 10 || s.stat("a").Size() != 10 {
		s.Errorf("size is %d and %d, want 10", info.Size(), s.stat("a").Size())
	}
}

func (s *suite) truncate() {
	s.write("a", "0123456789")
	f := s.open("a", os.O_RDWR)
	s.ok(f.Truncate(4))
	s.holds(f, "0123")
	s.ok(f.Truncate(6)) // zeros, and not what was there before
	s.holds(f, "0123\x00\x00")
	s.ok(f.Truncate(0))
	s.holds(f, "")
	s.fails(f.Truncate(-1), nil)
}

func (s *suite) sync() {
	f := s.open("a", os.O_RDWR|os.O_CREATE)
	_, err := f.WriteAt([]byte("data"), 0)
	s.ok(err)
	s.ok(f.SyncData())
	s.ok(f.Sync())
	s.holds(f, "data")
}

func (s *suite) parallel() {
	const writers, rounds, size = 8, 50, 64
	f := s.open("a", os.O_RDWR|os.O_CREATE)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			data := bytes.Repeat([]byte{byte('a' + w)}, size)
			got := make([]byte, size)
			for range rounds {
				if _, err := f.WriteAt(data, int64(w*size)); err != nil {
					s.Error(err)
				}
				if n, err := f.ReadAt(got, int64(w*size)); !bytes.Equal(got[:n], data) {
					s.Errorf("reads %q, %v", got[:n], err)
				}
			}
		})
	}
	wg.Wait()
}

func (s *suite) useAfterClose() {
	f := s.open("a", os.O_RDWR|os.O_CREATE)
	s.ok(f.Close())
	_, err := f.WriteAt([]byte("x"), 0)
	s.fails(err, fs.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	s.fails(err, fs.ErrClosed)
	_, err = f.Stat()
	s.fails(err, nil)
	s.fails(f.Truncate(0), nil)
	s.fails(f.Sync(), fs.ErrClosed)
	s.fails(f.SyncData(), nil)
	s.fails(f.Lock(true, false), nil)
	s.fails(f.Unlock(), nil)
	s.fails(f.Close(), fs.ErrClosed)
}

func (s *suite) rename() {
	s.write("a", "1")
	f := s.open("a", os.O_RDONLY)
	s.ok(s.FS.Rename(s.path("a"), s.path("b")))
	s.absent("a")
	s.contains("b", "1")
	s.holds(f, "1")
	s.fails(s.FS.Rename(s.path("a"), s.path("c")), fs.ErrNotExist)
	s.fails(s.FS.Rename(s.path("b"), s.path("no/b")), fs.ErrNotExist)
	s.contains("b", "1")
	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	s.ok(s.FS.Rename(s.path("b"), s.path("d/b")))
	s.absent("b")
	s.contains("d/b", "1")
}

func (s *suite) renameReplaces() {
	s.write("a", "new")
	s.write("b", "old")
	old := s.open("b", os.O_RDONLY)
	s.ok(s.FS.Rename(s.path("a"), s.path("b")))
	s.absent("a")
	s.contains("b", "new")
	s.holds(old, "old") // for whoever had it open

	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	s.fails(s.FS.Rename(s.path("b"), s.path("d")), nil)
	s.contains("b", "new")
}

func (s *suite) renameDirectory() {
	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	s.write("d/a", "1")
	s.ok(s.FS.Rename(s.path("d"), s.path("e")))
	s.absent("d")
	s.contains("e/a", "1")
}

func (s *suite) link() {
	s.write("a", "1")
	s.ok(s.FS.Link(s.path("a"), s.path("b")))
	f := s.open("a", os.O_RDWR)
	_, err := f.WriteAt([]byte("2"), 0)
	s.ok(err)
	s.contains("b", "2") // one file
	s.fails(s.FS.Link(s.path("a"), s.path("b")), fs.ErrExist)
	s.fails(s.FS.Link(s.path("x"), s.path("c")), fs.ErrNotExist)
	s.absent("c")
	s.ok(s.FS.Remove(s.path("a")))
	s.absent("a")
	s.contains("b", "2")
}

func (s *suite) symlink() {
	s.write("a", "1")
	s.ok(s.FS.Symlink("a", s.path("l")))
	target, err := s.FS.Readlink(s.path("l"))
	s.ok(err)
	if target != "a" {
		s.Errorf("Readlink = %q", target)
	}
	if mode := s.stat("l").Mode(); mode.Type() != fs.ModeSymlink {
		s.Errorf("mode of a link is %v", mode)
	}
	s.fails(s.FS.Symlink("b", s.path("l")), fs.ErrExist)
	s.fails(s.FS.Symlink("b", s.path("a")), fs.ErrExist)
	_, err = s.FS.Readlink(s.path("a"))
	s.fails(err, nil)
	_, err = s.FS.Readlink(s.path("x"))
	s.fails(err, fs.ErrNotExist)
	s.ok(s.FS.Remove(s.path("l"))) // the link, not the file
	s.absent("l")
	s.contains("a", "1")
}

func (s *suite) symlinkReplaced() {
	s.ok(s.FS.Symlink("1", s.path("current")))
	s.ok(s.FS.Symlink("2", s.path("next")))
	s.ok(s.FS.Rename(s.path("next"), s.path("current")))
	s.absent("next")
	target, err := s.FS.Readlink(s.path("current"))
	s.ok(err)
	if target != "2" {
		s.Errorf("Readlink = %q", target)
	}
	s.write("a", "file")
	s.ok(s.FS.Rename(s.path("a"), s.path("current"))) // replaces the link, does not follow it
	s.contains("current", "file")
}

// A directory is reached through a link wherever it is not the last element, so
// the verbs that take a directory must reach the same one.
func (s *suite) symlinkToDirectory() {
	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	s.ok(s.FS.Symlink("d", s.path("l")))
	s.write("l/a", "1")
	s.contains("d/a", "1")
	s.ok(s.FS.SyncDir(s.path("l")))
	entries, err := s.FS.ReadDir(s.path("l"))
	s.ok(err)
	if len(entries) != 1 || entries[0].Name() != "a" {
		s.Errorf("ReadDir through a link = %v", entries)
	}
}

func (s *suite) remove() {
	s.write("a", "1")
	s.ok(s.FS.Remove(s.path("a")))
	s.absent("a")
	s.fails(s.FS.Remove(s.path("a")), fs.ErrNotExist)
	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	s.write("d/a", "1")
	s.fails(s.FS.Remove(s.path("d")), nil)
	s.contains("d/a", "1")
	s.ok(s.FS.Remove(s.path("d/a")))
	s.ok(s.FS.Remove(s.path("d")))
	s.absent("d")
}

func (s *suite) removeOpenFile() {
	s.write("a", "1")
	f := s.open("a", os.O_RDWR)
	s.ok(s.FS.Remove(s.path("a")))
	s.absent("a")
	s.holds(f, "1")
	s.write("a", "2") // another file
	s.holds(f, "1")
}

func (s *suite) mkdir() {
	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	if info := s.stat("d"); !info.IsDir() {
		s.Errorf("mode of a directory is %v", info.Mode())
	}
	s.fails(s.FS.Mkdir(s.path("d"), 0o700), fs.ErrExist)
	s.fails(s.FS.Mkdir(s.path("x/y"), 0o700), fs.ErrNotExist)
	s.write("a", "")
	s.fails(s.FS.Mkdir(s.path("a"), 0o700), fs.ErrExist)
}

func (s *suite) readDir() {
	entries, err := s.FS.ReadDir(s.dir)
	s.ok(err)
	if len(entries) != 0 {
		s.Errorf("a new directory has %v", entries)
	}
	for _, name := range []string{"b", "a", "c", "Z", "10", "9"} {
		s.write(name, "")
	}
	s.ok(s.FS.Mkdir(s.path("d"), 0o700))
	s.write("d/inside", "")
	s.ok(s.FS.Symlink("d", s.path("l")))
	entries, err = s.FS.ReadDir(s.dir)
	s.ok(err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
		if want := s.stat(entry.Name()).Mode().Type(); entry.Type() != want {
			s.Errorf("type of %s is %v, want %v", entry.Name(), entry.Type(), want)
		}
	}
	if want := []string{"10", "9", "Z", "a", "b", "c", "d", "l"}; !slices.Equal(names, want) {
		s.Errorf("ReadDir = %q, want %q", names, want)
	}
	_, err = s.FS.ReadDir(s.path("x"))
	s.fails(err, fs.ErrNotExist)
	_, err = s.FS.ReadDir(s.path("a"))
	s.fails(err, nil)
}

func (s *suite) lstat() {
	s.write("a", "12345")
	info := s.stat("a")
	if info.Name() != "a" || info.Size() != 5 || !info.Mode().IsRegular() {
		s.Errorf("Lstat = %s, %d bytes, %v", info.Name(), info.Size(), info.Mode())
	}
	s.absent("x")
	s.ok(s.FS.Symlink("x", s.path("l")))
	s.stat("l") // though it leads nowhere
	opened, err := s.open("a", os.O_RDONLY).Stat()
	s.ok(err)
	if opened.Size() != 5 || !opened.Mode().IsRegular() {
		s.Errorf("Stat = %d bytes, %v", opened.Size(), opened.Mode())
	}
}

func (s *suite) sameFile() {
	s.write("a", "1")
	s.write("b", "1")
	f := s.open("a", os.O_RDWR)
	same := func(name string, want bool) {
		s.Helper()
		opened, err := f.Stat()
		s.ok(err)
		if s.FS.SameFile(opened, s.stat(name)) != want {
			s.Errorf("SameFile is not %v for %s", want, name)
		}
	}
	same("a", true)
	same("b", false)
	_, err := f.WriteAt([]byte("grows"), 0)
	s.ok(err)
	same("a", true)
	s.ok(s.FS.Link(s.path("a"), s.path("c")))
	same("c", true)
	s.ok(s.FS.Symlink("a", s.path("l")))
	same("l", false)
	s.ok(s.FS.Rename(s.path("a"), s.path("d")))
	same("d", true)
	s.write("a", "1")
	same("a", false)
	s.ok(s.FS.Rename(s.path("b"), s.path("d")))
	same("d", false)
	same("c", true)
}

func (s *suite) syncDir() {
	s.write("a", "1")
	s.ok(s.FS.SyncDir(s.dir))
	s.ok(s.FS.Remove(s.path("a")))
	s.ok(s.FS.SyncDir(s.dir))
	if !windows { // where it does nothing
		s.fails(s.FS.SyncDir(s.path("a")), fs.ErrNotExist)
	}
}
