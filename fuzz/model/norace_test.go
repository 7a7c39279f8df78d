//go:build !race

package model

const defaultChecks = "1000"
