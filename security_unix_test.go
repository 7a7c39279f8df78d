//go:build unix

package annals

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// umask sets the mask of the process until the test ends. No test of this package
// runs beside another.
func umask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

// private makes sure that dir and all that is in it is its owner's only.
func private(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		require.NoError(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		require.Equal(t, want, info.Mode().Perm(), "permissions of %s", path)
		return nil
	}))
}

// S1: whatever the umask, all that the store, recovery, quarantine, compaction,
// Backup and Repair make is its owner's only, and so is what replaces a file that
// was not.
func TestSecurityFilesAreTheirOwnersOnly(t *testing.T) {
	source := open(t, nil)
	put(t, source, "k", "v")
	for _, mask := range []int{0, 0o022, 0o777} {
		// What a kill leaves, with a torn end, and MANIFEST open to all by mistake.
		unclean := killed(t, source)
		edit(t, segmentsIn(t, unclean)[0], func(text []byte) []byte { return append(text, "torn"...) })
		for _, path := range append(segmentsIn(t, unclean), filepath.Join(unclean, lockName)) {
			require.NoError(t, os.Chmod(path, 0o600))
		}
		require.NoError(t, os.Chmod(filepath.Join(unclean, manifestName), 0o666))
		root := t.TempDir()
		umask(t, mask)
		dir := filepath.Join(root, "a", "store")
		fsys := newHookFS()
		db := openDamaged(t, dir, &Options{FS: fsys, SegmentSize: minSegment, Compaction: Compaction{Off: true}})
		fill := func() {
			for range 100 {
				put(t, db, "k", strings.Repeat("v", 100))
				_, err := db.Append("s", []byte("1"))
				require.NoError(t, err)
			}
		}
		fill()
		_, err := db.Compact(t.Context(), nil)
		require.NoError(t, err)
		fill()
		require.NoError(t, db.Backup(t.Context(), filepath.Join(root, "a", "linked")))
		set(&fsys.onLink, func(string) error { return syscall.EXDEV })
		require.NoError(t, db.Backup(t.Context(), filepath.Join(root, "a", "copied")))

		recovered := openDamaged(t, unclean, nil)
		require.Len(t, recovered.Recovery().Quarantined, 1)
		put(t, recovered, "k", "v")
		require.NoError(t, recovered.Close())
		private(t, unclean)

		require.NoError(t, db.Close())
		_, err = Repair(t.Context(), dir, filepath.Join(root, "a", "repaired"), nil)
		require.NoError(t, err)
		private(t, filepath.Join(root, "a"))
		syscall.Umask(0o022)
	}
}

