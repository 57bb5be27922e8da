package grip

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestEvents(t *testing.T) {
	for body, event := range map[string]Event{
		"OPEN\r\n":                   {Open, nil},
		"PING 0\r\n\r\n":             {Ping, []byte{}},
		"TEXT 6\r\nm:c:{}\r\n":       Message(Text, []byte("c:{}")),
		"BINARY 4\r\nm:\x00\xff\r\n": Message(Binary, []byte{0, 255}),
		"CLOSE 5\r\n\x0f\xa1bye\r\n": CloseEvent(4001, "bye"),
		"TEXT 27\r\nc:{\"channel\":\"a\\\"b\",\"type\":\"subscribe\"}\r\n": Subscribe(`a"b`),
	} {
		got, err := DecodeEvents([]byte(body + body))
		if !reflect.DeepEqual(got, []Event{event, event}) || string(EncodeEvents(event)) != body {
			t.Errorf("%q: got %q, %v; %q becomes %q", body, got, err, event, EncodeEvents(event))
		}
	}
	for _, bad := range []string{
		"OPEN", "open\r\n", "TEXT -1\r\n\r\n", "TEXT 5\r\nhello\r", "TEXT 4\r\nhello\r\n",
		"TEXT 6\r\nhello\r\n", "TEXT 8\r\nhello\r\n", "TEXT ffffffffffffffff\r\n\r\n",
	} {
		got, err := DecodeEvents([]byte("PONG\r\n" + bad))
		if !strings.HasPrefix(fmt.Sprint(err), "websocket events: event 2, ") {
			t.Errorf("%q: got %q, %v", bad, got, err)
		}
	}
}

// What DecodeEvents accepts is the same after EncodeEvents and DecodeEvents.
func FuzzDecodeEvents(f *testing.F) {
	f.Add([]byte("OPEN\r\nTEXT 00A\r\n0123456789\r\nDISCONNECT\r\n"))
	f.Add([]byte("BINARY 2\r\n\r\n\r\nCLOSE\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := DecodeEvents(body)
		again, errAgain := DecodeEvents(EncodeEvents(events...))
		if err == nil && (errAgain != nil || !reflect.DeepEqual(again, events)) {
			t.Errorf("%q: %q becomes %q, %v", body, events, again, errAgain)
		}
	})
}
