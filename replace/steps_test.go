package replace

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// steps is OS, but it notes every step and can fail the nth, or all from the nth on
// as for a process that was killed then.
type steps struct {
	FS
	failAt  int // counted from 1; 0 for never
	forever bool
	before  func(step string) // if set, called before each step

	mu struct {
		sync.Mutex
		taken []string
	}
}

// step notes a step on a file, as "verb name", and says whether it fails.
func (s *steps) step(verb, name string) error {
	base := filepath.Base(name)
	if IsTemp(base) || strings.HasSuffix(base, tempSuffix) {
		base = "temp"
	}
	step := verb + " " + base
	if s.before != nil {
		s.before(step)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.taken = append(s.mu.taken, step)
	n := len(s.mu.taken)
	if s.failAt != 0 && (n == s.failAt || s.forever && n > s.failAt) {
		errno := syscall.EIO
		if verb == "write" {
			errno = syscall.ENOSPC
		}
		return &fs.PathError{Op: verb, Path: name, Err: errno}
	}
	return nil
}

// taken returns the steps that change something or make it durable.
func (s *steps) taken() (changes []string) {
	for _, step := range s.mu.taken {
		switch verb, _, _ := strings.Cut(step, " "); verb {
		case "lstat", "stat", "read", "readdir", "readlink", "open":
		default:
			changes = append(changes, step)
		}
	}
	return changes
}

// failed returns the step that was made to fail, or "" if there were not as many.
func (s *steps) failed() string {
	if s.failAt == 0 || len(s.mu.taken) < s.failAt {
		return ""
	}
	return s.mu.taken[s.failAt-1]
}

func (s *steps) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	verb := "open"
	if flag&os.O_EXCL != 0 {
		verb = "create"
	}
	if err := s.step(verb, name); err != nil {
		return nil, err
	}
	f, err := s.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &stepsFile{f, s, name}, nil
}

func (s *steps) Rename(oldname, newname string) error {
	if err := s.step("rename", newname); err != nil {
		return err
	}
	return s.FS.Rename(oldname, newname)
}

func (s *steps) Link(oldname, newname string) error {
	if err := s.step("link", newname); err != nil {
		return err
	}
	return s.FS.Link(oldname, newname)
}

func (s *steps) Symlink(target, name string) error {
	if err := s.step("symlink", name); err != nil {
		return err
	}
	return s.FS.Symlink(target, name)
}

func (s *steps) Readlink(name string) (string, error) {
	if err := s.step("readlink", name); err != nil {
		return "", err
	}
	return s.FS.Readlink(name)
}

func (s *steps) Remove(name string) error {
	if err := s.step("remove", name); err != nil {
		return err
	}
	return s.FS.Remove(name)
}

func (s *steps) Mkdir(name string, perm fs.FileMode) error {
	if err := s.step("mkdir", name); err != nil {
		return err
	}
	return s.FS.Mkdir(name, perm)
}

func (s *steps) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := s.step("readdir", name); err != nil {
		return nil, err
	}
	return s.FS.ReadDir(name)
}

func (s *steps) Lstat(name string) (fs.FileInfo, error) {
	if err := s.step("lstat", name); err != nil {
		return nil, err
	}
	return s.FS.Lstat(name)
}

func (s *steps) SyncDir(name string) error {
	if err := s.step("syncdir", name); err != nil {
		return err
	}
	return s.FS.SyncDir(name)
}

type stepsFile struct {
	File
	steps *steps
	name  string
}

func (f *stepsFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.steps.step("read", f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

// WriteAt that fails has written half: the disk is full.
func (f *stepsFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.steps.step("write", f.name); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f *stepsFile) Stat() (fs.FileInfo, error) {
	if err := f.steps.step("stat", f.name); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *stepsFile) Truncate(size int64) error {
	if err := f.steps.step("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *stepsFile) Sync() error {
	if err := f.steps.step("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *stepsFile) SyncData() error {
	if err := f.steps.step("syncdata", f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

// StartWriteback makes it a Hastener, also where the real one is none.
func (f *stepsFile) StartWriteback(off, n int64) error {
	if err := f.steps.step("hasten", f.name); err != nil {
		return err
	}
	if h, ok := f.File.(Hastener); ok {
		return h.StartWriteback(off, n)
	}
	return nil
}

// Close closes the file even if it fails, as the real one does.
func (f *stepsFile) Close() error {
	err := f.steps.step("close", f.name)
	if cerr := f.File.Close(); cerr != nil {
		return cerr
	}
	return err
}

func (f *stepsFile) Lock(exclusive, wait bool) error {
	if err := f.steps.step("lock", f.name); err != nil {
		return err
	}
	return f.File.Lock(exclusive, wait)
}

// sweep calls run again and again, each time in a new directory that prepare has
// filled, and each time fails one step later, until there is none left to fail.
// All this twice: the step fails once, and it and all after it fail. check is told
// what the run returned, and the failed step.
func sweep(t *testing.T, prepare func(dir string), run func(fsys FS, dir string) error, check func(t *testing.T, dir string, err error, failed *steps)) {
	for _, forever := range []bool{false, true} {
		for n := 1; ; n++ {
			dir := filepath.Join(t.TempDir(), "dir")
			require.NoError(t, os.Mkdir(dir, 0o700))
			if prepare != nil {
				prepare(dir)
			}
			s := &steps{FS: OS, failAt: n, forever: forever}
			err := run(s, dir)
			if s.failed() == "" {
				require.NoError(t, err)
				require.Greater(t, n, 3, "steps")
				break
			}
			name := fmt.Sprintf("%d %s, forever: %v", n, s.failed(), forever)
			if !t.Run(name, func(t *testing.T) { check(t, dir, err, s) }) {
				t.Logf("steps: %s", strings.Join(s.mu.taken, ", "))
			}
		}
	}
}

// inOrder reports whether all these steps were taken, in this order.
func (s *steps) inOrder(want ...string) bool {
	taken := s.mu.taken
	for _, step := range want {
		i := slices.Index(taken, step)
		if i < 0 {
			return false
		}
		taken = taken[i+1:]
	}
	return true
}
