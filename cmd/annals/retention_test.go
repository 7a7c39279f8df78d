package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
)

func TestKeepFlag(t *testing.T) {
	var f keepFlag
	for _, s := range []string{"age=30d", "count=5,age=1.5h", "cpu:bytes=64KiB", "a:b:count=7", "audit:all", "cpu:age=2w,bytes=1GiB,count=9"} {
		require.NoError(t, f.Set(s), s)
	}
	require.Equal(t, annals.Retention{
		Default: annals.Limits{Age: 90 * time.Minute, Count: 5},
		Series: map[string]annals.Limits{
			"cpu": {Age: 14 * 24 * time.Hour, Bytes: 1 << 30, Count: 9}, "a:b": {Count: 7}, "audit": {},
		},
	}, f.retention())
	require.Equal(t, "age=1h30m0s,count=5 a:b:count=7 audit:all cpu:age=336h0m0s,bytes=1GiB,count=9", f.String())
	for _, s := range []string{"", "30d", "age=", "age=-1h", "age=0d", "age=1e300d", "bytes=0", "count=0", "count=-1", "count=1,", ":all", "cpu:", "cpu", "size=3"} {
		require.Error(t, f.Set(s), s)
	}
}
