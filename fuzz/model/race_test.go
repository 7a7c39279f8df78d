//go:build race

package model

// defaultChecks is fewer: the race detector makes everything several times slower, and
// races hide in the code, not in the number of cases.
const (
	defaultChecks    = "60"
	defaultHistories = 15
)
