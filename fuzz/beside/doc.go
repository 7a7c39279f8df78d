// Package beside holds the tests of readers in processes of their own beside a
// writer that rotates, compacts, is killed and comes again.
//
// What they see is held against two things. Every state that the writer makes
// follows from a number that it counts up, so that a reader can tell whether what it
// sees is the state after one commit, whole. And a file system between the store and
// the disk notes, in memory that all processes share, up to which record a sync has
// returned: no reader may have seen more.
package beside
