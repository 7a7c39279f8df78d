// Bench measures annals beside its peers and beside the raw system calls, in one
// run on one machine, and says which goals are met.
//
//	go run . [-quick | -large] [-rounds 5] [-only regexp] [-peers regexp] [-resume name]
//
// Every contestant runs in a process of its own, so that no one's heap or
// goroutines slow another down, and the contestants take turns, round by round,
// so that a noisy neighbour hits them all. A figure is the median over the rounds;
// a ratio is the median of the rounds' ratios. Absolute figures say little about
// another machine.
//
// Each peer is configured as its own documentation recommends for the durability
// that is asked of it. The store that the harness keeps its results in is an annals
// store, bench/runs: a journal for each run, which goes on after an interruption.
package main
