package main

import "syscall"

// fullErrors are the system's words for a write that found no room on the disk:
// ERROR_DISK_FULL and ERROR_HANDLE_DISK_FULL.
var fullErrors = []error{syscall.Errno(112), syscall.Errno(39)}
