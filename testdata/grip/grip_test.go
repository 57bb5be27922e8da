package grip

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecodeEvents(t *testing.T) {
	for _, tt := range []struct {
		body string
		want []Event
		err  string
	}{
		{"", nil, ""},
		{
			"OPEN\r\nTEXT 5\r\nhello\r\nPING 0\r\n\r\nDISCONNECT\r\n",
			[]Event{{Open, nil}, {Text, []byte("hello")}, {Ping, []byte{}}, {Disconnect, nil}}, "",
		},
		{"TEXT a\r\n0123456789\r\n", []Event{{Text, []byte("0123456789")}}, ""},
		{"BINARY 4\r\n\r\n\r\n\r\n", []Event{{Binary, []byte("\r\n\r\n")}}, ""},
		{"CLOSE 2\r\n\x03\xe8\r\n", []Event{{Close, []byte{3, 232}}}, ""},
		{"OPEN", nil, "event 1: the body ends within"},
		{"OPEN\r\nTEXT 5\r\nhello\r", nil, "event 2: the body ends within"},
		{"TEXT 4\r\nhello\r\n", nil, "not 4 bytes long"},
		{"open\r\n", nil, `unknown type "open"`},
		{"TEXT -1\r\n\r\n", nil, `size "-1"`},
		{"TEXT ffffffffffffffff\r\n\r\n", nil, "size"},
		{"TEXT 5 \r\nhello\r\n", nil, `size "5 "`},
	} {
		got, err := DecodeEvents([]byte(tt.body))
		if !reflect.DeepEqual(got, tt.want) || !failed(err, tt.err) {
			t.Errorf("%q: got %q, %v; want %q, %q", tt.body, got, err, tt.want, tt.err)
		}
		if again := string(EncodeEvents(got...)); err == nil && again != tt.body {
			t.Errorf("%q becomes %q", tt.body, again)
		}
	}
}

func TestMessages(t *testing.T) {
	for want, event := range map[string]Event{
		"TEXT 27\r\nc:{\"channel\":\"a\\\"b\",\"type\":\"subscribe\"}\r\n": Subscribe(`a"b`),
		"TEXT 6\r\nm:c:{}\r\n":       Message(Text, []byte("c:{}")),
		"BINARY 4\r\nm:\x00\xff\r\n": Message(Binary, []byte{0, 255}),
		"CLOSE 5\r\n\x0f\xa1bye\r\n": CloseEvent(4001, "bye"),
	} {
		if got := string(EncodeEvents(event)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

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
	for _, tt := range []struct {
		lines []string
		want  string
	}{
		{[]string{"b; last-id=2, a; last-id=1"}, "1"},
		{[]string{"b; last-id=2", " a ;x=y; last-id=1"}, "1"},
		{[]string{"aa; last-id=1"}, ""},
		{[]string{"a; prev-id=1"}, ""},
	} {
		if got := Last(http.Header{"Grip-Last": tt.lines}, "a"); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.lines, got, tt.want)
		}
	}
}

// failed reports whether err contains the text want. An empty want stands for no error.
func failed(err error, want string) bool {
	return (err != nil) == (want != "") && (err == nil || strings.Contains(err.Error(), want))
}
