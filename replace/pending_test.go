package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWriteFileTakesItsStepsInOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	s := &steps{FS: OS}
	require.NoError(t, WriteFile(filepath.Join(dir, "file"), []byte("new"), On(s)))
	assert.Equal(t, []string{
		"create temp",
		"write temp",
		"sync temp",
		"close temp",
		"rename file",
		"syncdir dir",
	}, s.taken())
	assert.Equal(t, "new", read(t, filepath.Join(dir, "file")))
}

// replacing are the ways to replace a file, each making "new" of what is there.
var replacing = map[string]func(path string, opts ...Option) error{
	"WriteFile": func(path string, opts ...Option) error {
		return WriteFile(path, []byte("new"), opts...)
	},
	"Pending": func(path string, opts ...Option) error {
		p, err := Begin(path, opts...)
		if err != nil {
			return err
		}
		// Commit has to notice a write that failed, and to clean up by itself.
		for _, part := range []string{"n", "e", "w"} {
			_, _ = p.Write([]byte(part))
		}
		return p.Commit()
	},
	"Update": func(path string, opts ...Option) error {
		return Update(path, func([]byte) ([]byte, error) { return []byte("new"), nil }, opts...)
	},
}

// Whichever step fails, the file is the old one unless the error says otherwise.
func TestFailedReplaceLeavesTheOldFile(t *testing.T) {
	const name = "file"
	for verb, replace := range replacing {
		for _, old := range []string{"old", ""} { // "" for none
			t.Run(verb+" of "+old, func(t *testing.T) {
				prepare := func(dir string) {
					if old != "" {
						require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(old), 0o640))
					}
				}
				run := func(fsys FS, dir string) error {
					return replace(filepath.Join(dir, name), On(fsys))
				}
				sweep(t, prepare, run, func(t *testing.T, dir string, err error, s *steps) {
					checkReplaced(t, filepath.Join(dir, name), old, err, s)
				})
			})
		}
	}
}

func checkReplaced(t *testing.T, path, old string, err error, s *steps) {
	var (
		syncErr  *SyncError
		data, _  = os.ReadFile(path)
		leftover = s.forever || s.failed() == "remove temp"
	)
	switch {
	case err == nil:
		// All was done by then: what failed is to tidy up, or to close what was only locked.
		assert.True(t, s.failed() == "remove temp" || s.failAt > slices.Index(s.mu.taken, "syncdir dir")+1, "error swallowed")
		assert.Equal(t, "new", string(data))
	case errors.As(err, &syncErr) && syncErr.Unknown:
		assert.True(t, s.failed() == "syncdir dir" || s.forever && s.failed() == "remove temp")
		assert.Equal(t, filepath.Dir(path), syncErr.Path)
		assert.Equal(t, "new", string(data))
	default:
		assert.Equal(t, old, string(data))
		assert.Equal(t, s.failed() == "sync temp" || s.failed() == "close temp", syncErr != nil)
		if old == "" {
			assert.NoFileExists(t, path)
		}
	}
	if s.failed() == "write temp" {
		assert.ErrorIs(t, err, syscall.ENOSPC)
	}
	for _, temp := range temps(t, filepath.Dir(path)) {
		assert.True(t, leftover, "temporary file left: %s", temp)
		assert.True(t, IsTempOf(temp, filepath.Base(path)))
	}
}

// The disk begins with much at once; that it can't is the end of it, as a sync that
// fails is.
func TestFailedBeginningOfMuchLeavesTheOldFile(t *testing.T) {
	much := make([]byte, hastenBytes)
	prepare := func(dir string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("old"), 0o640))
	}
	run := func(fsys FS, dir string) error {
		p, err := Begin(filepath.Join(dir, "file"), On(fsys))
		if err != nil {
			return err
		}
		_, _ = p.WriteAt(much, 0)
		_, _ = p.Write([]byte("new"))
		return p.Commit()
	}
	s := &steps{FS: OS}
	dir := t.TempDir()
	require.NoError(t, run(s, dir))
	assert.Equal(t, []string{"create temp", "write temp", "hasten temp", "write temp", "sync temp", "close temp", "rename file", "syncdir " + filepath.Base(dir)}, s.taken())
	sweep(t, prepare, run, func(t *testing.T, dir string, err error, s *steps) {
		if s.failed() != "hasten temp" {
			return // TestFailedReplaceLeavesTheOldFile is about the others
		}
		assert.ErrorIs(t, err, syscall.EIO)
		assert.Equal(t, "old", read(t, filepath.Join(dir, "file")))
		assert.Equal(t, s.forever, len(temps(t, dir)) > 0)
	})
}

