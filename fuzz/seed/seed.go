// Package seed gives tests random numbers that can be had again.
package seed

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// Rand returns a source of random numbers and tells how to get the same again.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("ANNALS_TEST_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatalf("ANNALS_TEST_SEED: %v", err)
		}
	}
	t.Logf("to run this again: ANNALS_TEST_SEED=%d go test -run '^%s$'", seed, t.Name())
	return rand.New(rand.NewPCG(seed, 0))
}
