//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// dropPrivileges makes the process one of nobody's, so that permissions mean
// something also where the tests run as root.
func dropPrivileges() {
	if os.Getuid() != 0 {
		return
	}
	const nobody = 65534
	for _, drop := range []func() error{
		func() error { return syscall.Setgroups([]int{nobody}) },
		func() error { return syscall.Setgid(nobody) },
		func() error { return syscall.Setuid(nobody) },
	} {
		if err := drop(); err != nil {
			fmt.Fprintln(os.Stderr, "dropping privileges:", err)
			os.Exit(99)
		}
	}
}
