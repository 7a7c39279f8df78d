//go:build unix

package replace

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// plants are what somebody may have put at a name that a pattern uses.
var plants = []struct {
	kind  string
	plant func(victim, path string) error
}{
	{"a link", os.Symlink},
	{"a dangling link", func(victim, path string) error { return os.Symlink(victim+".new", path) }},
	{"a link to a directory", func(victim, path string) error { return os.Symlink(filepath.Dir(victim), path) }},
}

// What a link leads to is neither written nor read by any pattern, at any name that
// others can know; a temporary name is random, and made exclusively.
func TestPatternsFollowNothingPlanted(t *testing.T) {
	for _, p := range plants {
		kind, plant := p.kind, p.plant
		for what, use := range map[string]func(dir string) error{
			"WriteFile": func(dir string) error { return WriteFile(filepath.Join(dir, "name"), []byte("new")) },
			"Update": func(dir string) error {
				return Update(filepath.Join(dir, "name"), func([]byte) ([]byte, error) { return []byte("new"), nil })
			},
			"Append":  func(dir string) error { return Append(filepath.Join(dir, "name"), []byte("{}")) },
			"TryLock": func(dir string) error { _, err := TryLock(filepath.Join(dir, "name"), Exclusive); return err },
			"LockedOpen, truncating": func(dir string) error {
				_, err := LockedOpen(t.Context(), filepath.Join(dir, "name"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, Exclusive)
				return err
			},
		} {
			dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
			require.NoError(t, os.WriteFile(victim, []byte("untouched"), 0o600))
			require.NoError(t, plant(victim, filepath.Join(dir, "name")))
			require.ErrorIs(t, use(dir), ErrNotRegular, "%s of %s", what, kind)
			assert.Equal(t, "untouched", read(t, victim))
			assert.NoFileExists(t, victim+".new")
			assert.Len(t, ls(t, dir), 1, "%s of %s", what, kind)
		}
	}
}

// A spool passes over links among its items, and Put never meets one.
func TestSpoolFollowsNothingPlanted(t *testing.T) {
	for _, p := range plants {
		kind, plant := p.kind, p.plant
		victim := filepath.Join(t.TempDir(), "victim")
		require.NoError(t, os.WriteFile(victim, []byte("untouched"), 0o600))
		s, err := OpenSpool(filepath.Join(t.TempDir(), "spool"))
		require.NoError(t, err)
		for _, name := range []string{"0000000000000000001-0123456789abcdef", "0000000000000000002-0123456789abcdef.tmp"} {
			require.NoError(t, plant(victim, filepath.Join(s.dir, name)))
		}
		put, err := s.Put([]byte("item"))
		require.NoError(t, err)
		item, err := s.Claim()
		require.NoError(t, err)
		assert.Equal(t, put, item.Name(), kind)
		require.NoError(t, item.Done())
		_, err = s.Claim()
		assert.ErrorIs(t, err, ErrEmpty, kind)
		require.NoError(t, s.RemoveAbandoned(0))
		assert.Equal(t, "untouched", read(t, victim), kind)
	}
}

// A generation is a directory: a link to another, with a .hold of its own, is not
// read, and not pruned through.
func TestGenerationsFollowNothingPlanted(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, holdName), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("untouched"), 0o600))
	g, err := OpenGenerations(filepath.Join(t.TempDir(), "mirror"))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(outside, g.path("7")))
	require.NoError(t, os.Symlink("7", g.path(currentName)))
	_, err = g.Hold()
	assert.Error(t, err)

	next, err := g.Begin(t.Context())
	require.NoError(t, err)
	assert.Equal(t, g.path("8"), next.Dir())
	require.NoError(t, os.Symlink(outside, filepath.Join(next.Dir(), "link")))
	require.NoError(t, next.Commit())
	for range 3 {
		next, err = g.Begin(t.Context())
		require.NoError(t, err)
		require.NoError(t, next.Commit())
	}
	assert.Equal(t, "untouched", read(t, filepath.Join(outside, "secret")))
	assert.FileExists(t, filepath.Join(outside, holdName))

	// And .lock is none either.
	require.NoError(t, os.Remove(g.path(lockName)))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), g.path(lockName)))
	_, err = g.Begin(t.Context())
	assert.ErrorIs(t, err, ErrNotRegular)
}

func TestExposedTellsWhoElseMayWrite(t *testing.T) {
	dir := t.TempDir()
	for mode, want := range map[fs.FileMode]bool{
		0o700: false, 0o755: false, 0o500: false, 0o775: true, 0o757: true, 0o720: true, 0o702: true, 0o777 | fs.ModeSticky: true,
	} {
		require.NoError(t, os.Chmod(dir, mode))
		info, err := os.Lstat(dir)
		require.NoError(t, err)
		why, fix := Exposed(info)
		assert.Equal(t, want, why != "", "%v: %s", mode, why)
		assert.Equal(t, want, fix == "chmod go-w", "%v: %s", mode, fix)
	}
	others := "/" // which belongs to root
	if os.Geteuid() == 0 {
		others = dir
		require.NoError(t, os.Chown(dir, 65534, -1))
	}
	info, err := os.Lstat(others)
	require.NoError(t, err)
	why, fix := Exposed(info)
	assert.Contains(t, why, "belongs to user")
	assert.Contains(t, fix, "chown")
}

func TestLinksCountsNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	for want := 1; want < 4; want++ {
		info, err := os.Lstat(path)
		require.NoError(t, err)
		assert.Equal(t, want, Links(info))
		require.NoError(t, os.Link(path, path+string(rune('0'+want))))
	}
}
