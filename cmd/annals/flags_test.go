package main

import (
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

func TestSizeFlag(t *testing.T) {
	for text, want := range map[string]int64{"65536": 65536, "64KiB": 65536, "16MiB": 16 << 20, "1GiB": 1 << 30, "1 MiB": 1 << 20} {
		var f sizeFlag
		if err := f.Set(text); err != nil || int64(f) != want {
			t.Errorf("%s: %d, %v", text, f, err)
		}
	}
	for _, bad := range []string{"", "0", "-1", "64kb", "64 K", "1.5MiB", "KiB", "9223372036854775807GiB", "99999999999999999999"} {
		var f sizeFlag
		if err := f.Set(bad); err == nil {
			t.Errorf("%q is read as %d", bad, f)
		}
	}
	for size, want := range map[sizeFlag]string{0: "", 1000: "1000", 65536: "64KiB", 16 << 20: "16MiB", 3 << 30: "3GiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d is spelled %q, want %q", int64(size), got, want)
		}
	}
}

func TestSyncFlag(t *testing.T) {
	for text, want := range map[string]annals.SyncPolicy{
		"always": annals.SyncAlways, "never": annals.SyncNever, "100ms": annals.SyncEvery(100 * time.Millisecond),
	} {
		var f syncFlag
		if err := f.Set(text); err != nil || annals.SyncPolicy(f) != want || f.String() != text {
			t.Errorf("%s: %s, %v", text, f.String(), err)
		}
	}
	for _, bad := range []string{"", "sometimes", "0s", "-1s", "100"} {
		var f syncFlag
		if err := f.Set(bad); err == nil {
			t.Errorf("%q is read as %s", bad, f.String())
		}
	}
}

func TestTimeFlag(t *testing.T) {
	want := time.Date(2024, 11, 22, 14, 0, 0, 500_000_000, time.UTC)
	for _, text := range []string{"2024-11-22T14:00:00.5Z", "2024-11-22T15:00:00.5+01:00", "1732284000.5"} {
		var f timeFlag
		if err := f.Set(text); err != nil || !time.Time(f).Equal(want) {
			t.Errorf("%s: %s, %v", text, f.String(), err)
		}
	}
	var f timeFlag
	before := time.Now().Add(-10 * time.Minute)
	if err := f.Set("10m"); err != nil || time.Time(f).Before(before) || time.Time(f).After(before.Add(time.Minute)) {
		t.Errorf("10m: %s, %v", f.String(), err)
	}
	for _, bad := range []string{"", "yesterday", "-10m", "2024-11-22", "1e400"} {
		if err := f.Set(bad); err == nil {
			t.Errorf("%q is read as %s", bad, f.String())
		}
	}
}
