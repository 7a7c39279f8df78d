package main

import (
	"strings"
	"testing"
)

// Whoever asks for help gets an example that runs, also of the arguments.
func TestEveryVerbHasAnExample(t *testing.T) {
	verbs := newRoot().Commands()
	if len(verbs) < 19 {
		t.Fatalf("only %d verbs", len(verbs))
	}
	for _, verb := range verbs {
		if verb.Short == "" || verb.GroupID == "" {
			t.Errorf("%s: no short help, or no group", verb.Name())
		}
		if !strings.Contains(verb.Example, "  annals "+verb.Name()) && !strings.Contains(verb.Example, "| annals "+verb.Name()) {
			t.Errorf("%s: the example shows something else:\n%s", verb.Name(), verb.Example)
		}
	}
}
