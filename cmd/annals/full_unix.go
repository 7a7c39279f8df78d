//go:build unix

package main

import "syscall"

// fullErrors are the system's words for a write that found no room: on the disk, in
// a quota, or below a limit of the size of files.
var fullErrors = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}
