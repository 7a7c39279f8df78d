package faultfs_test

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/replace/fstest"
)

// TestConformance runs the suite that the real file system passes too.
func TestConformance(t *testing.T) {
	for _, tear := range []int64{faultfs.Piece, faultfs.Page} {
		fstest.Test(t, func(t *testing.T) (replace.FS, string) {
			f := faultfs.New()
			f.Tear = tear
			require.NoError(t, f.Mkdir("/dir", 0o755))
			return f, "/dir"
		})
	}
}

// disk is a file system with a durable file /a that holds old.
func disk(t *testing.T, old string) (*faultfs.FS, replace.File) {
	f := faultfs.New()
	a := create(t, f, "/a", old)
	require.NoError(t, a.Sync())
	require.NoError(t, f.SyncDir("/"))
	require.Zero(t, f.Pending())
	return f, a
}

func create(t *testing.T, f *faultfs.FS, name, contents string) replace.File {
	file, err := f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err)
	write(t, file, contents, 0)
	return file
}

func write(t *testing.T, file replace.File, contents string, off int64) {
	_, err := file.WriteAt([]byte(contents), off)
	require.NoError(t, err)
}

// read returns a file's contents; a missing one is "missing".
func read(f *faultfs.FS, name string) string {
	text, err := f.ReadFile(name)
	if err != nil {
		return "missing"
	}
	return string(text)
}

