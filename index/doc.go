// Package index keeps, in memory and in order, where the newest record of each
// key lies, and in which stretches of the log the samples of each series are.
//
// A key has an [Entry]: the position of its line. Samples are not indexed one by
// one: the log is divided into blocks of about 64 KiB, and for each of them the
// index knows the range of sequence numbers and of times, and which series occur
// in it. A reader of samples opens only the blocks that can hold an answer.
//
// An [Index] is built once, from records in any order, by a [Builder], and then
// changed by Apply, one batch at a time, in the order of their sequence numbers.
// A batch becomes visible as a whole. A [Snapshot] costs nothing to take: the
// tree below (google/btree) copies a node only when a later change touches it.
//
// The index knows nothing of files, lines or time: what has expired is decided
// by its user, and so is when a segment may go.
package index
