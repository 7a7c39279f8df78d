//go:build !race

package main

// intakeUnderRace makes the crashes of the intake fewer: each takes ten times as long.
const intakeUnderRace = false
