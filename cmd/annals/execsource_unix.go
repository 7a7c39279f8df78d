//go:build unix

package main

import (
	"context"
	"os/exec"
	"syscall"
)

// shell is a command line that ctx ends, with all the processes that it has started.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	// A group of its own: also so that Ctrl-C in a terminal is the recorder's alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}
