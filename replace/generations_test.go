package replace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func init() { children["abandon generation"] = abandonGeneration }

// abandonGeneration begins a generation and gets itself killed.
func abandonGeneration(args []string) error {
	g, err := OpenGenerations(args[0])
	if err != nil {
		return err
	}
	next, err := g.Begin(context.Background())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(next.Dir(), "half"), nil, 0o600); err != nil {
		return err
	}
	fmt.Println(next.Dir())
	select {}
}

func openGenerations(t *testing.T, dir string, opts ...Option) *Generations {
	t.Helper()
	g, err := OpenGenerations(dir, opts...)
	require.NoError(t, err)
	return g
}

// publish makes contents the contents of several files at once.
func publish(g *Generations, contents string) error {
	next, err := g.Begin(context.Background())
	if err != nil {
		return err
	}
	defer next.Discard()
	if err := os.Mkdir(filepath.Join(next.Dir(), "sub"), 0o700); err != nil {
		return err
	}
	for _, name := range parts {
		if err := os.WriteFile(filepath.Join(next.Dir(), name), []byte(contents), 0o400); err != nil {
			return err
		}
	}
	if err := os.Symlink("a", filepath.Join(next.Dir(), "link")); err != nil {
		return err
	}
	return next.Commit()
}

var parts = []string{"a", "b", filepath.Join("sub", "c")}

// collect reads all files of a generation, which must be the same.
func collect(dir string) (contents string, err error) {
	for i, name := range append(parts, "link") {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		if i > 0 && string(data) != contents {
			return "", fmt.Errorf("%s has %q, want %q", name, data, contents)
		}
		contents = string(data)
	}
	return contents, nil
}

func held(t *testing.T, g *Generations) *Held {
	t.Helper()
	h, err := g.Hold()
	require.NoError(t, err)
	return h
}

func current(t *testing.T, g *Generations) string {
	t.Helper()
	h := held(t, g)
	defer h.Close()
	contents, err := collect(h.Dir())
	require.NoError(t, err)
	viaLink, err := collect(filepath.Join(filepath.Dir(h.Dir()), "current"))
	require.NoError(t, err)
	assert.Equal(t, contents, viaLink)
	return contents
}

func TestGenerations(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "mirror")
	g := openGenerations(t, dir)
	_, err := g.Hold()
	assert.ErrorIs(t, err, fs.ErrNotExist)
	for i := range 4 {
		require.NoError(t, publish(g, fmt.Sprint(i)))
		assert.Equal(t, fmt.Sprint(i), current(t, g))
	}
	assert.Equal(t, []string{".lock", "3", "4", "current"}, ls(t, dir))
	target, err := os.Readlink(filepath.Join(dir, "current"))
	require.NoError(t, err)
	assert.Equal(t, "4", target)

	// Opened again, by another program with another idea of what to keep.
	g = openGenerations(t, dir, Keep(0))
	assert.Equal(t, "3", current(t, g))
	require.NoError(t, publish(g, "4"))
	assert.Equal(t, []string{".lock", "5", "current"}, ls(t, dir))
}

func TestGenerationTakesItsStepsInOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mirror")
	s := &steps{FS: OS}
	g := openGenerations(t, dir, On(s), Keep(0))
	require.NoError(t, publish(g, "old"))
	s.mu.taken = nil
	require.NoError(t, publish(g, "new"))
	assert.Equal(t, []string{
		"lock .lock", "syncdir mirror", "mkdir 2",
		"sync a", "close a", "sync b", "close b", "sync c", "close c", "syncdir sub", "syncdir 2",
		"create .hold", "close .hold", "syncdir 2", "syncdir mirror",
		"symlink temp", "rename current", "syncdir mirror",
		"lock .hold", "remove .hold", "close .hold", "syncdir 1",
		"remove a", "remove b", "remove link", "remove c", "remove sub", "remove 1",
		"close .lock",
	}, s.taken())
}

