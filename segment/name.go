package segment

import (
	"fmt"
	"strconv"
	"strings"
)

const nameDigits = 20 // of a segment's number in its file name, so that names sort as numbers

// Name returns the file name of segment n.
func Name(n uint64) string { return fmt.Sprintf("%0*d.log", nameDigits, n) }

// ParseName returns the number of the segment that a file name stands for; ok is
// false for every name that Name does not make.
func ParseName(name string) (n uint64, ok bool) {
	digits, found := strings.CutSuffix(name, ".log")
	if !found || len(digits) != nameDigits {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, err == nil && n > 0 && Name(n) == name
}
