package segment

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// decodeSlowly is decodeRecord without its short cut.
func decodeSlowly(object []byte) (View, error) {
	var v View
	p := parser{b: object}
	p.expect(`{"seq":`)
	v.Seq = p.seq()
	if p.accept(`,"dur":`) {
		v.Dur = p.number()
	}
	v.More = p.accept(`,"more":true`)
	v.decodeBody(&p)
	if p.bad {
		return View{}, errObject
	}
	return v, nil
}

// Whatever the short cut takes, the parser would have taken, and for the same.
func TestTheShortCutAgreesWithTheParser(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	begin := []string{
		`{"seq":1,"key":"k","val":1}`,
		`{"seq":12,"dur":3,"key":"key0000000000001","val":{"a":"b"}}`,
		`{"seq":123456789012345,"dur":999999999999999,"key":"a longer key, of words","val":[1,2]}`,
		`{"seq":1234567890123456,"key":"k","val":1}`,
		`{"seq":01,"key":"k","val":1}`,
		`{"seq":0,"key":"k","val":1}`,
		`{"seq":1,"dur":0,"key":"k","val":1}`,
		`{"seq":1,"dur":05,"key":"k","val":1}`,
		`{"seq":1,"more":true,"key":"k","val":1}`,
		`{"seq":1,"key":"","val":1}`,
		`{"seq":1,"key":"k","val":}`,
		`{"seq":1,"key":"k\"","val":1}`,
		`{"seq":1,"key":"k\u0001\\","val":1}`,
		`{"seq":1,"key":"käse","val":1}`,
		`{"seq":1,"key":"k` + "\xff" + `","val":1}`,
		`{"seq":1,"key":"k","exp":1732290000.000000,"val":1}`,
		`{"seq":1,"key":"k","del":true}`,
		`{"seq":1,"key":"k","txt":"x"}`,
	}
	taken := 0
	for n := range 200_000 {
		object := []byte(begin[n%len(begin)])
		for range n / len(begin) % 4 {
			switch i := rng.IntN(len(object)); rng.IntN(3) {
			case 0:
				object[i] = byte(rng.IntN(256))
			case 1:
				object = append(object[:i], object[min(i+1+rng.IntN(3), len(object)):]...)
			case 2:
				object = bytes.Clone(append(object[:i:i], append([]byte(`",:}\0`)[rng.IntN(5):][:1], object[i:]...)...))
			}
			if len(object) == 0 {
				object = []byte("{")
			}
		}
		want, err := decodeSlowly(object)
		var v View
		if v.decodePut(object) {
			taken++
			require.NoError(t, err, "%q", object)
			require.Equal(t, want, v, "%q", object)
		} else {
			require.Equal(t, View{}, v, "%q", object)
		}
	}
	require.Greater(t, taken, 10_000)
}

func TestChecksumIsTheStandardOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.IntN(256))
		}
		require.Equal(t, crc32.ChecksumIEEE(b), checksum(b), "%d bytes", n)
	}
}

func TestPlainLen(t *testing.T) {
	for n := range 20 {
		b := bytes.Repeat([]byte("~"), n)
		require.Equal(t, n, plainLen(b))
		for i := range n {
			for c := range 256 {
				b[i] = byte(c)
				want := n
				if c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
					want = i
				}
				require.Equal(t, want, plainLen(b), "%#x at %d of %d", c, i, n)
			}
			b[i] = '~'
		}
	}
}

// The sum over the whole file is made chunk by chunk, over lines of every length.
func TestTheScannersSumIsThatOfTheLines(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var data []byte
	for seq := uint64(1); len(data) < 3*scanChunk; seq++ {
		value := append([]byte{'"'}, bytes.Repeat([]byte("x"), rng.IntN(scanChunk/2))...)
		data = AppendRecord(data, &Record{Seq: seq, Kind: Put, Name: "k", Value: append(value, '"')})
	}
	s := NewScanner(bytes.NewReader(data), 0, int64(len(data)))
	s.startSum(Checksum(0, []byte("before")))
	for s.Scan() {
		if rng.IntN(3) == 0 {
			want := append([]byte("before"), data[:s.Line().Offset]...)
			require.Equal(t, Checksum(0, want), s.sumBefore())
		}
	}
	require.NoError(t, s.Err())
}