// S1: a directory in which others may plant or swap files is refused for writing,
// before anything is made in it, with the command that ends it. Reading is not
// refused, and an option allows writing.
func TestSecuritySharedDirectoriesAreRefused(t *testing.T) {
	closed := open(t, nil)
	put(t, closed, "k", "v")
	require.NoError(t, closed.Close())
	for mode, shared := range map[fs.FileMode]bool{
		0o700: false, 0o750: false, 0o755: false, 0o711: false,
		0o770: true, 0o707: true, 0o720: true, 0o702: true, 0o777: true, 0o777 | fs.ModeSticky: true,
	} {
		stores := map[string]string{"a store": copyDir(t, closed.dir), "an empty directory": t.TempDir()}
		stores["a link to a store"] = filepath.Join(t.TempDir(), "link")
		require.NoError(t, os.Symlink(stores["a store"], stores["a link to a store"]))
		require.NoError(t, os.Chmod(stores["a store"], mode))
		require.NoError(t, os.Chmod(stores["an empty directory"], mode))
		for name, dir := range stores {
			real, err := filepath.EvalSymlinks(dir)
			require.NoError(t, err)
			before := tree(t, real)
			db, err := Open(dir, nil)
			if !shared {
				require.NoError(t, err, "%s with mode %v", name, mode)
				require.NoError(t, db.Close())
				continue
			}
			require.ErrorIs(t, err, ErrSharedDir, "%s with mode %v", name, mode)
			require.ErrorContains(t, err, `chmod go-w "`+dir+`"`)
			require.ErrorContains(t, err, mode.String()[1:])
			sameTree(t, before, tree(t, real))
			require.Equal(t, name != "an empty directory", exists(filepath.Join(dir, lockName)))

			db, err = Open(dir, &Options{AllowSharedDir: true})
			require.NoError(t, err)
			require.NoError(t, db.Close())
			r, err := OpenReader(dir, nil)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			verifyClean(t, dir)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// S1: a directory of another user is refused too, by root as well.
func TestSecurityAnotherUsersDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	if os.Geteuid() != 0 {
		// Only root can give a directory away; the root directory is somebody else's.
		info, err := os.Lstat("/")
		require.NoError(t, err)
		why, fix := replace.Exposed(info)
		require.Contains(t, why, "belongs to user 0")
		require.NotEmpty(t, fix)
		return
	}
	require.NoError(t, os.Chown(dir, 65534, 65534))
	_, err := Open(dir, nil)
	require.ErrorIs(t, err, ErrSharedDir)
	require.ErrorContains(t, err, `belongs to user 65534, and this is user 0; chown 0 "`+dir+`"`)
	require.NoFileExists(t, filepath.Join(dir, lockName))
	db, err := Open(dir, &Options{AllowSharedDir: true})
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// plants are what somebody may have put at a name that the store uses.
var plants = map[string]func(victim, outside, path string) error{
	"a link to a file":        func(victim, _, path string) error { return os.Symlink(victim, path) },
	"a link to a directory":   func(_, outside, path string) error { return os.Symlink(outside, path) },
	"a link to nothing":       func(_, outside, path string) error { return os.Symlink(filepath.Join(outside, "new"), path) },
	"a named pipe":            func(_, _, path string) error { return syscall.Mkfifo(path, 0o600) },
	"a directory":             func(_, _, path string) error { return os.Mkdir(path, 0o700) },
	"a second name of a file": func(victim, _, path string) error { return os.Link(victim, path) },
	"a file of somebody else": func(_, _, path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
}

// S2: nothing that is planted at any name that the store uses is read as data,
// written through or followed, by a store that was closed, was killed or is new, and
// nothing waits for ever for the other end of a pipe.
func TestSecurityNothingPlantedIsFollowed(t *testing.T) {
	const victimText = `{"annals":1,"a":"file of somebody else"}`
	source := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	for range 60 {
		put(t, source, "k", strings.Repeat("v", 100))
	}
	unclean := killed(t, source)
	edit(t, segmentsIn(t, unclean)[len(segmentsIn(t, unclean))-1], func(text []byte) []byte { return append(text, "torn"...) })
	require.NoError(t, source.Close())
	next := segment.Name(source.manifest.next.Load())
	names := []string{
		lockName, manifestName, indexName, quarantineName, segment.Name(1), next, segment.Name(segment.MaxSeq - 1),
		tempOf(t, manifestName), tempOf(t, indexName),
	}
	for state, dir := range map[string]string{"closed": source.dir, "killed": unclean, "new": ""} {
		for _, name := range names {
			for kind, plant := range plants {
				if kind == "a directory" && name == quarantineName {
					continue // which is what belongs there
				}
				store, outside := filepath.Join(t.TempDir(), "store"), t.TempDir()
				require.NoError(t, os.Mkdir(store, 0o700))
				if dir != "" {
					store = copyDir(t, dir)
				}
				victim := filepath.Join(outside, "victim")
				require.NoError(t, os.WriteFile(victim, []byte(victimText), 0o600))
				path := filepath.Join(store, name)
				require.NoError(t, os.RemoveAll(path))
				require.NoError(t, plant(victim, outside, path))

				what := state + ", " + name + " is " + kind
				var err error
				within(t, what, func() { err = openAndUse(t, store) })
				text, readErr := os.ReadFile(victim)
				require.NoError(t, readErr)
				require.Equal(t, victimText, string(text), what)
				left, readErr := os.ReadDir(outside)
				require.NoError(t, readErr)
				require.Len(t, left, 1, what)
				info, statErr := os.Stat(victim)
				require.NoError(t, statErr)
				require.Equal(t, fs.FileMode(0o600), info.Mode(), what)
				planted := mustBeRefused(name, kind)
				if planted {
					require.Error(t, err, what)
					require.Contains(t, err.Error(), `"`+path+`"`, what)
				}
			}
		}
	}
}

// mustBeRefused tells whether the store can't be opened with that under a name of
// its own. A regular file is judged by what is in it; as a leftover it is removed.
func mustBeRefused(name, kind string) bool {
	regular := strings.HasPrefix(kind, "a second name") || strings.HasPrefix(kind, "a file of")
	return !regular || name == quarantineName || name == lockName && strings.HasPrefix(kind, "a second name")
}

// openAndUse opens a store, writes to it and reads it in all ways, and returns the
// error of Open. Nothing of a victim's text may come out of it.
func openAndUse(t *testing.T, dir string) error {
	_, _ = Verify(t.Context(), dir, nil)
	if r, err := OpenReader(dir, nil); err == nil {
		require.NoError(t, r.Close())
	}
	db, err := Open(dir, &Options{SegmentSize: minSegment})
	if err != nil {
		return err
	}
	for range 60 {
		if db.Put("k", make([]byte, 100)) != nil {
			break
		}
	}
	db.Close()
	return nil
}

// S2: a name that is planted while the store is open, where the next segment will
// be, ends writing; what it leads to is left alone, and so is the name.
func TestSecurityNothingPlantedLaterIsFollowed(t *testing.T) {
	for kind, plant := range plants {
		dir, outside := filepath.Join(t.TempDir(), "store"), t.TempDir()
		db := openDamaged(t, dir, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
		put(t, db, "k", "v")
		victim := filepath.Join(outside, "victim")
		require.NoError(t, os.WriteFile(victim, []byte("untouched"), 0o600))
		path := filepath.Join(dir, segment.Name(db.manifest.next.Load()))
		require.NoError(t, plant(victim, outside, path))
		var err error
		for i := 0; err == nil && i < 100; i++ {
			err = db.Put("other", make([]byte, 100))
		}
		require.ErrorIs(t, err, ErrFailed, kind)
		require.ErrorIs(t, err, fs.ErrExist, kind)
		present(t, db, "k", "v")
		require.True(t, exists(path), kind)
		text, err := os.ReadFile(victim)
		require.NoError(t, err)
		require.Equal(t, "untouched", string(text), kind)
		require.False(t, exists(filepath.Join(outside, "new")), kind)
	}
}

// S2: nor is a link that takes a file's place between the look at the directory and
// the opening of the file.
func TestSecurityNothingPlantedAtTheLastMomentIsFollowed(t *testing.T) {
	source := open(t, nil)
	put(t, source, "k", "v")
	require.NoError(t, source.Close())
	for _, name := range []string{manifestName, segment.Name(1), lockName} {
		dir, elsewhere := copyDir(t, source.dir), copyDir(t, source.dir)
		path, victim := filepath.Join(dir, name), filepath.Join(elsewhere, name)
		swap := func(opened string) error {
			if opened != path {
				return nil
			}
			require.NoError(t, os.Remove(path))
			return os.Symlink(victim, path)
		}
		fsys := newHookFS()
		fsys.onOpen.Store(&swap)
		before := tree(t, elsewhere)
		lock, err := os.ReadFile(filepath.Join(elsewhere, lockName))
		require.NoError(t, err)
		within(t, name, func() { _, err = Open(dir, &Options{FS: fsys}) })
		require.ErrorIs(t, err, replace.ErrNotRegular, name)
		sameTree(t, before, tree(t, elsewhere))
		now, err := os.ReadFile(filepath.Join(elsewhere, lockName))
		require.NoError(t, err)
		require.Equal(t, lock, now)
	}
}

// S2: nor is what is planted where recovery keeps a tail, or where a backup goes.
func TestSecurityNothingPlantedInOtherDirectoriesIsFollowed(t *testing.T) {
	source := open(t, nil)
	put(t, source, "k", "v")
	unclean := killed(t, source)
	last := segmentsIn(t, unclean)[0]
	info, err := os.Stat(last)
	require.NoError(t, err)
	edit(t, last, func(text []byte) []byte { return append([]byte(strings.TrimRight(string(text), "\n")), "\ntorn"...) })
	report := verifyClean(t, unclean)
	require.NotNil(t, report.Tail)
	for kind, plant := range plants {
		dir, outside := copyDir(t, unclean), t.TempDir()
		victim := filepath.Join(outside, "victim")
		require.NoError(t, os.WriteFile(victim, []byte("untouched"), 0o600))
		require.NoError(t, os.Mkdir(filepath.Join(dir, quarantineName), 0o700))
		require.NoError(t, plant(victim, outside, filepath.Join(dir, quarantineName, tailName(1, report.Tail.Offset))))
		// A number to use up all that are left, in the name of a file.
		require.NoError(t, plant(victim, outside, filepath.Join(dir, quarantineName, tailName(segment.MaxSeq, 0))))
		require.NoError(t, plant(victim, outside, filepath.Join(dir, quarantineName, "9007199254740990-mine")))
		within(t, kind, func() {
			if err := openAndUse(t, dir); err != nil {
				require.ErrorIs(t, err, replace.ErrNotRegular, kind)
			} else {
				require.Less(t, readManifestOf(t, dir).Next, uint64(1000), kind)
			}
		})

		backup := filepath.Join(outside, "backup")
		require.NoError(t, os.Mkdir(backup, 0o700))
		fsys := newHookFS()
		fsys.FS = plantBefore{replace.OS, func(path string) error { return plant(victim, outside, path) }}
		db := openDamaged(t, copyDir(t, unclean), &Options{FS: fsys})
		require.ErrorIs(t, db.Backup(t.Context(), backup), fs.ErrExist, kind)
		left, err := os.ReadDir(backup)
		require.NoError(t, err)
		require.Len(t, left, 1, "%s: what is not the backup's own is left where it is", kind)

		text, err := os.ReadFile(victim)
		require.NoError(t, err)
		require.Equal(t, "untouched", string(text), kind)
		require.False(t, exists(filepath.Join(outside, "new")), kind)
		again, err := os.Stat(last)
		require.NoError(t, err)
		require.Equal(t, info.Mode(), again.Mode())
	}
}

// plantBefore plants something at a name just before a link is made there, as
// another process may.
type plantBefore struct {
	replace.FS
	plant func(path string) error
}

func (p plantBefore) Link(oldname, newname string) error {
	if err := p.plant(newname); err != nil {
		return err
	}
	return p.FS.Link(oldname, newname)
}

func readManifestOf(t *testing.T, dir string) segment.Manifest {
	t.Helper()
	m, err := readManifest(replace.OS, dir)
	require.NoError(t, err)
	return m
}

// S3: taking the lock changes nothing in a file that LOCK leads to, and a process
// that does not get the lock changes nothing in LOCK.
func TestSecurityLockChangesNoOtherFile(t *testing.T) {
	for _, link := range []func(string, string) error{os.Symlink, os.Link} {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o700))
		victim := filepath.Join(t.TempDir(), "victim")
		require.NoError(t, os.WriteFile(victim, []byte(strings.Repeat("precious ", 1000)), 0o600))
		require.NoError(t, link(victim, filepath.Join(dir, lockName)))
		_, err := Open(dir, nil)
		require.Error(t, err)
		require.ErrorContains(t, err, `"`+filepath.Join(dir, lockName)+`"`)
		text, err := os.ReadFile(victim)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat("precious ", 1000), string(text))
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, left, 1, "nothing is made beside a LOCK that is refused")
	}

	db := open(t, nil)
	put(t, db, "k", "v")
	lock := filepath.Join(db.dir, lockName)
	edit(t, lock, func(text []byte) []byte { return append(text, strings.Repeat("more", 100)...) })
	edit(t, lock, func(text []byte) []byte { copy(text, "\x1b[31mboo\n"); return text })
	before, err := os.ReadFile(lock)
	require.NoError(t, err)
	_, err = Open(db.dir, nil)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, "process unknown", "what others wrote into LOCK is not repeated")
	after, err := os.ReadFile(lock)
	require.NoError(t, err)
	require.Equal(t, before, after)

	require.NoError(t, db.Close())
	_, err = OpenReader(db.dir, nil)
	require.NoError(t, err)
	openAt(t, db.dir, nil)
	now, err := os.ReadFile(lock)
	require.NoError(t, err)
	require.Equal(t, string(before[lockSize:]), string(now[lockSize:]), "LOCK is not truncated")
}

