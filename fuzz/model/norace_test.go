//go:build !race

package model

const (
	defaultChecks    = "600"
	defaultHistories = 60
)
