//go:build unix

package replace

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Exposed tells why others than the user that this process runs as can change what
// is in the directory that info describes, and the command that ends it; both are
// empty if they can't. Another user's directory counts as well where we may write
// to it, as root may: its owner can replace whatever we put there, and could not
// read it. A system or an FS without owners exposes nothing.
func Exposed(info fs.FileInfo) (why, fix string) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", ""
	}
	if us := os.Geteuid(); int(st.Uid) != us {
		return fmt.Sprintf("belongs to user %d, and this is user %d", st.Uid, us), fmt.Sprintf("chown %d", us)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Sprintf("may be written by others: its mode is %v", info.Mode()), "chmod go-w"
	}
	return "", ""
}

// Links returns how many names the file has that info describes, 1 where the
// system or the FS does not tell.
func Links(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink)
	}
	return 1
}
