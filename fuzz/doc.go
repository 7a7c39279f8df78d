// Package fuzz is the proof: tests that try to make annals lose something.
//
// It holds the tests that need the whole store and rough treatment: processes
// that are killed, directories that are damaged, readers that share no code with
// the store (check.py). Each prints the seed and the command that replays a
// failure.
package fuzz
