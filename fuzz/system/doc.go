// Package system is the proof with the real binary: annals as its users run it, as
// processes of their own, on real file systems, under real faults.
//
// Its tests build cmd/annals once and then treat it badly: SIGKILL at any moment
// and at chosen system calls, system calls that fail (strace injects the errors),
// disks that are full, files that may not grow, locks that somebody tries to get
// around, users who are hasty or malicious. Each keeps the list of the operations
// that it submitted and of those that were acknowledged on a pipe, and afterwards
// holds the store against it: what is there must be the state after some prefix
// of what was submitted, with everything acknowledged in it.
//
// The tests are for Linux. They need strace, mkfs.ext4, mount and the right to use
// them; where a container gives no loop device they say so loudly and use what
// there is.
package system
