package grip

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestHold(t *testing.T) {
	got := http.Header{}
	err := Hold{
		Mode:      Stream,
		Channels:  []Channel{{"a", ""}, {"b:c", "x-1"}},
		Timeout:   25 * time.Second,
		KeepAlive: ": \"x\"\\\n\n", KeepAliveAfter: 20 * time.Second,
		Next: "/next?a=b", NextAfter: 30 * time.Second,
	}.Set(got)
	if want := (http.Header{
		"Grip-Hold":       {"stream"},
		"Grip-Channel":    {"a", "b:c; prev-id=x-1"},
		"Grip-Timeout":    {"25"},
		"Grip-Keep-Alive": {"OiAieCJcCgo=; format=base64; timeout=20"},
		"Grip-Link":       {"</next?a=b>; rel=next; timeout=30"},
	}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for channel, says := range map[Channel]string{
		{"a\r\nGrip-Hold: x", ""}: `Grip-Channel "a\r\nGrip-Hold: x": only`,
		{"a, b", ""}:              `Grip-Channel "a, b": only`,
		{"", ""}:                  `Grip-Channel "": only`,
		{"a", "1;2"}:              `Grip-Channel "a; prev-id=1;2": only`,
	} {
		got := http.Header{}
		err := Hold{Channels: []Channel{channel}}.Set(got)
		if len(got) > 0 || !strings.HasPrefix(fmt.Sprint(err), says) {
			t.Errorf("%q: got %q, %v", channel, got, err)
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
