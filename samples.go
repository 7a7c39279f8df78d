package annals

import (
	"time"

	"github.com/annalsdb/annals/index"
)

// timeOfSample is a sample's time for users. Unlike an expiry, 0 is a time.
func timeOfSample(micros int64) time.Time { return time.UnixMicro(micros) }

func seriesInfo(s index.Series) SeriesInfo {
	return SeriesInfo{
		Name: s.Name, Samples: s.Samples, Bytes: int64(s.Bytes), FirstSeq: s.FirstSeq, LastSeq: s.LastSeq,
		First: timeOfSample(s.MinAt), Last: timeOfSample(s.MaxAt),
	}
}