// allowedNames are all that a store ever makes in its directory.
var allowedNames = regexp.MustCompile(`^(LOCK|MANIFEST|[0-9]{20}\.log|quarantine)$`)

// S4: no key or series is ever part of a file's name.
func TestSecurityKeysAreNeverFileNames(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "in", "store")
	db := openAt(t, dir, &Options{SegmentSize: minSegment})
	names := []string{"../../escaped", "/etc/passwd", "..", ".", "", "CON", "NUL.log", "a/b", `a\b`, "a\x00b", "LOCK", "MANIFEST",
		segment.Name(1), "../" + segment.Name(9), "quarantine/x", strings.Repeat("n", 255), "\xff\xfe", "~", "$HOME", "%2e%2e%2f", "C:\\x", "a:b"}
	rng := seed.Rand(t)
	for range 300 {
		name := names[rng.IntN(len(names))] + names[rng.IntN(len(names))]
		put(t, db, name, "value")
		if rng.IntN(3) == 0 {
			del(t, db, name)
		}
		if _, err := db.Append(strings.ToValidUTF8(name[:min(len(name), 255)], "?"), []byte("1")); err != nil {
			require.ErrorIs(t, err, ErrTooLarge, "%q", name)
		}
	}
	_, err := db.Compact(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, db.Backup(t.Context(), filepath.Join(root, "in", "backup")))
	require.NoError(t, db.Close())
	_, err = Repair(t.Context(), dir, filepath.Join(root, "in", "repaired"), nil)
	require.NoError(t, err)

	var made []string
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(filepath.Join(root, "in"), path); !slices.Contains([]string{"..", ".", "store", "backup", "repaired"}, rel) {
			require.Regexp(t, allowedNames, d.Name())
			require.Equal(t, 1, strings.Count(rel, "/"), rel)
			made = append(made, rel)
		}
		return err
	}))
	require.Greater(t, len(made), 6)
}