func TestReplaceKeepsPermissions(t *testing.T) {
	for verb, replace := range replacing {
		t.Run(verb, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			for _, c := range []struct {
				existing fs.FileMode // 0 for no file
				opts     []Option
				want     fs.FileMode
			}{
				{0, nil, 0o600},
				{0, []Option{Perm(0o644)}, 0o644},
				{0o640, nil, 0o640},
				{0o666, []Option{Perm(0o600)}, 0o666},
				{0o666, []Option{PermAlways(0o600)}, 0o600},
				{0o400, []Option{PermAlways(0o640)}, 0o640},
				{0, []Option{PermAlways(0o640)}, 0o640},
				{0o400, nil, 0o400},
			} {
				os.Remove(path)
				if c.existing != 0 {
					require.NoError(t, os.WriteFile(path, nil, 0o600))
					require.NoError(t, os.Chmod(path, c.existing))
				}
				require.NoError(t, replace(path, c.opts...))
				info, err := os.Lstat(path)
				require.NoError(t, err)
				assert.Equal(t, c.want, info.Mode())
				assert.Equal(t, "new", read(t, path))
			}
		})
	}
}

func TestReplaceRefusesWhatIsNoFile(t *testing.T) {
	for verb, replace := range replacing {
		t.Run(verb, func(t *testing.T) {
			dir := t.TempDir()
			victim := filepath.Join(dir, "victim")
			require.NoError(t, os.WriteFile(victim, []byte("untouched"), 0o600))
			require.NoError(t, os.Symlink("victim", filepath.Join(dir, "link")))
			require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "dir"), 0o700))
			before := ls(t, dir)
			for _, name := range []string{"link", "dangling", "dir", "."} {
				assert.ErrorIs(t, replace(filepath.Join(dir, name)), ErrNotRegular, name)
			}
			assert.Equal(t, before, ls(t, dir))
			assert.Equal(t, "untouched", read(t, victim))
			target, err := os.Readlink(filepath.Join(dir, "link"))
			require.NoError(t, err)
			assert.Equal(t, "victim", target)

			assert.ErrorIs(t, replace(filepath.Join(dir, "no", "dir")), fs.ErrNotExist)
			assert.ErrorIs(t, replace(filepath.Join(victim, "file")), syscall.ENOTDIR)
		})
	}
}

// A directory on the way may well be a link.
func TestReplaceThroughALinkedDirectory(t *testing.T) {
	for verb, replace := range replacing {
		t.Run(verb, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
			require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
			require.NoError(t, replace(filepath.Join(dir, "link", "file")))
			assert.Equal(t, "new", read(t, filepath.Join(dir, "real", "file")))
		})
	}
}

func TestReaderOfTheOldFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, WriteFile(path, []byte("old")))
	f, err := OS.OpenFile(path, os.O_RDONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, WriteFile(path, []byte("new")))
	data, err := readAll(f)
	require.NoError(t, err)
	assert.Equal(t, "old", string(data))
}

func TestPendingEndsOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	committed, err := Begin(path)
	require.NoError(t, err)
	discarded, err := Begin(path)
	require.NoError(t, err)
	_, err = committed.Write([]byte("new"))
	require.NoError(t, err)
	_, err = discarded.Write([]byte("other"))
	require.NoError(t, err)
	assert.Len(t, ls(t, dir), 2)
	assert.NoFileExists(t, path)

	require.NoError(t, committed.Commit())
	require.NoError(t, committed.Discard())
	require.NoError(t, discarded.Discard())
	require.NoError(t, discarded.Discard())
	for _, p := range []*Pending{committed, discarded} {
		assert.ErrorIs(t, p.Commit(), fs.ErrClosed)
		_, err := p.Write(nil)
		assert.ErrorIs(t, err, fs.ErrClosed)
	}
	assert.Equal(t, []string{"file"}, ls(t, dir))
	assert.Equal(t, "new", read(t, path))
}

func TestTempNames(t *testing.T) {
	for _, name := range []string{"MANIFEST", "a", ".hidden", "a.b", "a.0123456789abcdef", ".a.0123456789abcdef.tmp"} {
		temp := tempName(name)
		assert.True(t, IsTemp(temp), temp)
		assert.True(t, IsTempOf(temp, name), temp)
		assert.False(t, IsTempOf(temp, name+"x"), temp)
		assert.False(t, IsTempOf(temp, name[1:]), temp)
		assert.NotEqual(t, temp, tempName(name))
	}
	for _, name := range []string{
		"", ".", ".tmp", "MANIFEST", "MANIFEST.tmp", ".MANIFEST.tmp", "..0123456789abcdef.tmp", ".0123456789abcdef.tmp",
		"MANIFEST.0123456789abcdef.tmp", ".MANIFEST.0123456789abcdef", ".MANIFEST.0123456789ABCDEF.tmp",
		".MANIFEST.0123456789abcde.tmp", ".MANIFEST.0123456789abcdefg.tmp", ".MANIFESTx0123456789abcdef.tmp",
	} {
		assert.False(t, IsTemp(name), name)
		assert.False(t, IsTempOf(name, "MANIFEST"), name)
	}
	assert.False(t, IsTempOf(tempName(""), ""))
}
