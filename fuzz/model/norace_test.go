//go:build !race

package model

const (
	defaultChecks    = "1000"
	defaultHistories = 60
)
