package replace

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// children are what this test binary does when a test runs it as a process of its
// own, named by the environment variable.
var children = map[string]func(args []string) error{}

const childVariable = "REPLACE_TEST_CHILD"

func TestMain(m *testing.M) {
	name := os.Getenv(childVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := children[name](os.Args[1:]); err != nil {
		io.WriteString(os.Stderr, err.Error()+"\n")
		os.Exit(1)
	}
}

// child is a running process that can be talked to.
type child struct {
	*exec.Cmd
	t     *testing.T
	lines *bufio.Scanner
}

func start(t *testing.T, name string, args ...string) *child {
	t.Helper()
	return startWithInput(t, nil, name, args...)
}

func startWithInput(t *testing.T, input *os.File, name string, args ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.Stderr = os.Stderr
	if input != nil {
		cmd.Stdin = input
	}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	return &child{Cmd: cmd, t: t, lines: bufio.NewScanner(out)}
}

// line waits for a line that the child prints.
func (c *child) line() string {
	c.t.Helper()
	require.True(c.t, c.lines.Scan(), "child has ended: %v", c.lines.Err())
	return c.lines.Text()
}

// end waits for the child and returns what it printed since.
func (c *child) end() (lines []string) {
	c.t.Helper()
	for c.lines.Scan() {
		lines = append(lines, c.lines.Text())
	}
	require.NoError(c.t, c.Wait())
	return lines
}

func (c *child) kill() {
	c.t.Helper()
	require.NoError(c.t, c.Process.Kill())
	require.Error(c.t, c.Wait())
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

// ls returns the names in dir.
func ls(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func temps(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err == nil && IsTemp(entry.Name()) {
			names = append(names, entry.Name())
		}
		return err
	})
	require.NoError(t, err)
	return names
}
