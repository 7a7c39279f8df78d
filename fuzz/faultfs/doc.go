// Package faultfs is a file system in memory that fails and crashes on command.
//
// An [FS] is a replace.FS: the store runs on it as it runs on a disk. It keeps two
// things of every file and directory: what processes see, and what is on the disk,
// which is an old state and the list of effects since then. A sync makes effects
// durable; what no sync has ordered yet is pending.
//
// # The fault model
//
// After a crash, [FS.Crash] makes a file system that holds
//
//   - every effect that a completed sync of its file or directory had covered,
//   - any subset of the pending ones: for a write, any of its pieces of 512 or
//     4,096 bytes (FS.Tear), and for one that makes the file longer, the new length
//     without the bytes, which then are zeros; for directories, any subset of
//     creates, renames (each in one step), links and removals. A removal that nobody
//     synced may stay or not.
//
// [FS.CrashTo] also cuts a write, or a file's growth, short at any byte, and puts
// zeros, ones or noise where the rest was to go ([Fate]). Bytes outside a write's
// own range stay as they were, as SQLite and others assume of disks. Locks go with
// the processes. [FS.Effects] and [FS.Journal] say what was pending, and what led
// there.
//
// # Faults
//
// [FS.Inject] makes chosen operations fail, a write after some of its bytes;
// [FailAt] chooses the k-th, once or for ever, and counts. A sync that fails behaves
// as one of four file systems do: the effects it was to make durable are lost to
// later syncs, and may or may not be on the disk ([Ext4]; with [XFS] the new length
// is); it succeeds, and the next one fails ([Ext4Data]); or processes see the old
// contents again ([Btrfs]).
//
// # What it does not model
//
// A crash takes effect between operations and within one write, not within a rename
// or a sync. Syncs of one file do not order another's: real file systems often do,
// so a bug that they hide is found here. A write that a failed sync has lost is
// never changed later. There are no permissions to enforce, no space to run out of
// unless a fault says so, and no memory maps.
package faultfs