// Whichever step fails, a reader sees the old generation whole or the new one
// whole, and the next writer works.
func TestFailedGenerationLeavesTheOldOne(t *testing.T) {
	prepare := func(dir string) { require.NoError(t, publish(openGenerations(t, dir), "old")) }
	run := func(fsys FS, dir string) error {
		g, err := OpenGenerations(dir, On(fsys), Keep(0))
		if err != nil {
			return err
		}
		return publish(g, "new")
	}
	sweep(t, prepare, run, func(t *testing.T, dir string, err error, s *steps) {
		var syncErr *SyncError
		want := "old"
		if err == nil || errors.As(err, &syncErr) && syncErr.Unknown {
			want = "new"
		}
		if err == nil {
			assert.True(t, s.inOrder("rename current", "syncdir dir"), "error swallowed")
		}
		g := openGenerations(t, dir, Keep(0))
		assert.Equal(t, want, current(t, g))
		if !s.forever && !s.inOrder("rename current") {
			assert.LessOrEqual(t, len(ls(t, dir)), 3, "rubbish left: .lock, 1 and current are enough")
		}
		require.NoError(t, publish(g, "next"))
		assert.Equal(t, "next", current(t, g))
		assert.Len(t, ls(t, dir), 3)
	})
}

func TestGenerationOfAKilledWriterIsRemoved(t *testing.T) {
	dir := t.TempDir()
	g := openGenerations(t, dir)
	require.NoError(t, publish(g, "old"))
	writer := start(t, "abandon generation", dir)
	left := writer.line()
	assert.FileExists(t, filepath.Join(left, "half"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := g.Begin(ctx)
	assert.ErrorIs(t, err, context.Canceled)
	writer.kill()
	assert.Equal(t, "old", current(t, g))

	next, err := g.Begin(t.Context())
	require.NoError(t, err)
	assert.NoDirExists(t, left)
	assert.NotEqual(t, left, next.Dir(), "a number is not used again while it is there")
	assert.Empty(t, ls(t, next.Dir()))
	require.NoError(t, next.Discard())
	require.NoError(t, next.Discard())
	assert.ErrorIs(t, next.Commit(), fs.ErrClosed)
	assert.NoDirExists(t, next.Dir())
}

func TestHeldGenerationIsNotPruned(t *testing.T) {
	g := openGenerations(t, t.TempDir(), Keep(0))
	require.NoError(t, publish(g, "1"))
	first, second := held(t, g), held(t, g)
	require.NoError(t, publish(g, "2"))
	require.NoError(t, publish(g, "3"))
	assert.NoDirExists(t, filepath.Join(g.dir, "2"))
	require.NoError(t, first.Close())
	require.NoError(t, publish(g, "4"))
	contents, err := collect(second.Dir())
	require.NoError(t, err)
	assert.Equal(t, "1", contents)
	require.NoError(t, second.Close())
	require.NoError(t, publish(g, "5"))
	assert.Equal(t, []string{".lock", "5", "current"}, ls(t, g.dir))
}

// Readers that hold what they read never see two generations mixed, nor a file
// missing, whatever the writer does.
func TestGenerationsReadWhileWritten(t *testing.T) {
	g := openGenerations(t, t.TempDir(), Keep(0))
	require.NoError(t, publish(g, "0"))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for reads := 0; ; reads++ {
				h, err := g.Hold()
				if !assert.NoError(t, err) {
					return
				}
				_, err = collect(h.Dir())
				assert.NoError(t, err)
				assert.NoError(t, h.Close())
				select {
				case <-done:
					assert.NotZero(t, reads)
					return
				default:
				}
			}
		})
	}
	for i := range 50 {
		require.NoError(t, publish(g, fmt.Sprint(i)))
	}
	close(done)
	wg.Wait()
}

func TestGenerationsRefuseAForeignLink(t *testing.T) {
	for _, target := range []string{"../secret", "/etc", ".", "01", "1/..", "nowhere"} {
		g := openGenerations(t, t.TempDir())
		require.NoError(t, publish(g, "1"))
		require.NoError(t, os.Remove(filepath.Join(g.dir, "current")))
		require.NoError(t, os.Symlink(target, filepath.Join(g.dir, "current")))
		_, err := g.Hold()
		assert.ErrorContains(t, err, "no generation")
		_, err = g.Begin(t.Context())
		assert.Error(t, err)
		_, err = collect(filepath.Join(g.dir, "1"))
		assert.NoError(t, err)
	}
	// A link to a generation that is not there is damage, and no reason to wait.
	g := openGenerations(t, t.TempDir())
	require.NoError(t, os.Symlink("7", filepath.Join(g.dir, "current")))
	_, err := g.Hold()
	assert.ErrorIs(t, err, fs.ErrNotExist)
}
