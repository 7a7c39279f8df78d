package segment

import (
	stdcrc "hash/crc32"
	"strings"
	"testing"

	"github.com/klauspost/crc32"
)

var encodeValues = map[string][]byte{
	"json 100": []byte(`{"name":"Ann","age":41,"filler":"0123456789012345678901234567890123456789012345678901234567890123456"}`),
	"dense":    []byte(`{"a":1,"b":[1,2,3,{"c":null}],"d":"x","e":true,"f":1.5e3,"g":{"h":"\n","i":[]},"j":"é"}`),
	"64 KiB":   []byte(`{"v":"` + strings.Repeat("0123456789abcdef", 4096) + `"}`),
	"text":     []byte(strings.Repeat("a line of text that is not JSON\n", 2048)),
}

func BenchmarkAppendBody(b *testing.B) {
	for name, value := range encodeValues {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(value)))
			r := Record{Kind: Put, Name: "key0000000000001", Value: value}
			var dst []byte
			for b.Loop() {
				dst = AppendBody(dst[:0], &r)
			}
		})
	}
}

func BenchmarkIsJSON(b *testing.B) {
	for name, value := range encodeValues {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				IsJSON(value)
			}
		})
	}
}

func BenchmarkAppendLine(b *testing.B) {
	body := AppendBody(nil, &Record{Kind: Put, Name: "key0000000000001", Value: encodeValues["json 100"]})
	var dst []byte
	for b.Loop() {
		dst = AppendLine(dst[:0], 1234567, 0, true, body)
	}
}

func BenchmarkCRC(b *testing.B) {
	for name, value := range encodeValues {
		b.Run(name+"/klauspost", func(b *testing.B) {
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				crc32.ChecksumIEEE(value)
			}
		})
		b.Run(name+"/std", func(b *testing.B) {
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				stdcrc.ChecksumIEEE(value)
			}
		})
	}
}
