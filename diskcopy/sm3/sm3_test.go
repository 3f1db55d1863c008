package sm3

import (
	"encoding/hex"
	"strings"
	"testing"
)

// The two examples of the standard's appendix.
func TestStandard(t *testing.T) {
	for text, want := range map[string]string{
		"abc":                      "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
		strings.Repeat("abcd", 16): "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732",
	} {
		h := New()
		h.Write([]byte(text))
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// What OpenSSL 3.0 makes of n bytes 0, 1, … 250, 0, …, written in any pieces.
func TestLengths(t *testing.T) {
	for _, c := range []struct {
		n    int
		want string
	}{
		{0, "1ab21d8355cfa17f8e61194831e81a8f22bec8c728fefb747ed035eb5082aa2b"},
		{1, "2daef60e7a0b8f5e024c81cd2ab3109f2b4f155cf83adeb2ae5532f74a157fdf"},
		{3, "d18c17ef9f985ba361f06b599a1ec3cae9bd5de6967cac33944e5f8b67b6dcc2"},
		{55, "a79cf9dcee3404abf7f769698201647fd9d3ff61d629d0f58bb4b5579a427db8"},
		{56, "62f7363b15f4de76dd925c493b9d6d00d4ba0ef2a1f334c1d0f13b293aeb40d1"},
		{57, "441f67cc31781dd2986fc612b92dfade871d81357f2487f5c86d94a8c6778d82"},
		{63, "6165e4cbb15cde01c6226e0015a47f710f8f8e1f2c296700033bb34d9212109c"},
		{64, "93566f236d157aae078d1ddb5cebdbba1520b5142e22a8915564345ba2ae1d63"},
		{65, "c886e6814be748285a10b28ae62ddacd85db830cd2cf3a2bfa2f729c15f63618"},
		{119, "8f3ea392a89a7119982d6634660db1a95f35d68267a2235e3255998a857f4fbf"},
		{120, "6babee35e6a1515af9d6255109c24f3c08897829422c6225d235fd4c8527e9ec"},
		{127, "bca3436d828517a6a6893a9e309e06e7b7b29c6e3f78b4814b23efe149962980"},
		{128, "a9e7985473ca09df1510d83b572f72375430756c4a661b00724afeb8b75dd0a5"},
		{1000, "b38fc481302b502c3f2f6608d060c47c5b6bd8fd65e148b7cd3af4988245f48a"},
	} {
		text := make([]byte, c.n)
		for i := range text {
			text[i] = byte(i % 251)
		}
		for _, piece := range []int{1, 7, 63, 64, 65, 1000} {
			h := New()
			for p := text; len(p) > 0; p = p[min(piece, len(p)):] {
				h.Write(p[:min(piece, len(p))])
				h.Sum(nil)
			}
			if got := hex.EncodeToString(h.Sum(nil)); got != c.want {
				t.Errorf("%d bytes by %d: %s, want %s", c.n, piece, got, c.want)
			}
		}
	}
}
