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
		{name: "nothing", body: ""},
		{name: "open", body: "OPEN\r\n", want: []Event{{Type: Open}}},
		{
			name: "several", body: "OPEN\r\nTEXT 5\r\nhello\r\nPING 0\r\n\r\nDISCONNECT\r\n",
			want: []Event{{Type: Open}, {Text, []byte("hello")}, {Ping, []byte{}}, {Type: Disconnect}},
		},
		{name: "hexadecimal size", body: "TEXT A\r\n0123456789\r\n", want: []Event{{Text, []byte("0123456789")}}},
		{name: "line ends as content", body: "BINARY 4\r\n\r\n\r\n\r\n", want: []Event{{Binary, []byte("\r\n\r\n")}}},
		{name: "close code", body: "CLOSE 2\r\n\x03\xe8\r\n", want: []Event{{Close, []byte{3, 232}}}},
		{name: "no line end", body: "OPEN", err: "event 1: the body ends within"},
		{name: "second cut short", body: "OPEN\r\nTEXT 5\r\nhell", err: "event 2: the body ends within"},
		{name: "content without line end", body: "TEXT 5\r\nhello", err: "event 1: the body ends within"},
		{name: "content longer than its size", body: "TEXT 4\r\nhello\r\n", err: "not 4 bytes long"},
		{name: "unknown type", body: "open\r\n", err: `unknown type "open"`},
		{name: "negative size", body: "TEXT -1\r\n\r\n", err: `size "-1"`},
		{name: "huge size", body: "TEXT ffffffffffffffff\r\n\r\n", err: "size"},
		{name: "not a size", body: "TEXT 5 \r\nhello\r\n", err: `size "5 "`},
		{name: "too many", body: strings.Repeat("PING\r\n", maxEvents+1), err: "more than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeEvents([]byte(tt.body))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// FuzzDecodeEvents checks that DecodeEvents refuses a body, or that its events stay the same when they are encoded and
// decoded again.
func FuzzDecodeEvents(f *testing.F) {
	for _, seed := range []string{"OPEN\r\n", "TEXT 5\r\nhello\r\nCLOSE 2\r\n\x03\xe8\r\n", "PING 0\r\n\r\n", "TEXT 7fffffff\r\n"} {
		f.Add([]byte(seed))
	}
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
	tests := []struct {
		event Event
		want  string
	}{
		{Subscribe(`a"b`), "TEXT 27\r\nc:{\"channel\":\"a\\\"b\",\"type\":\"subscribe\"}\r\n"},
		{Message(Text, []byte("c:{}")), "TEXT 6\r\nm:c:{}\r\n"},
		{Message(Binary, []byte{0, 255}), "BINARY 4\r\nm:\x00\xff\r\n"},
		{Message(Text, nil), "TEXT 2\r\nm:\r\n"},
		{CloseEvent(4001, "bye"), "CLOSE 5\r\n\x0f\xa1bye\r\n"},
	}
	for _, tt := range tests {
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
			name: "response", hold: Hold{Mode: Response, Channels: []Channel{{"a", ""}, {"b:c", "x-1"}}, Timeout: 25 * time.Second},
			want: http.Header{"Grip-Hold": {"response"}, "Grip-Channel": {"a", "b:c; prev-id=x-1"}, "Grip-Timeout": {"25"}},
		},
		{
			name: "stream", hold: Hold{Mode: Stream, Channels: []Channel{{"a", "1"}}, KeepAlive: ": \"x\"\\\n\n", KeepAliveAfter: 20 * time.Second, Next: "/next?a=b", NextAfter: 30 * time.Second},
			want: http.Header{
				"Grip-Hold": {"stream"}, "Grip-Channel": {"a; prev-id=1"},
				"Grip-Keep-Alive": {"OiAieCJcCgo=; format=base64; timeout=20"},
				"Grip-Link":       {"</next?a=b>; rel=next; timeout=30"},
			},
		},
		{name: "channel with a comma", hold: Hold{Mode: Stream, Channels: []Channel{{"a, b", ""}}}, err: `"a, b"`},
		{name: "channel with a line end", hold: Hold{Mode: Stream, Channels: []Channel{{"a\r\nGrip-Hold: x", ""}}}, err: "Grip-Channel"},
		{name: "no channel name", hold: Hold{Mode: Stream, Channels: []Channel{{"", ""}}}, err: "Grip-Channel"},
		{name: "id with a semicolon", hold: Hold{Mode: Stream, Channels: []Channel{{"a", "1;2"}}}, err: "prev-id=1;2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := http.Header{}
			err := tt.hold.Set(got)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || len(got) > 0 {
					t.Fatalf("error %v and headers %q, want an error with %q", err, got, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestLast(t *testing.T) {
	tests := []struct {
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
	}
	for _, tt := range tests {
		if got := Last(http.Header{HeaderLast: tt.lines}, "a"); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.lines, got, tt.want)
		}
	}
}
