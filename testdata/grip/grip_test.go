package grip

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecodeEvents(t *testing.T) {
	tests := []struct {
		name, body string
		want       []Event
		err        string
	}{
		{"nothing", "", nil, ""},
		{
			"several", "OPEN\r\nTEXT 5\r\nhello\r\nPING 0\r\n\r\nDISCONNECT\r\n",
			[]Event{{Open, nil}, {Text, []byte("hello")}, {Ping, []byte{}}, {Disconnect, nil}}, "",
		},
		{"hexadecimal size", "TEXT A\r\n0123456789\r\n", []Event{{Text, []byte("0123456789")}}, ""},
		{"line ends as content", "BINARY 4\r\n\r\n\r\n\r\n", []Event{{Binary, []byte("\r\n\r\n")}}, ""},
		{"close code", "CLOSE 2\r\n\x03\xe8\r\n", []Event{{Close, []byte{3, 232}}}, ""},
		{"no line end", "OPEN", nil, "event 1: the body ends within"},
		{"second cut short", "OPEN\r\nTEXT 5\r\nhell", nil, "event 2: the body ends within"},
		{"content without line end", "TEXT 5\r\nhello", nil, "event 1: the body ends within"},
		{"content longer than its size", "TEXT 4\r\nhello\r\n", nil, "not 4 bytes long"},
		{"unknown type", "open\r\n", nil, `unknown type "open"`},
		{"negative size", "TEXT -1\r\n\r\n", nil, `size "-1"`},
		{"huge size", "TEXT ffffffffffffffff\r\n\r\n", nil, "size"},
		{"not a size", "TEXT 5 \r\nhello\r\n", nil, `size "5 "`},
		{"too many", strings.Repeat("PING\r\n", 10_001), nil, "more than 10000"},
	}
	for _, tt := range tests {
		got, err := DecodeEvents([]byte(tt.body))
		if !reflect.DeepEqual(got, tt.want) || !failed(err, tt.err) {
			t.Errorf("%s: got %q, %v; want %q, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// FuzzDecodeEvents checks that events stay the same when they are encoded and decoded again.
func FuzzDecodeEvents(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := DecodeEvents(body)
		if err != nil {
			return
		}
		encoded := EncodeEvents(events...)
		again, err := DecodeEvents(encoded)
		if err != nil || !reflect.DeepEqual(again, events) {
			t.Fatalf("%q became %q: %q, %v", events, encoded, again, err)
		}
	})
}

func TestMessages(t *testing.T) {
	for _, tt := range []struct {
		event Event
		want  string
	}{
		{Subscribe(`a"b`), "TEXT 27\r\nc:{\"channel\":\"a\\\"b\",\"type\":\"subscribe\"}\r\n"},
		{Message(Text, []byte("c:{}")), "TEXT 6\r\nm:c:{}\r\n"},
		{Message(Binary, []byte{0, 255}), "BINARY 4\r\nm:\x00\xff\r\n"},
		{Message(Text, nil), "TEXT 2\r\nm:\r\n"},
		{CloseEvent(4001, "bye"), "CLOSE 5\r\n\x0f\xa1bye\r\n"},
	} {
		if got := string(EncodeEvents(tt.event)); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestHold(t *testing.T) {
	tests := []struct {
		name string
		hold Hold
		want http.Header
		err  string
	}{
		{
			"response", Hold{Mode: Response, Channels: []Channel{{"a", ""}, {"b:c", "x-1"}}, Timeout: 25 * time.Second},
			http.Header{"Grip-Hold": {"response"}, "Grip-Channel": {"a", "b:c; prev-id=x-1"}, "Grip-Timeout": {"25"}}, "",
		},
		{
			"stream", Hold{
				Mode: Stream, Channels: []Channel{{"a", "1"}},
				KeepAlive: ": \"x\"\\\n\n", KeepAliveAfter: 20 * time.Second, Next: "/next?a=b", NextAfter: 30 * time.Second,
			}, http.Header{
				"Grip-Hold": {"stream"}, "Grip-Channel": {"a; prev-id=1"},
				"Grip-Keep-Alive": {"OiAieCJcCgo=; format=base64; timeout=20"},
				"Grip-Link":       {"</next?a=b>; rel=next; timeout=30"},
			}, "",
		},
		{"comma", Hold{Channels: []Channel{{"a, b", ""}}}, http.Header{}, `"a, b"`},
		{"line end", Hold{Channels: []Channel{{"a\r\nGrip-Hold: x", ""}}}, http.Header{}, "Grip-Channel"},
		{"no name", Hold{Channels: []Channel{{"", ""}}}, http.Header{}, "Grip-Channel"},
		{"semicolon in an id", Hold{Channels: []Channel{{"a", "1;2"}}}, http.Header{}, "prev-id=1;2"},
	}
	for _, tt := range tests {
		got := http.Header{}
		if err := tt.hold.Set(got); !reflect.DeepEqual(got, tt.want) || !failed(err, tt.err) {
			t.Errorf("%s: got %q, %v; want %q, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestLast(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		want  string
	}{
		{nil, ""},
		{[]string{"a; last-id=1"}, "1"},
		{[]string{"b; last-id=2, a; last-id=1"}, "1"},
		{[]string{"b; last-id=2", " a ;x=y; last-id=1"}, "1"},
		{[]string{"a"}, ""},
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
	if err == nil || want == "" {
		return err == nil && want == ""
	}
	return strings.Contains(err.Error(), want)
}