// outcomes returns what read gives of the names after each crash that keeps a
// subset of the pending effects.
func outcomes(f *faultfs.FS, names ...string) (list []string) {
	n := f.Pending()
	for bits := range 1 << n {
		after := f.Crash(func(i int) bool { return bits>>i&1 == 1 })
		var is []string
		for _, name := range names {
			is = append(is, read(after, name))
		}
		list = append(list, strings.Join(is, ","))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func TestWhatNobodySyncedMayBeThereOrNot(t *testing.T) {
	f, a := disk(t, "old")
	write(t, a, "new", 0)
	require.Equal(t, []string{"new", "old"}, outcomes(f, "/a"))
	require.NoError(t, a.SyncData())
	require.Equal(t, []string{"new"}, outcomes(f, "/a"))
}

// A name is durable by the sync of its directory, and its contents by that of the
// file: neither does for the other.
func TestNamesAndContentsAreSyncedApart(t *testing.T) {
	f := faultfs.New()
	a := create(t, f, "/a", "1")
	require.Equal(t, []string{"", "\x00", "1", "missing"}, outcomes(f, "/a"))
	require.NoError(t, a.Sync())
	require.Equal(t, []string{"1", "missing"}, outcomes(f, "/a"))
	require.NoError(t, f.SyncDir("/"))
	require.Equal(t, []string{"1"}, outcomes(f, "/a"))

	b := create(t, f, "/b", "2")
	require.NoError(t, f.SyncDir("/"))
	require.Equal(t, []string{"", "\x00", "2"}, outcomes(f, "/b"))
	require.NoError(t, b.Sync())
	require.Equal(t, []string{"2"}, outcomes(f, "/b"))
}

func TestDirectoryEffectsComeInAnySubset(t *testing.T) {
	f, a := disk(t, "1")
	require.NoError(t, create(t, f, "/b", "2").Sync())
	require.NoError(t, f.SyncDir("/"))
	require.NoError(t, f.Remove("/a"))
	require.NoError(t, f.Link("/b", "/c"))
	require.NoError(t, f.Mkdir("/d", 0o700))
	want := []string{}
	for _, is := range []string{"1", "missing"} { // a removal that nobody synced, and so on
		for _, c := range []string{"2", "missing"} {
			want = append(want, is+",2,"+c)
		}
	}
	require.Equal(t, want, outcomes(f, "/a", "/b", "/c"))
	require.NoError(t, f.SyncDir("/"))
	require.Equal(t, []string{"missing,2,2"}, outcomes(f, "/a", "/b", "/c"))
	require.NoError(t, a.Close())
}

func TestRenameIsOneStep(t *testing.T) {
	f, _ := disk(t, "old")
	require.NoError(t, create(t, f, "/b", "new").Sync())
	require.NoError(t, f.SyncDir("/"))
	require.NoError(t, f.Rename("/b", "/a"))
	require.Equal(t, []string{"new,missing", "old,new"}, outcomes(f, "/a", "/b"))
}

// A rename may be on the disk while what the file holds is not: an empty file.
func TestRenameBeforeSyncCanLeaveAnEmptyFile(t *testing.T) {
	f, _ := disk(t, "old")
	create(t, f, "/b", "new")
	require.NoError(t, f.Rename("/b", "/a"))
	require.NoError(t, f.SyncDir("/"))
	require.Equal(t, []string{"", "\x00\x00\x00", "new"}, outcomes(f, "/a"))
}

func TestWhatIsInADirectoryNeedsTheDirectory(t *testing.T) {
	f := faultfs.New()
	require.NoError(t, f.Mkdir("/d", 0o700))
	require.NoError(t, create(t, f, "/d/a", "1").Sync())
	require.NoError(t, f.SyncDir("/d"))
	require.Equal(t, []string{"1", "missing"}, outcomes(f, "/d/a"))
	require.NoError(t, f.SyncDir("/"))
	require.Equal(t, []string{"1"}, outcomes(f, "/d/a"))
}

func TestTruncationMayBeThereOrNot(t *testing.T) {
	f, a := disk(t, "0123")
	require.NoError(t, a.Truncate(2))
	require.Equal(t, []string{"01", "0123"}, outcomes(f, "/a"))
	require.NoError(t, a.Truncate(3))
	require.Equal(t, []string{"01", "01\x00", "012", "0123"}, outcomes(f, "/a"))
}

func TestWritesAreTorn(t *testing.T) {
	for _, test := range []struct{ tear, pieces int }{{faultfs.Piece, 9}, {faultfs.Page, 2}} {
		f, a := disk(t, strings.Repeat("o", 8192))
		f.Tear = int64(test.tear)
		write(t, a, strings.Repeat("n", 4100), 500) // 500 up to 4600
		require.Equal(t, test.pieces, f.Pending())
		for i, e := range f.Effects() {
			after := read(f.Crash(func(j int) bool { return i == j }), "/a")
			changed := strings.Trim(after, "o")
			require.Equal(t, strings.Repeat("n", int(e.Len)), changed, "one piece of %d", test.tear)
			require.Equal(t, e.Off, int64(strings.Index(after, "n")))
			last := e.Off + e.Len - 1
			require.Equal(t, e.Off/int64(test.tear), last/int64(test.tear), "a piece lies in one sector, or page")
			require.Len(t, after, 8192)
		}
	}
}

// What a crash makes of a write stays within the write.
func TestFates(t *testing.T) {
	for _, test := range []struct {
		fate faultfs.Fate
		want string
	}{
		{faultfs.Gone, "aabbbbcc"},
		{faultfs.Kept, "aaWXYZcc"},
		{faultfs.Fate{Bytes: 1}, "aaWbbbcc"},
		{faultfs.Fate{Bytes: 3}, "aaWXYbcc"},
		{faultfs.Fate{Rest: faultfs.Zeros}, "aa\x00\x00\x00\x00cc"},
		{faultfs.Fate{Bytes: 2, Rest: faultfs.Ones}, "aaWX\xff\xffcc"},
	} {
		f, a := disk(t, "aabbbbcc")
		write(t, a, "WXYZ", 2)
		after := f.CrashTo(func(int) faultfs.Fate { return test.fate })
		require.Equal(t, test.want, read(after, "/a"), "%v", test.fate)
		require.Zero(t, after.Pending())
		require.Equal(t, "aaWXYZcc", read(f, "/a"), "the other goes on")
	}
	f, a := disk(t, "aabbbbcc")
	write(t, a, "WXYZ", 2)
	noise := read(f.CrashTo(func(int) faultfs.Fate { return faultfs.Fate{Bytes: 1, Rest: faultfs.Noise} }), "/a")
	require.Regexp(t, `(?s)^aaW...cc$`, latin(noise))
	require.NotContains(t, []string{"aaWbbbcc", "aaWXYZcc"}, noise)
}

func latin(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// A file that grows may have any of the lengths in between.
func TestGrowthInPart(t *testing.T) {
	f, a := disk(t, "ab")
	write(t, a, "cdef", 2)
	grow := func(n int) string {
		return read(f.CrashTo(func(i int) faultfs.Fate { return faultfs.Fate{Bytes: n} }), "/a")
	}
	require.Equal(t, []string{"ab", "abc", "abcd", "abcde", "abcdef"}, []string{grow(0), grow(1), grow(2), grow(3), grow(4)})
	effects := f.Effects()
	require.Len(t, effects, 2)
	require.True(t, effects[0].Size)
	require.Equal(t, []int64{2, 4}, []int64{effects[0].Off, effects[0].Len})
}

// A crashed copy and what it was made from share nothing that either changes.
func TestCopiesAreApart(t *testing.T) {
	f, a := disk(t, "0123456789")
	write(t, a, "x", 3)
	copies := []*faultfs.FS{f.Clone(), f.Crash(func(int) bool { return false }), f.Clone()}
	before := copies[2].Digest("")
	require.Equal(t, before, copies[0].Digest(""))
	require.NotEqual(t, before, copies[1].Digest(""))
	for i, c := range copies[:2] {
		file, err := c.OpenFile("/a", os.O_RDWR, 0)
		require.NoError(t, err)
		write(t, file, fmt.Sprint(i), 0)
		require.NoError(t, file.Truncate(5))
		write(t, file, "y", 6)
		require.NoError(t, file.Sync())
	}
	write(t, a, "z", 9)
	require.NoError(t, a.Sync())
	require.Equal(t, []string{"012x45678z", "012x4\x00y", "11234\x00y", "012x456789"},
		[]string{read(f, "/a"), read(copies[0], "/a"), read(copies[1], "/a"), read(copies[2], "/a")})
	require.Equal(t, before, copies[2].Digest(""))
}

// Death of a process is no crash: nothing is lost yet, and nothing is safe that was
// not before.
func TestKillLeavesWhatIsPendingPending(t *testing.T) {
	f, a := disk(t, "old")
	require.NoError(t, a.Lock(true, false))
	write(t, a, "new", 0)
	create(t, f, "/b", "")
	require.NoError(t, f.Remove("/a"))
	after := f.Kill()
	require.Equal(t, "missing,", read(after, "/a")+","+read(after, "/b"))
	require.Equal(t, []string{"missing,", "missing,missing", "new,", "new,missing", "old,", "old,missing"}, outcomes(after, "/a", "/b"))
	require.Equal(t, outcomes(f, "/a", "/b"), outcomes(after, "/a", "/b"))

	require.NoError(t, after.SyncDir("/"))
	require.Equal(t, []string{"missing,"}, outcomes(after, "/a", "/b"))
	require.Len(t, outcomes(f, "/a", "/b"), 6, "the two are apart")
	write(t, a, "xyz", 0)
	require.Equal(t, []string{"missing", "new", "old", "xyz"}, outcomes(f, "/a"))
	require.Equal(t, []string{"missing"}, outcomes(after, "/a"))
}

func TestDigestSkipsWhatItIsTold(t *testing.T) {
	f, _ := disk(t, "1")
	with := f.Digest("b")
	create(t, f, "/b", "2")
	require.Equal(t, with, f.Digest("b"))
	require.NotEqual(t, with, f.Digest(""))
}

func TestLocksGoWithTheProcess(t *testing.T) {
	f, a := disk(t, "")
	require.NoError(t, a.Lock(true, false))
	again := func(f *faultfs.FS) error {
		file, err := f.OpenFile("/a", os.O_RDWR, 0)
		require.NoError(t, err)
		return file.Lock(true, false)
	}
	require.ErrorIs(t, again(f), replace.ErrLocked)
	require.NoError(t, again(f.Clone()))
}

// A failed sync behaves as one of four file systems do (CuttleFS); a second sync
// never repairs what the first has lost.
func TestFailedSync(t *testing.T) {
	for _, test := range []struct {
		failure     faultfs.SyncFailure
		first, next error    // of the sync that fails, and of one after the next write
		seen        string   // by processes, after the first
		before      []string // what a crash may leave after the first
		after       []string // and after both
	}{
		{faultfs.Ext4, syscall.EIO, nil, "newer", []string{"new", "new\x00\x00", "newer", "old", "old\x00\x00", "older"},
			[]string{"!ew", "!ew\x00\x00", "!ewer", "!ld", "!ld\x00\x00", "!lder"}},
		{faultfs.XFS, syscall.EIO, nil, "newer", []string{"new\x00\x00", "newer", "old\x00\x00", "older"},
			[]string{"!ew\x00\x00", "!ewer", "!ld\x00\x00", "!lder"}},
		{faultfs.Ext4Data, nil, syscall.EIO, "newer", []string{"new", "new\x00\x00", "newer", "old", "old\x00\x00", "older"},
			[]string{"!ew", "!ew\x00\x00", "!ewer", "!ld", "!ld\x00\x00", "!lder", "new", "new\x00\x00", "newer", "old", "old\x00\x00", "older"}},
		{faultfs.Btrfs, syscall.EIO, nil, "old", []string{"old"}, []string{"!ld"}},
	} {
		t.Run(fmt.Sprint(test.failure), func(t *testing.T) {
			f, a := disk(t, "old")
			f.Failure = test.failure
			write(t, a, "new", 0)
			write(t, a, "er", 3)
			p := faultfs.FailAt(1, syscall.EIO, 0, false)
			f.Inject(p.Fault)
			require.ErrorIs(t, a.Sync(), test.first)
			require.Equal(t, 1, p.Fired())
			require.Equal(t, test.seen, read(f, "/a"))
			require.Equal(t, test.before, outcomes(f, "/a"))
			if test.next == nil {
				require.NoError(t, a.Sync(), "once more: nothing is left to do, and nothing is repaired")
				require.Equal(t, test.before, outcomes(f, "/a"))
			}
			write(t, a, "!", 0)
			require.ErrorIs(t, a.Sync(), test.next)
			require.Equal(t, test.after, outcomes(f, "/a"))
			require.Equal(t, "!"+test.seen[1:], read(f, "/a"))
			require.NoError(t, a.Sync(), "the error is told once")
		})
	}
}

func TestFailedSyncOfADirectory(t *testing.T) {
	f, _ := disk(t, "1")
	require.NoError(t, f.Rename("/a", "/b"))
	f.Inject(faultfs.FailAt(1, syscall.EIO, 0, false).Fault)
	require.ErrorIs(t, f.SyncDir("/"), syscall.EIO)
	require.NoError(t, f.SyncDir("/"))
	require.Equal(t, []string{"1,missing", "missing,1"}, outcomes(f, "/a", "/b"))
}

// verbs are all operations, each of them on a file system with a file /a.
var verbs = map[faultfs.Kind]func(f *faultfs.FS, a replace.File) error{
	faultfs.Open:     func(f *faultfs.FS, a replace.File) error { _, err := f.OpenFile("/a", os.O_RDWR, 0); return err },
	faultfs.Read:     func(f *faultfs.FS, a replace.File) error { _, err := a.ReadAt(make([]byte, 3), 0); return err },
	faultfs.Write:    func(f *faultfs.FS, a replace.File) error { _, err := a.WriteAt([]byte("new"), 0); return err },
	faultfs.Truncate: func(f *faultfs.FS, a replace.File) error { return a.Truncate(1) },
	faultfs.Sync:     func(f *faultfs.FS, a replace.File) error { return a.Sync() },
	faultfs.SyncData: func(f *faultfs.FS, a replace.File) error { return a.SyncData() },
	faultfs.Stat:     func(f *faultfs.FS, a replace.File) error { _, err := a.Stat(); return err },
	faultfs.Close:    func(f *faultfs.FS, a replace.File) error { return a.Close() },
	faultfs.Lock:     func(f *faultfs.FS, a replace.File) error { return a.Lock(true, false) },
	faultfs.Rename:   func(f *faultfs.FS, a replace.File) error { return f.Rename("/a", "/b") },
	faultfs.Link:     func(f *faultfs.FS, a replace.File) error { return f.Link("/a", "/b") },
	faultfs.Symlink:  func(f *faultfs.FS, a replace.File) error { return f.Symlink("/a", "/b") },
	faultfs.Readlink: func(f *faultfs.FS, a replace.File) error { _, err := f.Readlink("/l"); return err },
	faultfs.Remove:   func(f *faultfs.FS, a replace.File) error { return f.Remove("/a") },
	faultfs.Mkdir:    func(f *faultfs.FS, a replace.File) error { return f.Mkdir("/d", 0o700) },
	faultfs.ReadDir:  func(f *faultfs.FS, a replace.File) error { _, err := f.ReadDir("/"); return err },
	faultfs.Lstat:    func(f *faultfs.FS, a replace.File) error { _, err := f.Lstat("/a"); return err },
	faultfs.SyncDir:  func(f *faultfs.FS, a replace.File) error { return f.SyncDir("/") },
}

func TestEveryOperationFailsWithEveryError(t *testing.T) {
	for kind, do := range verbs {
		for _, errno := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.EROFS, syscall.EINTR} {
			f, a := disk(t, "old")
			require.NoError(t, f.Symlink("/a", "/l"))
			before := f.Digest("")
			p := faultfs.FailAt(1, errno, 0, false, kind)
			f.Inject(p.Fault)
			err := do(f, a)
			require.ErrorIs(t, err, errno, "%v", kind)
			require.Equal(t, 1, p.Fired())
			require.Equal(t, kind, p.First().Kind)
			require.Equal(t, before, f.Digest(""), "%v has failed and changed something", kind)
			if kind != faultfs.Close { // which closes the file nevertheless
				require.NoError(t, do(f, a), "%v fails once", kind)
			}
			require.Equal(t, 1, p.Fired())
		}
	}
}

func TestFailAt(t *testing.T) {
	for _, forever := range []bool{false, true} {
		f, a := disk(t, "old")
		p := faultfs.FailAt(3, syscall.ENOSPC, 0, forever, faultfs.Write)
		f.Inject(p.Fault)
		var failed []int
		for i := range 5 {
			require.NoError(t, a.Sync()) // does not count
			if _, err := a.WriteAt([]byte("new"), 0); err != nil {
				require.ErrorIs(t, err, syscall.ENOSPC)
				failed = append(failed, i+1)
			}
		}
		want := []int{3}
		if forever {
			want = []int{3, 4, 5}
		}
		require.Equal(t, want, failed)
		require.Equal(t, len(want), p.Fired())
		f.Inject(nil)
		write(t, a, "new", 0)
	}
	p := faultfs.FailAt(9, syscall.EIO, 0, true)
	f, a := disk(t, "")
	f.Inject(p.Fault)
	require.NoError(t, a.Sync())
	require.Zero(t, p.Fired(), "a test that sees this has shown nothing")
	require.Zero(t, p.First().N)
}

func TestShortWritesAndReads(t *testing.T) {
	for n := range 3 {
		for err, want := range map[error]error{syscall.ENOSPC: syscall.ENOSPC, nil: io.ErrShortWrite} {
			f, a := disk(t, "old")
			f.Inject(faultfs.FailAt(1, err, n, false).Fault)
			done, got := a.WriteAt([]byte("new"), 0)
			require.Equal(t, n, done)
			require.ErrorIs(t, got, want)
			require.Equal(t, "new"[:n]+"old"[n:], read(f, "/a"))
		}
		f, a := disk(t, "old")
		f.Inject(faultfs.FailAt(1, nil, n, false).Fault)
		done, err := a.ReadAt(make([]byte, 3), 0)
		require.Equal(t, n, done)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.NotErrorIs(t, err, io.EOF, "only the end of the file is the end of the file")
	}
}

func TestJournal(t *testing.T) {
	f := faultfs.New()
	require.NoError(t, f.Mkdir("/d", 0o700))
	a := create(t, f, "/d/a", "1")
	require.NoError(t, a.Lock(true, false))
	require.NoError(t, a.SyncData())
	require.NoError(t, f.Rename("/d/a", "/d/b"))
	_, err := f.Lstat("/d/b") // changes nothing
	require.NoError(t, err)
	require.NoError(t, f.Link("/d/b", "/d/c"))
	require.NoError(t, a.Truncate(0))
	require.NoError(t, f.SyncDir("/d"))
	f.Inject(faultfs.FailAt(1, syscall.EIO, 0, false).Fault)
	require.ErrorIs(t, f.Remove("/d/c"), syscall.EIO)
	require.Equal(t, []string{
		"    1 mkdir /d",
		"    2 open /d/a",
		"    3 write /d/a, 1 bytes at 0",
		"    4 lock /d/a",
		"    5 syncdata /d/a",
		"    6 rename /d/a to /d/b",
		"    8 link /d/b to /d/c",
		"    9 truncate /d/a to 0",
		"   10 syncdir /d",
		"   11 remove /d/c: fails after 0 bytes: input/output error",
	}, f.Journal())
	for range 10_000 {
		require.NoError(t, a.Sync())
	}
	require.LessOrEqual(t, len(f.Journal()), 4096)
	require.Contains(t, f.Journal()[len(f.Journal())-1], "10011 sync /d/a")
}

// The hook comes before the operation, may look, and may be called by several at
// once; reading by ReadFile is no operation.
func TestHookComesBefore(t *testing.T) {
	f, a := disk(t, "old")
	var saw []string
	f.Hook(func(op faultfs.Op) { saw = append(saw, op.Kind.String()+" "+read(f.Clone(), "/a")) })
	write(t, a, "new", 0)
	require.NoError(t, a.Sync())
	require.Equal(t, []string{"write old", "sync new"}, saw)
	before := f.Ops()
	_, err := f.ReadFile("/missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, before, f.Ops())
}
