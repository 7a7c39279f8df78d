// Package model holds annals against models of it: what a store should answer is
// worked out by code that shares nothing with the store.
//
// TestModel runs random operations, crashes among them, on a store and on a map.
// TestOptionsAgree runs one list of operations under many options, none of which may
// change what can be read. TestLinearizable has goroutines write and read at the same
// time, with crashes inside, and asks porcupine whether there is an order that explains
// what they saw.
//
// The package is a module of its own, so that rapid and porcupine are no dependencies
// of annals.
package model
