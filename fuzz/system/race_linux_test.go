//go:build race

package system

// underRace is true if the race detector is on; the binary is built with it too.
const underRace = true

// usualRounds is how many random kills there are unless a flag says otherwise.
const usualRounds = 30
