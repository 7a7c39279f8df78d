//go:build !race

package system

// underRace is true if the race detector is on; the binary is built with it too.
const underRace = false

// usualRounds is how many random kills there are unless a flag says otherwise.
const usualRounds = 120
