//go:build !race

package annals

// raceDetector tells tests that they run about ten times slower.
const raceDetector = false
