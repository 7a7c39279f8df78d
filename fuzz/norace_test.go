//go:build !race

package fuzz

// underRace is true if the race detector is on, which makes everything several
// times slower.
const underRace = false
