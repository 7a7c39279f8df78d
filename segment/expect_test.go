package segment

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// PutValue says what Decode does, of good lines and of bad ones.
func TestPutValueAgreesWithDecode(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	objects := []string{
		`{"seq":1,"key":"k","val":1}`,
		`{"seq":12,"dur":3,"key":"key0000000000001","val":{"a":"b"}}`,
		`{"seq":123456789012345,"dur":999999999999999,"more":true,"key":"a longer key, of words","val":[1,2]}`,
		`{"seq":2,"more":true,"key":"","val":""}`,
		`{"seq":1,"dur":0,"key":"k","val":1}`,
		`{"seq":1234567890123456,"key":"k","val":1}`,
		`{"seq":1,"key":"a","val":1","val":2}`,
		`{"seq":1,"key":"k\"","val":1}`,
		`{"seq":1,"key":"k\\","val":1}`,
		`{"seq":1,"key":"käse","val":1}`,
		`{"seq":1,"key":"k","exp":1732290000.000000,"val":1}`,
		`{"seq":1,"key":"k","del":true}`,
		`{"seq":1,"key":"k","txt":"x"}`,
		`{"seq":1,"key":"k","txt":"x\n"}`,
		`{"seq":1,"key":"k","b64":"/w=="}`,
		`{"seq":1,"ser":"k","at":1.000000,"val":1}`,
		`{"seq":1,"key":"k","val":}`,
	}
	keys := []string{"k", "key0000000000001", "a longer key, of words", "", `k"`, `k\"`, `k\`, `k\\`, "käse", "a", `a","val":1`}
	taken := 0
	for range 200_000 {
		object := []byte(objects[rng.IntN(len(objects))])
		for range rng.IntN(3) {
			object[rng.IntN(len(object))] = byte(rng.IntN(256))
		}
		line := appendCRC(object, 0)
		if rng.IntN(10) == 0 {
			line[rng.IntN(len(line))] ^= byte(1 + rng.IntN(255))
		}
		v, err := DecodeLine(line)
		seq, key := uint64(rng.IntN(3)), keys[rng.IntN(len(keys))]
		if err == nil && rng.IntN(2) == 0 {
			seq, key = v.Seq, v.Name()
		}
		value, own, got := PutValue(line, seq, key)
		if err == nil && (v.Kind != Put || v.Seq != seq || !v.NameIs(key)) {
			err = ErrOther
		}
		require.Equal(t, err, got, "%q as %d %q", line, seq, key)
		if err != nil {
			continue
		}
		want, plain := v.Plain()
		if !plain {
			want = v.AppendValue(nil)
		}
		require.Equal(t, want, value, "%q", line)
		require.Equal(t, !plain, own)
		require.True(t, own || len(value) == cap(value), "nobody can append to what follows")
		if _, ok := valueOf(line[:len(line)-crcSize], seq, key); ok {
			taken++
		}
	}
	require.Greater(t, taken, 5_000, "the short way is the common one")
}

func TestHasControl(t *testing.T) {
	for n := range 80 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(0x20 + i*37%0xE0)
		}
		require.False(t, hasControl(b), "%d bytes", n)
		for i := range b {
			was := b[i]
			for _, c := range []byte{0, 1, '\n', 0x1F, 0x20, 0x7F, 0x80, 0x9F, 0xFF} {
				b[i] = c
				require.Equal(t, c < 0x20, hasControl(b), "%#x at %d of %d", c, i, n)
			}
			b[i] = was
		}
	}
}
