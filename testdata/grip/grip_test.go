package grip

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestHold(t *testing.T) {
	for _, tt := range []struct {
		hold Hold
		want http.Header
		err  string
	}{
		{
			Hold{
				Mode:      Stream,
				Channels:  []Channel{{"a", ""}, {"b:c", "x-1"}},
				Timeout:   25 * time.Second,
				KeepAlive: ": \"x\"\\\n\n", KeepAliveAfter: 20 * time.Second,
				Next: "/next?a=b", NextAfter: 30 * time.Second,
			}, http.Header{
				"Grip-Hold":       {"stream"},
				"Grip-Channel":    {"a", "b:c; prev-id=x-1"},
				"Grip-Timeout":    {"25"},
				"Grip-Keep-Alive": {"OiAieCJcCgo=; format=base64; timeout=20"},
				"Grip-Link":       {"</next?a=b>; rel=next; timeout=30"},
			}, "",
		},
		{Hold{Channels: []Channel{{"a\r\nGrip-Hold: x", ""}}}, http.Header{}, "Grip-Channel"},
		{Hold{Channels: []Channel{{"a, b", ""}}}, http.Header{}, `"a, b"`},
		{Hold{Channels: []Channel{{"", ""}}}, http.Header{}, "Grip-Channel"},
		{Hold{Channels: []Channel{{"a", "1;2"}}}, http.Header{}, "prev-id=1;2"},
	} {
		got := http.Header{}
		if err := tt.hold.Set(got); !reflect.DeepEqual(got, tt.want) || !failed(err, tt.err) {
			t.Errorf("%+v: got %q, %v; want %q, %q", tt.hold, got, err, tt.want, tt.err)
		}
	}
}

func TestLast(t *testing.T) {
	for line, want := range map[string]string{
		"b; last-id=2, a; last-id=1": "1",
		" a ;last-id=1":              "1",
		"aa; last-id=1":              "",
		"a; prev-id=1":               "",
	} {
		if got := Last(http.Header{"Grip-Last": {"c; last-id=3", line}}, "a"); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

// failed reports whether err contains the text want. An empty want stands for no error.
func failed(err error, want string) bool {
	return (err != nil) == (want != "") && (err == nil || strings.Contains(err.Error(), want))
}
