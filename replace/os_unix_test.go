//go:build unix

package replace

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func init() { children["low descriptors"] = openWithLowDescriptorsFree }

// A named pipe would make open wait for the other end, for ever.
func TestOpenNeverWaitsForAPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	for _, name := range []string{pipe, "/dev/null"} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_TRUNC} {
			_, err := OS.OpenFile(name, flag, 0o600)
			assert.ErrorIs(t, err, ErrNotRegular, "%s %x", name, flag)
		}
	}
	assert.ErrorIs(t, WriteFile(pipe, nil), ErrNotRegular)
	assert.ErrorIs(t, Append(pipe, []byte("{}")), ErrNotRegular)
}

// A program that is started with stderr closed must not get the data under that
// number: the next panic would be written into it.
func TestFilesNeverGetALowDescriptor(t *testing.T) {
	c := start(t, "low descriptors", filepath.Join(t.TempDir(), "file"))
	c.end()
}

func openWithLowDescriptorsFree(args []string) error {
	if err := unix.Close(0); err != nil {
		return err
	}
	f, err := OS.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if fd := f.(osFile).Fd(); fd < 3 {
		return fmt.Errorf("got descriptor %d", fd)
	}
	if _, err := unix.FcntlInt(0, unix.F_GETFD, 0); err == nil {
		return fmt.Errorf("descriptor 0 was left open")
	}
	flags, err := unix.FcntlInt(f.(osFile).Fd(), unix.F_GETFD, 0)
	if err != nil {
		return err
	}
	if flags&unix.FD_CLOEXEC == 0 {
		return fmt.Errorf("not close-on-exec")
	}
	return f.Close()
}
