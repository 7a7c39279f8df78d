package main

import (
	"context"
	"os/exec"
	"syscall"
)

// shell is a command line that ctx ends. What it has started is left to itself.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "cmd")
	cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: `cmd /S /C "` + line + `"`} // as it is, without Go's quoting
	return cmd
}
